"""The bytes to and from one peer: h11 says what they mean, and everything has a deadline."""

from __future__ import annotations

from collections.abc import Mapping

import h11
import trio

from appliance.api.access import Refusal
from appliance.api.limits import Limits

READ_SIZE = 16 << 10
SEND_SIZE = 64 << 10
LINGER_SECONDS = 2.0
LINGER_BYTES = 1 << 20


class Gone(Exception):
    """Nobody is left to be told."""


class Peer:
    """Heads and bodies in, events out."""

    def __init__(self, stream: trio.SocketStream, limits: Limits) -> None:
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes_max)
        self._stream = stream
        self._limits = limits
        self._idle: trio.CancelScope | None = None  # set while nothing of a next request has come

    def hang_up_if_idle(self) -> bool:
        """Close between two requests; False when one is under way."""
        if self._idle is None or self._idle.cancel_called:
            return False
        self._idle.cancel()
        return True

    async def head(self, *, first: bool) -> h11.Request | None:
        """The next request line and headers. Raises Refusal; None when the peer (or the drain) ended it in between."""
        buffered = bool(self.http.trailing_data[0])
        wait = self._limits.head_seconds if first or buffered else self._limits.idle_seconds
        with trio.CancelScope(deadline=trio.current_time() + wait) as scope:
            if not buffered:
                self._idle = scope
            try:
                while True:
                    event = self._next_event()
                    if isinstance(event, h11.Request):
                        if event.http_version not in (b"1.0", b"1.1"):
                            raise Refusal(505, "cannot read the request: this is an HTTP/1.1 server")
                        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                            # RFC 9112, 6.1: a proxy may have counted otherwise, and smuggled in a second request
                            raise Refusal(400, "cannot read the request: it has Content-Length and Transfer-Encoding")
                        return event
                    if event is not h11.NEED_DATA:
                        return None
                    data = await self._stream.receive_some(READ_SIZE)
                    if data and self._idle is not None:
                        data = data.lstrip(b"\r\n")  # RFC 9112, 2.2: some send an empty line after a body
                        if not data:
                            continue
                        self._idle = None
                        scope.deadline = trio.current_time() + self._limits.head_seconds
                    self.http.receive_data(data)
            finally:
                self._idle = None
        if self.http.trailing_data[0]:
            raise Refusal(408, f"cannot read the request: its head took over {self._limits.head_seconds:g} s")
        return None

    async def body(self, headers: Mapping[str, str]) -> bytes:
        """All of the request's body. Raises Refusal."""
        size_max = self._limits.body_bytes_max
        too_large = Refusal(413, f"cannot read the request: its body is larger than {size_max} bytes")
        if int(headers.get("content-length", "0")) > size_max:  # h11 has checked that it is a number
            raise too_large
        body = bytearray()
        with trio.move_on_after(self._limits.body_seconds):
            while True:
                if self.http.they_are_waiting_for_100_continue:
                    await self.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
                event = self._next_event()
                if isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > size_max:
                        raise too_large
                elif isinstance(event, h11.EndOfMessage):
                    return bytes(body)
                elif event is h11.NEED_DATA:
                    self.http.receive_data(await self._stream.receive_some(READ_SIZE))
                else:
                    raise Gone
        raise Refusal(408, f"cannot read the request: its body took over {self._limits.body_seconds:g} s")

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self.http.next_event()
        except h11.RemoteProtocolError as exc:
            if exc.error_status_hint == 431:
                size_max = self._limits.head_bytes_max
                raise Refusal(431, f"cannot read the request: its head is larger than {size_max} bytes") from None
            raise Refusal(exc.error_status_hint, f"cannot read the request: {exc}") from None

    async def until_hung_up(self) -> None:
        """Nobody tells us by sending that he stopped reading; an end of file does, as do too many words meanwhile."""
        early = 0
        try:
            while data := await self._stream.receive_some(READ_SIZE):
                self.http.receive_data(data)  # a pipelined request waits its turn
                early += len(data)
                if early > SEND_SIZE:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the same as an end of file

    async def send(self, *events: h11.Event) -> None:
        """All of it, or Gone."""
        view = memoryview(b"".join(self.http.send(event) or b"" for event in events))
        while view:
            with trio.move_on_after(self._limits.send_seconds) as scope:
                await self._stream.send_all(view[:SEND_SIZE])
            if scope.cancelled_caught:
                raise Gone
            view = view[SEND_SIZE:]

    async def linger(self) -> None:
        """Read a little of what the peer still sends, else the kernel resets and the answer may be lost with it."""
        with trio.move_on_after(LINGER_SECONDS):
            await self._stream.send_eof()
            left = LINGER_BYTES
            while left > 0 and (data := await self._stream.receive_some(READ_SIZE)):
                left -= len(data)

    async def close(self) -> None:
        """At once."""
        await trio.aclose_forcefully(self._stream)
