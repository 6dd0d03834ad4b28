"""What gRPC lays over HTTP/2: status codes, message frames, header blocks. Pure.

The blocks are literals without indexing (RFC 7541, 6.2.2), so that no state is kept for what we send.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from struct import Struct
from typing import NamedTuple, Protocol

from appliance.errors import ApplianceError

MESSAGE_SIZE_MAX = 2 << 20  # etcd: 1.5 MiB of request and 512 KiB for gRPC's sake
MESSAGE_HEAD = Struct(">BI")


class Code(IntEnum):
    """The canonical status codes, those that etcd uses."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RefusedError(ApplianceError):
    """The answer to a call is this status, not a message."""

    kind = "refused"

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Consumer(Protocol):
    """The receiving end of a streaming call."""

    def message(self, message: bytes) -> None:
        """One whole message came."""

    def half_close(self) -> None:
        """The client will send no more."""

    def reset(self) -> None:
        """The call is over, whoever ended it: by cancellation, or because the connection is gone."""

    def drained(self) -> None:
        """All that was sent has left; a sender that held back may go on."""


class Call(Protocol):
    """One call, as a method sees it.

    Answer by ``reply`` or ``refuse`` once; a streaming method by ``send`` any number of times, then ``end``.
    Answers to a call that is over are dropped without a word: the client has left.
    """

    @property
    def over(self) -> bool:
        """Whether nobody waits for an answer any more."""

    @property
    def backlog(self) -> int:
        """Bytes sent on this call's connection that have not left it yet."""

    @property
    def token(self) -> bytes:
        """Who calls: what Authenticate gave, or nothing."""

    @property
    def common_name(self) -> str:
        """Whose certificate the client showed, or nothing."""

    def hold(self, consumer: Consumer) -> None:
        """A unary method that answers later is told by ``reset`` when nobody waits any more."""

    def reply(self, message: bytes) -> None:
        """The one message of a unary method, and the end."""

    def refuse(self, code: Code, text: str) -> None:
        """End with a status that is not OK."""

    def start(self) -> None:
        """A streaming method is there, before it has anything to say."""

    def send(self, message: bytes) -> None:
        """One message of a stream."""

    def send_all(self, messages: Sequence[bytes]) -> None:
        """Several messages of a stream."""

    def end(self) -> None:
        """End of a stream, well."""


BEGUN = len(Code)  # behind the codes: how many calls of a streaming method there were
_NOBODYS = [0] * (BEGUN + 1)


def new_counts() -> list[int]:
    """How many calls of a method ended with which code."""
    return [0] * (BEGUN + 1)


class Unary(NamedTuple):
    """One message in, one out: returned at once, or given to ``call.reply`` later when None is returned."""

    handle: Callable[[Call, bytes], bytes | None]
    counts: list[int] = _NOBODYS


class Streaming(NamedTuple):
    """Messages both ways."""

    open: Callable[[Call], Consumer]
    counts: list[int] = _NOBODYS


Method = Unary | Streaming
Methods = Mapping[bytes, Method]


class Head(NamedTuple):
    """What the headers of a call said. Shared by all calls with the same header block."""

    method: Method | None
    refusal: RefusedError | None
    token: bytes = b""
    gzip: bool = False  # messages may come packed


def _literal(name: bytes, value: bytes) -> bytes:
    length = len(value)
    if length < 127:
        return b"\x00" + bytes((len(name),)) + name + bytes((length,)) + value
    length -= 127
    coded = bytearray(b"\x7f")
    while length > 127:
        coded.append(length & 127 | 128)
        length >>= 7
    coded.append(length)
    return b"\x00" + bytes((len(name),)) + name + bytes(coded) + value


HEAD_BLOCK = b"\x88\x0f\x10\x10application/grpc"  # :status 200; content-type, by its static index 31
TAIL_BLOCK = _literal(b"grpc-status", b"0")


def percent_encode(text: str) -> bytes:
    """For ``grpc-message``: printable ASCII but "%" stands for itself (gRPC over HTTP2, "Status-Message")."""
    return b"".join(
        bytes((octet,)) if 0x20 <= octet <= 0x7E and octet != 0x25 else b"%%%02X" % octet for octet in text.encode()
    )


def tail_block(code: int, text: str) -> bytes:
    """Trailers that refuse."""
    block = _literal(b"grpc-status", b"%d" % code)
    return block + _literal(b"grpc-message", percent_encode(text[:8192])) if text else block


def unpack_untrusted(data: bytes, most: int) -> bytes:
    """A message that came packed by gzip. Raises RefusedError; no more than ``most`` is ever held."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        message = unpacker.decompress(data, most + 1)
    except zlib.error as exc:
        raise RefusedError(Code.INTERNAL, f"grpc: failed to decompress the received message {exc}") from exc
    if len(message) > most:
        size = max(int.from_bytes(data[-4:], "little"), most + 1)  # as gzip's last word has it
        raise RefusedError(Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {most})")
    if not unpacker.eof:
        raise RefusedError(Code.INTERNAL, "grpc: failed to decompress the received message unexpected EOF")
    return message


def read_head_untrusted(headers: list[tuple[bytes, bytes]], methods: Methods) -> Head:
    """Which method is called. A wrong call is answered by a status; only wrong HTTP is the caller's trouble."""
    found = dict(headers)
    path = found.get(b":path", b"")
    encoding = found.get(b"grpc-encoding", b"identity")
    if encoding not in (b"identity", b"gzip"):
        text = f'grpc: Decompressor is not installed for grpc-encoding "{encoding.decode("latin-1")}"'
        return Head(None, RefusedError(Code.UNIMPLEMENTED, text))
    method = methods.get(path)
    if method is not None:
        return Head(method, None, found.get(b"token") or found.get(b"authorization", b""), encoding == b"gzip")
    shown = path.decode("latin-1")
    service, slash, name = shown.removeprefix("/").rpartition("/")
    if not shown.startswith("/") or not slash:
        return Head(None, RefusedError(Code.UNIMPLEMENTED, f'malformed method name: "{shown}"'))
    prefix = f"/{service}/".encode("latin-1")
    if any(known.startswith(prefix) for known in methods):
        return Head(None, RefusedError(Code.UNIMPLEMENTED, f"unknown method {name} for service {service}"))
    return Head(None, RefusedError(Code.UNIMPLEMENTED, f"unknown service {service}"))
