"""The sending half of an HTTP/2 connection: answers, and ends of calls. Pure; the receiving half is ``http2``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.etcdapi import frames
from appliance.etcdapi.call import StreamCall
from appliance.etcdapi.frames import NUMBER, Reason
from appliance.etcdapi.grpc import HEAD_BLOCK, MESSAGE_HEAD, TAIL_BLOCK, Code, tail_block
from appliance.etcdapi.outgoing import Outbox

# After every answer grpc-go asks by a ping how fast we are. Nobody waits to hear that; the ping, what it brings with
# it and what we say to it cost half as much as the call: so it is told with every 16th answer, or a large one (the
# client may need a larger window), and after some moments in any case.
_ESTIMATE_BYTES = 4096
_ESTIMATE_ANSWERS = 16
ESTIMATE_FROM = 32  # an answer and a moment count one each, down to nothing

_HEADS = [frames.answer_head(length) for length in range(256)]


class Answering:
    """What a ``StreamCall`` needs of its connection."""

    __slots__ = (
        "_acknowledgements", "_estimate", "_last_stream", "_out", "_partial_size", "calls", "closing", "outbox", "wake",
    )  # fmt: skip

    def __init__(self, wake: Callable[[], None], hello: bytes) -> None:
        """``hello`` goes out first; ``wake`` is called when there is something to send."""
        self.wake = wake
        self.calls: dict[int, StreamCall] = {}
        self.closing = False
        self.outbox = Outbox(hello)
        self._out = self.outbox.ready
        self._last_stream = 0
        self._partial_size = 0  # of messages that are not whole yet
        self._acknowledgements = 0  # of what is ready, when there is nothing else
        self._estimate = 0  # counts down to the acknowledgement of grpc-go's ping

    @property
    def patient(self) -> bool:
        """Whether there are only acknowledgements to send: they go with the next answer."""
        return len(self._out) == self._acknowledgements

    def waits_on(self) -> bool:
        """A moment went by without anything to send it with."""
        if not self._estimate or len(self._out) or self.closing:
            return False
        self._estimate -= 1
        if not self._estimate:
            self._out.append(frames.ESTIMATED)
            self._acknowledgements += 1
        return self._estimate > 0

    @property
    def pending(self) -> int:
        """Bytes that wait for the peer to read, or for the loop to take them."""
        return self.outbox.size

    def take(self) -> bytes:
        """All that may be sent now."""
        self._acknowledgements = 0
        return self.outbox.take()

    def reply(self, call: StreamCall, message: bytes) -> None:
        """The message and a good end."""
        stream = call.stream
        if self.calls.pop(stream, None) is None:
            return
        if (method := call.head.method) is not None:
            method.counts[0] += 1
        out = self._out
        if len(out) == self._acknowledgements:
            self.wake()
        outbox = self.outbox
        length = len(message)
        if self._estimate:
            self._count_for_estimate(length)
        if outbox.claim_whole(stream, length + 5):
            number = NUMBER.pack(stream)
            head = frames.answer_head(length) if length > 255 else _HEADS[length]
            out += (frames.HEADERS_5, number, head[0], number, head[1], message, frames.TAIL_5, number, TAIL_BLOCK)
            return
        out.append(frames.response_headers(stream))
        outbox.hold(stream, MESSAGE_HEAD.pack(0, length) + message, frames.trailers(stream))

    def send(self, call: StreamCall, message: bytes) -> None:
        """One of many messages."""
        stream = call.stream
        if stream not in self.calls:
            return
        out = self._out
        if len(out) == self._acknowledgements:
            self.wake()
        if not call.started:
            call.started = True
            out.append(frames.response_headers(stream))
        length = len(message) + 5
        if self._estimate:
            self._count_for_estimate(length)
        if self.outbox.claim(stream, length):
            out.append(frames.DATA_AND_MESSAGE.pack(length >> 8, length & 255, 0, 0, stream, 0, length - 5))
            out.append(message)
        else:
            self.outbox.hold(stream, MESSAGE_HEAD.pack(0, length - 5) + message, b"")

    def send_all(self, call: StreamCall, messages: Sequence[bytes]) -> None:
        """The same for several: in as few frames as they fit in, which saves both sides more than half of the work."""
        if call.stream not in self.calls or not messages:
            return
        if len(self._out) == self._acknowledgements:
            self.wake()
        if not call.started:
            call.started = True
            self._out.append(frames.response_headers(call.stream))
        pieces: list[bytes] = []
        size = 0
        for message in messages:
            length = len(message)
            if size + length + 5 > frames.FRAME_SIZE_MAX and pieces:
                self._send_framed(call.stream, b"".join(pieces))
                pieces, size = [], 0
            pieces += (MESSAGE_HEAD.pack(0, length), message)
            size += length + 5
        self._send_framed(call.stream, b"".join(pieces))

    def _send_framed(self, stream: int, data: bytes) -> None:
        size = len(data)
        if self._estimate:
            self._count_for_estimate(size)
        if self.outbox.claim(stream, size):
            self._out.append(frames.frame(frames.DATA, 0, stream, data))
        else:
            self.outbox.hold(stream, data, b"")

    def _count_for_estimate(self, length: int) -> None:
        self._estimate -= 1
        if self._estimate <= ESTIMATE_FROM - _ESTIMATE_ANSWERS or length >= _ESTIMATE_BYTES:
            self._out.append(frames.ESTIMATED)
            self._estimate = 0

    def start(self, call: StreamCall) -> None:
        """Response headers before any message."""
        if not call.over and not call.started:
            call.started = True
            if self.patient:
                self.wake()
            self._out.append(frames.response_headers(call.stream))

    def end(self, call: StreamCall, code: Code, text: str) -> None:
        """Trailers with a status; what was sent before goes out before."""
        if call.over:
            return
        half_closed, stream = call.half_closed, call.stream
        if call.head.method is not None:
            call.head.method.counts[code] += 1
        block = tail_block(code, text)
        last = frames.trailers(stream, block if call.started else HEAD_BLOCK + block)
        if not half_closed:  # the client need not send the rest (section 8.1)
            last += frames.rst_stream(stream, Reason.NO_ERROR)
        if self.patient:
            self.wake()
        if self.outbox.holds(stream):
            self.outbox.hold(stream, b"", last)
            self._forget(call, sent=True)
        else:
            self._forget(call)
            self._out.append(last)

    def go_away(self) -> None:
        """Start no more calls here; ``closing`` follows when the last is over. Watches are ended by their owner."""
        if self.patient:
            self.wake()
        self._out.append(frames.goaway(self._last_stream, Reason.NO_ERROR, "server stops"))

    def _forget(self, call: StreamCall, *, sent: bool = False) -> None:
        del self.calls[call.stream]
        if not sent:
            self.outbox.drop(call.stream)
        if call.buffer is not None:
            self._partial_size -= len(call.buffer)
            call.buffer = None
        if call.consumer is not None:
            consumer, call.consumer = call.consumer, None
            consumer.reset()
