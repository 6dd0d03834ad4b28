"""What waits to be sent on one connection, and the peer's flow control over it (RFC 9113, section 5.2). Pure."""

from __future__ import annotations

from collections import deque

from appliance.etcdapi.frames import DATA, HEAD, WINDOW_DEFAULT, WINDOW_MAX

_FULL = 65536  # a sender who sees more than that waiting holds back


class _Held:
    __slots__ = ("pieces", "size", "tail")

    def __init__(self) -> None:
        self.pieces: deque[memoryview] = deque()
        self.size = 0
        self.tail = b""

    def take(self, size: int, out: list[bytes | memoryview]) -> None:
        """Move that much of it; nothing is copied."""
        self.size -= size
        while size:
            piece = self.pieces.popleft()
            if len(piece) > size:
                self.pieces.appendleft(piece[size:])
                piece = piece[:size]
            out.append(piece)
            size -= len(piece)


class Outbox:
    """``ready`` may go now, in order; what the windows forbid is held per stream.

    Windows of streams are kept as differences from the peer's initial window, and only where there is one, so that a
    short call costs nothing.
    """

    __slots__ = (
        "_changes", "_connection_waits", "_held_size", "_initial_window", "_ready_size", "_window",
        "frame_size_max", "held", "ready", "was_full",
    )  # fmt: skip

    def __init__(self, hello: bytes) -> None:
        self.ready: list[bytes | memoryview] = [hello]
        self.was_full = False
        self.frame_size_max = 16384
        self._initial_window = WINDOW_DEFAULT
        self._window = WINDOW_DEFAULT
        self._changes: dict[int, int] = {}
        self.held: dict[int, _Held] = {}  # streams that wait for a window
        self._connection_waits: dict[int, None] = {}  # streams that only the connection's window stops, in turn
        self._held_size = 0
        self._ready_size = 0

    @property
    def size(self) -> int:
        """Bytes of messages waiting, whatever for."""
        return self._held_size + self._ready_size

    def take(self) -> bytes:
        """All that is ready, in one piece."""
        data = b"".join(self.ready)
        self.ready.clear()
        self._ready_size = 0
        return data

    def holds(self, stream: int) -> bool:
        """Whether something of this stream waits for a window."""
        return stream in self.held

    def claim(self, stream: int, size: int) -> bool:
        """Take ``size`` from both windows for one frame that the caller appends to ``ready``; False: use ``hold``."""
        if size > self._window or size > self.frame_size_max or stream in self.held:
            return False
        change = self._changes.get(stream, 0)
        if size > self._initial_window + change:
            return False
        self._window -= size
        self._ready_size += size
        if self._ready_size > _FULL:
            self.was_full = True
        self._changes[stream] = change - size
        return True

    def claim_whole(self, stream: int, size: int) -> bool:
        """As ``claim``, of the stream's only frame: afterwards nothing is known of it."""
        if size > self._window or size > self.frame_size_max:
            return False
        if size > self._initial_window + (self._changes.get(stream, 0) if self._changes else 0):
            return False
        self._window -= size
        self._ready_size += size
        if self._ready_size > _FULL:
            self.was_full = True
        if self._changes:
            self._changes.pop(stream, None)
        return True

    def hold(self, stream: int, data: bytes, tail: bytes) -> None:
        """Send as the windows allow; ``tail`` after everything, and then the stream is over."""
        held = self.held.get(stream)
        if held is None:
            held = self.held[stream] = _Held()
        if data:
            held.pieces.append(memoryview(data))
            held.size += len(data)
            self._held_size += len(data)
        self.was_full = True
        if tail:
            held.tail = tail
        self._push(stream)

    def drop(self, stream: int) -> None:
        """The stream is over: nothing more of it is sent."""
        self._changes.pop(stream, None)
        self._connection_waits.pop(stream, None)
        held = self.held.pop(stream, None)
        if held is not None:
            self._held_size -= held.size

    def set_initial_window(self, size: int) -> None:
        """The peer's settings moved the windows of all streams."""
        wider = size > self._initial_window
        self._initial_window = size
        if wider:
            for stream in list(self.held):
                self._push(stream)

    def widen_stream(self, stream: int, size: int) -> bool:
        """False when the window would be larger than windows may be."""
        change = self._changes.get(stream, 0) + size
        if self._initial_window + change > WINDOW_MAX:
            return False
        self._changes[stream] = change
        if stream in self.held:
            self._push(stream)
        return True

    def widen(self, size: int) -> bool:
        """The same for the connection's window."""
        if self._window + size > WINDOW_MAX:
            return False
        self._window += size
        for _ in range(len(self._connection_waits)):
            if self._window <= 0:
                break
            stream = next(iter(self._connection_waits))
            del self._connection_waits[stream]
            self._push(stream)
        return True

    def _push(self, stream: int) -> None:
        held = self.held[stream]
        change = self._changes.get(stream, 0)
        before = held.size
        while held.size:
            size = min(held.size, self._window, self._initial_window + change, self.frame_size_max)
            if size <= 0:
                break
            self.ready.append(HEAD.pack(size >> 8, size & 255, DATA, 0, stream))
            held.take(size, self.ready)
            change -= size
            self._window -= size
        self._held_size -= before - held.size
        self._ready_size += before - held.size
        self._changes[stream] = change
        if not held.size:
            del self.held[stream]
            self._connection_waits.pop(stream, None)
            if held.tail:
                self.ready.append(held.tail)
                self._changes.pop(stream, None)
        elif self._window <= 0 < self._initial_window + change:
            self._connection_waits[stream] = None
