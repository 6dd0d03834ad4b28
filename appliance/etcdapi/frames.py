"""The frames of HTTP/2 (RFC 9113, section 6): numbers, sizes, and the bytes of those that we send. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct

from appliance.errors import InputError
from appliance.etcdapi.grpc import HEAD_BLOCK, TAIL_BLOCK

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_SIZE_MAX = 16384  # the least that may be asked for; no peer need know more
WINDOW_MAX = (1 << 31) - 1
WINDOW_DEFAULT = 65535
RECEIVE_WINDOW = 4 << 20  # of a connection, and of each stream on it

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

HEAD = Struct(">HBBBI")  # length in two parts, type, flags, stream
NUMBER = Struct(">I")


class Reason(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class ConnectionLostError(InputError):
    """The peer broke a rule of which no connection recovers."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Any frame."""
    length = len(payload)
    return HEAD.pack(length >> 8, length & 255, kind, flags, stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """Ours, to be acknowledged by the peer."""
    return frame(SETTINGS, 0, 0, b"".join(Struct(">HI").pack(number, value) for number, value in pairs))


def window_update(stream: int, size: int) -> bytes:
    """The peer may send that much more."""
    return HEAD.pack(0, 4, WINDOW_UPDATE, 0, stream) + NUMBER.pack(size)


def rst_stream(stream: int, reason: Reason) -> bytes:
    """An end without trailers."""
    return HEAD.pack(0, 4, RST_STREAM, 0, stream) + NUMBER.pack(reason)


def goaway(last_stream: int, reason: Reason, text: str) -> bytes:
    """The last word on a connection, or notice that it ends."""
    return frame(GOAWAY, 0, 0, Struct(">II").pack(last_stream, reason) + text.encode()[:512])


INITIAL_WINDOW, FRAME_SIZE = 4, 5  # the settings that mean something to us


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The peer's, one by one. Raises ConnectionLostError."""
    if len(payload) % 6:
        raise ConnectionLostError(Reason.FRAME_SIZE_ERROR, "cannot read settings: they are not pairs")
    for at in range(0, len(payload), 6):
        number, value = payload[at] << 8 | payload[at + 1], NUMBER.unpack_from(payload, at + 2)[0]
        if number == INITIAL_WINDOW and value > WINDOW_MAX:
            raise ConnectionLostError(Reason.FLOW_CONTROL_ERROR, f"cannot use a window of {value}")
        if number == FRAME_SIZE and not FRAME_SIZE_MAX <= value < 1 << 24:
            raise ConnectionLostError(Reason.PROTOCOL_ERROR, f"cannot use frames of {value} bytes")
        yield number, value


SETTINGS_ACK = frame(SETTINGS, ACK, 0, b"")
ESTIMATE = b"\2\4\x10\x10\x09\x0e\7\7"  # in pings by which grpc-go measures bandwidth
ESTIMATED = frame(PING, ACK, 0, ESTIMATE)

# A unary answer: HEADERS_5, stream, first part of the head, stream, second part, message, TAIL_5, stream, TAIL_BLOCK.
HEADERS_5 = HEAD.pack(0, len(HEAD_BLOCK), HEADERS, END_HEADERS, 0)[:5]
TAIL_5 = HEAD.pack(0, len(TAIL_BLOCK), HEADERS, END_HEADERS | END_STREAM, 0)[:5]
DATA_AND_MESSAGE = Struct(">HBBBIBI")


def answer_head(length: int) -> tuple[bytes, bytes]:
    """Both parts: what stands before the stream of the DATA frame, and between that and the message."""
    whole = HEAD.pack((length + 5) >> 8, (length + 5) & 255, DATA, 0, 0)
    return HEAD_BLOCK + whole[:5], b"\0" + NUMBER.pack(length)


def response_headers(stream: int) -> bytes:
    """The start of every answer."""
    return HEADERS_5 + NUMBER.pack(stream) + HEAD_BLOCK


def trailers(stream: int, block: bytes = TAIL_BLOCK) -> bytes:
    """The end of every answer; alone it is "trailers-only" when the block holds a status line."""
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


def unpad(payload: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the content of a padded frame is. Raises ConnectionLostError."""
    if start >= end or payload[start] >= end - start:
        raise ConnectionLostError(Reason.PROTOCOL_ERROR, "cannot read a frame: it is all padding")
    return start + 1, end - payload[start]


def number(payload: bytes) -> int:
    """The only content of a frame. Raises ConnectionLostError."""
    if len(payload) != 4:
        raise ConnectionLostError(Reason.FRAME_SIZE_ERROR, f"cannot read a number of {len(payload)} bytes")
    return int.from_bytes(payload, "big")
