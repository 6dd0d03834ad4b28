"""The server's side of one HTTP/2 connection that carries gRPC (RFC 9113). Pure: bytes in, bytes out.

A gRPC server needs a sliver of HTTP/2, and this is the hot path of every request, hence: header blocks that were seen
before are looked up, not decoded; a call whose one message comes in one frame costs no copies; answers are put together
from pieces that are the same for many (``answering``).

What a peer can make us hold is bounded: unread answers (``OUTPUT_MAX``; calls that come meanwhile are parked, within
``PARKED_MAX``), half-sent messages (``PARTIAL_MAX``), headers, streams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache

from appliance.etcdapi import frames
from appliance.etcdapi.answering import ESTIMATE_FROM, Answering
from appliance.etcdapi.call import StreamCall
from appliance.etcdapi.frames import HEAD, NUMBER, ConnectionLostError, Reason
from appliance.etcdapi.grpc import (
    BEGUN,
    MESSAGE_HEAD,
    MESSAGE_SIZE_MAX,
    Code,
    Methods,
    RefusedError,
    Streaming,
    Unary,
    unpack_untrusted,
)
from appliance.etcdapi.heads import HEADER_BLOCK_MAX, Heads

STREAMS_MAX = 10_000
OUTPUT_MAX = 4 << 20
PARKED_MAX = 8 << 20
PARTIAL_MAX = 8 << 20
SETTINGS_FRAMES_MAX = 1000  # in the life of a connection; each may move the windows of all streams


@cache
def _hello(streams: int) -> bytes:
    wider = frames.window_update(0, frames.RECEIVE_WINDOW - frames.WINDOW_DEFAULT)
    return frames.settings((3, streams), (4, frames.RECEIVE_WINDOW), (6, HEADER_BLOCK_MAX)) + wider


class Connection(Answering):
    """Give ``receive`` what came, send what ``take`` returns; ``lost`` when the socket is gone.

    ``closing``: send what is left, then close. ``wake`` is called when output appears outside of ``receive``.
    """

    __slots__ = (
        "_block", "_buffer", "_consumed", "_heads", "_known", "_message_max", "_parked", "_parked_size",
        "_settings_seen", "_started", "_streams_max", "common_name",
    )  # fmt: skip

    def __init__(
        self, methods: Methods, wake: Callable[[], None], common_name: str = "", most: int = 0, streams: int = 0
    ) -> None:
        """``common_name`` is that of the client's certificate; ``most`` bytes may a message have.

        ``streams`` may be open at once; 0: as many as we can hold.
        """
        self._streams_max = min(streams or STREAMS_MAX, STREAMS_MAX)
        super().__init__(wake, _hello(self._streams_max))
        self._message_max = most or MESSAGE_SIZE_MAX
        self.common_name = common_name
        self._buffer = b""
        self._started = False
        self._heads = Heads(methods)
        self._known = self._heads.known
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags, header block so far
        self._consumed = 0  # of the receive window, not given back yet
        self._parked: deque[tuple[StreamCall, bytes]] = deque()
        self._parked_size = 0
        self._settings_seen = 0

    @property
    def established(self) -> bool:
        """Whether the peer has shown to speak HTTP/2."""
        return self._started

    def settled(self) -> Connection:
        """It goes on by itself."""
        return self

    # In: bytes

    def receive(self, data: bytes) -> None:
        """Act on all whole frames in what came so far."""
        if self.closing:
            return
        try:
            self._receive_untrusted(data)
        except ConnectionLostError as exc:
            self._out.append(frames.goaway(self._last_stream, exc.reason, exc.message))
            self.lost()

    def _receive_untrusted(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        size, position = len(buffer), 0
        if not self._started:
            if not buffer.startswith(frames.PREFACE[:size]):
                raise ConnectionLostError(Reason.PROTOCOL_ERROR, "cannot read the preface: this is no HTTP/2")
            if size < 24:
                self._buffer = buffer
                return
            self._started = True
            position = 24
        calls, known = self.calls, self._known
        while size - position >= 9:
            high, low, kind, flags, stream = HEAD.unpack_from(buffer, position)
            start = position + 9
            end = start + (high << 8 | low)
            if end - start > frames.FRAME_SIZE_MAX:
                raise ConnectionLostError(Reason.FRAME_SIZE_ERROR, f"cannot read a frame of {end - start} bytes")
            if end > size:
                break
            position = end
            stream &= 0x7FFFFFFF
            if kind == frames.DATA and self._block is None:
                self._consumed += end - start
                call = calls.get(stream)
                if call is None:
                    self._check_not_idle(stream)
                    continue
                if flags & frames.PADDED:
                    start, end = frames.unpad(buffer, start, end)
                # The usual: the only message of a unary call, whole.
                method = call.head.method
                if (
                    flags & 1
                    and not call.half_closed
                    and call.buffer is None
                    and method.__class__ is Unary
                    and end - start >= 5
                    and not buffer[start]
                    and end - start - 5 == NUMBER.unpack_from(buffer, start + 1)[0]
                ):
                    call.half_closed = True
                    self._serve(call, buffer[start + 5 : end])
                else:
                    self._data(call, buffer[start:end], bool(flags & 1))
            elif (
                kind == frames.HEADERS
                and flags == frames.END_HEADERS
                and stream > self._last_stream
                and stream & 1
                and self._block is None
                and (head := known.get(buffer[start:end])) is not None
                and head.method.__class__ is Unary
                and len(calls) + len(self.outbox.held) < self._streams_max
            ):  # as usual, too: ``_headers`` would do the same
                self._last_stream = stream
                calls[stream] = StreamCall(self, stream, head)
            else:
                self._frame(kind, flags, stream, buffer[start:end])
            if self.closing:
                return
        self._buffer = buffer[position:] if position < size else b""
        if self._consumed > frames.RECEIVE_WINDOW >> 2:
            self._out.append(frames.window_update(0, self._consumed))
            self._consumed = 0

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and (kind != frames.CONTINUATION or stream != self._block[0]):
            raise ConnectionLostError(Reason.PROTOCOL_ERROR, "cannot read a frame amid a header block")
        if kind == frames.HEADERS:
            self._headers_frame(flags, stream, payload)
        elif kind == frames.CONTINUATION:
            if self._block is None:
                raise ConnectionLostError(Reason.PROTOCOL_ERROR, "cannot continue headers that did not begin")
            self._block[2].extend(payload)
            self._whole_block(flags)
        elif kind == frames.WINDOW_UPDATE:
            self._window_update(stream, frames.number(payload))
        elif kind == frames.PING:
            if len(payload) != 8 or stream:
                raise ConnectionLostError(Reason.FRAME_SIZE_ERROR, "cannot read a ping: it is not 8 bytes on stream 0")
            if flags & frames.ACK:
                pass
            elif payload == frames.ESTIMATE and not self._estimate:
                self._estimate = ESTIMATE_FROM
            else:
                self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
                self._acknowledgements += 1
        elif kind == frames.SETTINGS:
            self._settings(flags, stream, payload)
        elif kind == frames.RST_STREAM:
            frames.number(payload)
            self._check_not_idle(stream)
            call = self.calls.get(stream)
            if call is not None:
                self._cancelled(call)
            else:
                self.outbox.drop(stream)
        elif kind == frames.PRIORITY:
            if len(payload) != 5 or not stream:
                raise ConnectionLostError(Reason.FRAME_SIZE_ERROR, "cannot read a priority: it is not 5 bytes")
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionLostError(Reason.PROTOCOL_ERROR, "cannot accept a push: a client may not promise")
        # GOAWAY: the client will start no more; its calls go on. Unknown kinds are ignored (section 4.1).

    def _check_not_idle(self, stream: int) -> None:
        if not stream & 1 or stream > self._last_stream:
            raise ConnectionLostError(Reason.PROTOCOL_ERROR, f"cannot read a frame on stream {stream}: it is not open")

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or (flags & frames.ACK and payload):
            raise ConnectionLostError(Reason.FRAME_SIZE_ERROR, "cannot read settings: they are not pairs on stream 0")
        if flags & frames.ACK:
            return
        self._settings_seen += 1
        if self._settings_seen > SETTINGS_FRAMES_MAX:
            raise ConnectionLostError(Reason.ENHANCE_YOUR_CALM, f"cannot follow {SETTINGS_FRAMES_MAX} settings")
        for number, value in frames.read_settings(payload):
            if number == frames.INITIAL_WINDOW:
                self.outbox.set_initial_window(value)
            elif number == frames.FRAME_SIZE:
                self.outbox.frame_size_max = value
        self._out.append(frames.SETTINGS_ACK)
        self._acknowledgements += 1
        self._released()

    def _window_update(self, stream: int, size: int) -> None:
        size &= frames.WINDOW_MAX
        if stream == 0:
            if not size or not self.outbox.widen(size):
                raise ConnectionLostError(Reason.FLOW_CONTROL_ERROR, f"cannot widen the window by {size}")
        else:
            self._check_not_idle(stream)
            known = stream in self.calls or self.outbox.holds(stream)
            if known and not (size and self.outbox.widen_stream(stream, size)):
                self._reset(stream, Reason.FLOW_CONTROL_ERROR)
        self._released()

    # In: headers

    def _headers_frame(self, flags: int, stream: int, payload: bytes) -> None:
        start, end = frames.unpad(payload, 0, len(payload)) if flags & frames.PADDED else (0, len(payload))
        start += 5 if flags & frames.WITH_PRIORITY else 0
        if start > end or not stream & 1:
            raise ConnectionLostError(Reason.PROTOCOL_ERROR, f"cannot read headers on stream {stream}")
        if flags & frames.END_HEADERS:
            self._headers(stream, flags, payload[start:end])
        else:
            self._block = (stream, flags, bytearray(payload[start:end]))

    def _whole_block(self, flags: int) -> None:
        assert self._block is not None
        stream, first_flags, block = self._block
        if len(block) > HEADER_BLOCK_MAX:
            raise ConnectionLostError(Reason.ENHANCE_YOUR_CALM, f"cannot read headers of {len(block)} bytes")
        if flags & frames.END_HEADERS:
            self._block = None
            self._headers(stream, first_flags, bytes(block))

    def _headers(self, stream: int, flags: int, block: bytes) -> None:
        head = self._heads.known.get(block) or self._heads.read_untrusted(block)
        call = self.calls.get(stream)
        if call is not None:  # a client's trailers
            if flags & frames.END_STREAM and not call.half_closed:
                self._data(call, b"", True)
            else:
                self._reset(stream, Reason.PROTOCOL_ERROR)
            return
        if stream <= self._last_stream:
            self._out.append(frames.rst_stream(stream, Reason.STREAM_CLOSED))
            return
        self._last_stream = stream
        if len(self.calls) + len(self.outbox.held) >= self._streams_max:
            self._out.append(frames.rst_stream(stream, Reason.REFUSED_STREAM))
            return
        call = self.calls[stream] = StreamCall(self, stream, head)
        call.half_closed = bool(flags & frames.END_STREAM)
        if head.refusal is not None:
            self.end(call, head.refusal.code, head.refusal.message)
        elif head.method.__class__ is Streaming:
            self._open(call)
            if call.half_closed and call.consumer is not None:
                call.consumer.half_close()
        elif call.half_closed:
            self.end(call, Code.INTERNAL, "EOF")

    def _open(self, call: StreamCall) -> None:
        assert isinstance(call.head.method, Streaming)
        call.head.method.counts[BEGUN] += 1
        try:
            consumer = call.head.method.open(call)
        except RefusedError as exc:
            self.end(call, exc.code, exc.message)
            return
        if not call.over:
            call.consumer = consumer

    # In: messages

    def _data(self, call: StreamCall, data: bytes, last: bool) -> None:
        if call.half_closed:
            self._reset(call.stream, Reason.STREAM_CLOSED)
            return
        call.half_closed = last
        if data and not last and (call.consumer is not None or self._message_max > frames.RECEIVE_WINDOW):
            self._out.append(frames.window_update(call.stream, len(data)))
        if call.buffer is None:
            call.buffer = bytearray()
        buffer = call.buffer
        buffer += data
        self._partial_size += len(data)
        while len(buffer) >= 5 and not call.over:
            compressed, length = MESSAGE_HEAD.unpack_from(buffer)
            if compressed and not call.head.gzip:
                self.end(call, Code.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
                return
            if length > self._message_max:
                text = f"grpc: received message larger than max ({length} vs. {self._message_max})"
                self.end(call, Code.RESOURCE_EXHAUSTED, text)
                return
            if len(buffer) < 5 + length or (call.consumer is None and not last):
                break
            message = bytes(buffer[5 : 5 + length])
            del buffer[: 5 + length]
            self._partial_size -= 5 + length
            if compressed:
                try:
                    message = unpack_untrusted(message, self._message_max)
                except RefusedError as exc:
                    self.end(call, exc.code, exc.message)
                    return
            if call.consumer is None:
                self._partial_size -= len(buffer)
                call.buffer = None
                self._serve(call, message)
                return
            call.consumer.message(message)
        if call.over:
            return
        if self._partial_size > PARTIAL_MAX + self._message_max or (
            call.consumer is None and len(buffer) > self._message_max + 5
        ):
            self.end(call, Code.RESOURCE_EXHAUSTED, "grpc: too much of unfinished messages")
        elif last and (buffer or call.consumer is None):
            self.end(call, Code.INTERNAL, "unexpected EOF")
        elif last and call.consumer is not None:
            call.consumer.half_close()

    def _serve(self, call: StreamCall, message: bytes) -> None:
        if not self._parked and self.outbox.size <= OUTPUT_MAX:
            self._run(call, message)
        elif self._parked_size <= PARKED_MAX:
            self._parked.append((call, message))
            self._parked_size += len(message)
        else:
            self._reset(call.stream, Reason.REFUSED_STREAM)

    def _run(self, call: StreamCall, message: bytes) -> None:
        method = call.head.method
        assert method.__class__ is Unary
        try:
            answer = method.handle(call, message)
        except RefusedError as exc:
            self.end(call, exc.code, exc.message)
            return
        if answer is not None:
            self.reply(call, answer)

    # The loop

    def resume(self) -> None:
        """The loop sent all it took: parked calls and held-back senders go on."""
        if self._parked:
            self._released()
        if self.outbox.was_full and not self.outbox.size:
            self.outbox.was_full = False
            for call in list(self.calls.values()):
                if call.consumer is not None:
                    call.consumer.drained()

    def _released(self) -> None:
        while self._parked and self.outbox.size <= OUTPUT_MAX:
            call, message = self._parked.popleft()
            self._parked_size -= len(message)
            if not call.over:
                self._run(call, message)

    # Ends

    def _reset(self, stream: int, reason: Reason) -> None:
        self._out.append(frames.rst_stream(stream, reason))
        call = self.calls.get(stream)
        if call is not None:
            self._forget(call)
        else:
            self.outbox.drop(stream)

    def _cancelled(self, call: StreamCall) -> None:
        if call.head.method is not None:
            call.head.method.counts[Code.CANCELLED] += 1
        self._forget(call)

    def lost(self) -> None:
        """The socket is gone, or the peer is: every call is over."""
        self.closing = True
        for call in list(self.calls.values()):
            if not call.over:
                self._cancelled(call)
        self._parked.clear()
        self._buffer = b""
