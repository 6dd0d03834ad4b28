"""HTTP/1.1 on one listener: h11 says what the bytes mean, each connection is one task, everything has a limit.

A connection that is slow or silent costs its own slot and nothing else: heads, bodies and sends have deadlines, streams
go at the reader's pace with nothing queued, and when all slots are taken the longest idle one makes room.
Stop: no new connections, idle ones close, endless streams end politely, the others get the drain time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import h11
import trio

from appliance.api.access import NeedToken, Refusal
from appliance.api.router import Answer, Caller, Reply, Request, Route, Router, Stream, WrongMethod
from appliance.api.wire import dumps, error_body
from appliance.errors import ApplianceError, UnavailableError
from appliance.host.sockets import Listener

READ_SIZE = 16 << 10
SEND_SIZE = 64 << 10
LINGER_SECONDS = 2.0
LINGER_BYTES = 1 << 20
CLOSE_SECONDS = 5.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
SECURITY = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
NO_CONTENT_POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one listener gives away at most."""

    connections_max: int = 128
    head_bytes_max: int = 16 << 10
    body_bytes_max: int = 4 << 20
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    body_seconds: float = 30.0
    send_seconds: float = 30.0  # for each 64 KB
    heartbeat_seconds: float = 30.0
    drain_seconds: float = 5.0


class Door(Protocol):
    """The rules of one listener."""

    def check(self, headers: Mapping[str, str], route: Route, caller: Caller) -> None:
        """Raises UntrustedError."""


Admit = Callable[[trio.SocketStream], Caller]
Counted = Callable[[str, str, int], None]  # method, pattern, status


class _Gone(Exception):
    pass


class HttpServer:
    """One listener's server. ``admit`` says who a new connection is; ``counted`` hears of every answer."""

    def __init__(
        self, router: Router, door: Door, admit: Admit, *, limits: Limits | None = None, counted: Counted | None = None
    ) -> None:
        self.router = router
        self.door = door
        self.limits = limits or Limits()
        self.counted: Counted = counted or (lambda method, pattern, status: None)
        self.draining = False
        self.connections: dict[_Connection, None] = {}  # oldest first
        self._admit = admit

    async def serve(
        self,
        listener: Listener,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Until ``stopping``; then drains. The listener is closed at the end, whatever happens."""
        self.draining = False
        try:
            async with trio.open_nursery() as serving:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(self._accept, listener, serving)
                    task_status.started()
                    await stopping.wait()
                    accepting.cancel_scope.cancel()
                listener.close()
                self.draining = True
                serving.cancel_scope.deadline = trio.current_time() + self.limits.drain_seconds
                for connection in list(self.connections):
                    connection.drain()
        finally:
            listener.close()

    async def _accept(self, listener: Listener, serving: trio.Nursery) -> None:
        while True:
            stream = await listener.accept()
            if len(self.connections) >= self.limits.connections_max and not self._make_room():
                await _turn_away(stream)
                continue
            try:
                caller = self._admit(stream)
            except UnavailableError:  # it left before we looked
                await trio.aclose_forcefully(stream)
                continue
            connection = _Connection(self, stream, caller)
            self.connections[connection] = None
            serving.start_soon(connection.run)

    def _make_room(self) -> bool:
        return any(connection.hang_up_if_idle() for connection in self.connections)  # the oldest one


async def _turn_away(stream: trio.SocketStream) -> None:
    body = dumps(error_body(UnavailableError("cannot serve: all connections are taken")))
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with trio.move_on_after(1), contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(head.encode() + b"Connection: close\r\n\r\n" + body)
    await trio.aclose_forcefully(stream)


class _Connection:
    """One peer, request after request."""

    def __init__(self, server: HttpServer, stream: trio.SocketStream, caller: Caller) -> None:
        self._server = server
        self._limits = server.limits
        self._stream = stream
        self._caller = caller
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.head_bytes_max)
        self._idle: trio.CancelScope | None = None  # set while nothing of a next request has come
        self._endless: trio.CancelScope | None = None  # set while an endless stream is told
        self._served = 0

    async def run(self) -> None:
        """Until either side has had enough."""
        try:
            while await self._one():
                self._served += 1
        except (_Gone, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # nobody is left to be told
        finally:
            del self._server.connections[self]
            await trio.aclose_forcefully(self._stream)

    def drain(self) -> None:
        """The server stops: do not wait for more, end what has no end of its own."""
        self.hang_up_if_idle()
        if self._endless is not None:
            self._endless.cancel()

    def hang_up_if_idle(self) -> bool:
        """Close between two requests; False when one is under way."""
        if self._idle is None or self._idle.cancel_called:
            return False
        self._idle.cancel()
        return True

    async def _one(self) -> bool:
        """One request and its answer; False when the connection is over."""
        if self._server.draining:
            return False
        method, pattern = "other", "none"
        try:
            head = await self._head()
            if head is None:
                return False
            said = head.method.decode("ascii")
            method = said if said in METHODS else "other"
            found = self._server.router.find_untrusted(said, head.target)
            if isinstance(found, WrongMethod):
                allow = (("Allow", ", ".join(found.allowed)),)
                refusal = Refusal(405, f"cannot {said} {found.path}: allowed is {', '.join(found.allowed)}")
                return await self._finish(method, pattern, _error_answer(refusal, allow))
            pattern = found.route.pattern
            headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
            self._server.door.check(headers, found.route, self._caller)
            body = await self._body(headers)
            request = Request(
                method=said,
                path=found.path,
                names=found.names,
                query=found.query,
                headers=headers,
                body=body,
                caller=self._caller,
            )
            reply: Reply = await found.route.handler(request)
        except ApplianceError as error:
            more = (("WWW-Authenticate", 'Basic realm="appliance"'),) if isinstance(error, NeedToken) else ()
            reply = _error_answer(error, more)
        return await self._finish(method, pattern, reply)

    async def _head(self) -> h11.Request | None:
        """The next request line and headers. Raises Refusal; None when the peer (or the drain) ended it in between."""
        buffered = bool(self._http.trailing_data[0])
        wait = self._limits.idle_seconds if self._served and not buffered else self._limits.head_seconds
        with trio.CancelScope(deadline=trio.current_time() + wait) as scope:
            if not buffered:
                self._idle = scope
            try:
                while True:
                    event = self._next_event()
                    if isinstance(event, h11.Request):
                        if event.http_version not in (b"1.0", b"1.1"):
                            raise Refusal(505, "cannot read the request: this is an HTTP/1.1 server")
                        return event
                    if event is not h11.NEED_DATA:
                        return None
                    data = await self._stream.receive_some(READ_SIZE)
                    if data and self._idle is not None:
                        self._idle = None
                        scope.deadline = trio.current_time() + self._limits.head_seconds
                    self._http.receive_data(data)
            finally:
                self._idle = None
        if self._http.trailing_data[0]:
            raise Refusal(408, f"cannot read the request: its head took over {self._limits.head_seconds:g} s")
        return None

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        """All of the request's body. Raises Refusal."""
        size_max = self._limits.body_bytes_max
        too_large = Refusal(413, f"cannot read the request: its body is larger than {size_max} bytes")
        if int(headers.get("content-length", "0")) > size_max:  # h11 has checked that it is a number
            raise too_large
        body = bytearray()
        with trio.move_on_after(self._limits.body_seconds):
            while True:
                if self._http.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
                event = self._next_event()
                if isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > size_max:
                        raise too_large
                elif isinstance(event, h11.EndOfMessage):
                    return bytes(body)
                elif event is h11.NEED_DATA:
                    self._http.receive_data(await self._stream.receive_some(READ_SIZE))
                else:
                    raise _Gone
        raise Refusal(408, f"cannot read the request: its body took over {self._limits.body_seconds:g} s")

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as exc:
            raise Refusal(exc.error_status_hint, f"cannot read the request: {exc}") from None

    async def _finish(self, method: str, pattern: str, reply: Reply) -> bool:
        """Answer, and say whether the connection goes on."""
        self._server.counted(method, pattern, reply.status if isinstance(reply, Answer) else 200)
        if self._http.our_state not in (h11.SEND_RESPONSE, h11.IDLE):
            raise _Gone  # h11 allows no answer any more
        if isinstance(reply, Answer):
            await self._answer(reply, head_only=method == "HEAD")
        else:
            await self._tell(reply, head_only=method == "HEAD")
        if set(self._http.states.values()) == {h11.DONE}:
            self._http.start_next_cycle()
            return True
        await self._linger()
        return False

    def _response(self, status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> h11.Response:
        named = {name.lower() for name, _ in headers}
        fixed = [pair for pair in (*SECURITY, NO_CONTENT_POLICY) if pair[0].lower() not in named]
        lines = [("Content-Type", content_type), *headers, *fixed]
        unread = self._http.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR, h11.CLOSED)
        if unread or self._server.draining:
            lines.append(("Connection", "close"))
        reason = HTTPStatus(status).phrase
        return h11.Response(status_code=status, headers=lines, reason=reason.encode())

    async def _answer(self, answer: Answer, *, head_only: bool) -> None:
        length = (("Content-Length", str(len(answer.body))),)
        data = self._http.send(self._response(answer.status, answer.content_type, answer.headers + length)) or b""
        if answer.body and not head_only:
            data += self._http.send(h11.Data(data=answer.body)) or b""
        await self._send_bytes(data + (self._http.send(h11.EndOfMessage()) or b""))

    async def _tell(self, stream: Stream, *, head_only: bool) -> None:
        """Chunk by chunk, each sent before the next is asked for."""
        if head_only:
            await stream.chunks.aclose()
            await self._send(self._response(200, stream.content_type, stream.headers))
            await self._send(h11.EndOfMessage())
            return
        gone = False
        whole = True
        async with trio.open_nursery() as nursery:
            sender, receiver = trio.open_memory_channel[bytes](0)
            pumping = trio.CancelScope()
            if stream.endless:
                self._endless = pumping
                nursery.start_soon(self._watch_hang_up, nursery.cancel_scope)
                if self._server.draining:
                    pumping.cancel()

            async def pump() -> None:
                nonlocal whole
                async with sender:
                    with pumping:
                        try:
                            async for chunk in stream.chunks:
                                await sender.send(chunk)
                        except ApplianceError as error:
                            whole = await _last_words(stream, sender, error)
                        finally:
                            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                                await stream.chunks.aclose()

            nursery.start_soon(pump)
            gone = True
            try:
                await self._send(self._response(200, stream.content_type, stream.headers))
                await self._send_all_of(receiver, stream.heartbeat)
                gone = False
            except (_Gone, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # judged below, outside the nursery, so that it stays a plain exception
            nursery.cancel_scope.cancel()
        self._endless = None
        if gone or not whole:
            raise _Gone
        await self._send(h11.EndOfMessage())

    async def _send_all_of(self, chunks: trio.MemoryReceiveChannel[bytes], heartbeat: bytes) -> None:
        while True:
            wait = self._limits.heartbeat_seconds if heartbeat else float("inf")
            chunk = heartbeat
            with trio.move_on_after(wait):
                try:
                    chunk = await chunks.receive()
                except trio.EndOfChannel:
                    return
            if chunk:
                await self._send(h11.Data(data=chunk))

    async def _watch_hang_up(self, telling: trio.CancelScope) -> None:
        """Nobody tells us by sending that he stopped reading; an end of file does."""
        early = 0
        try:
            while data := await self._stream.receive_some(READ_SIZE):
                self._http.receive_data(data)  # a pipelined request waits its turn
                early += len(data)
                if early > SEND_SIZE:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the same as an end of file
        telling.cancel()

    async def _send(self, event: h11.Event) -> None:
        await self._send_bytes(self._http.send(event) or b"")

    async def _send_bytes(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            with trio.move_on_after(self._limits.send_seconds) as scope:
                await self._stream.send_all(view[:SEND_SIZE])
            if scope.cancelled_caught:
                raise _Gone
            view = view[SEND_SIZE:]

    async def _linger(self) -> None:
        """Read a little of what the peer still sends, else the kernel resets and the answer may be lost with it."""
        with trio.move_on_after(LINGER_SECONDS):
            await self._stream.send_eof()
            left = LINGER_BYTES
            while left > 0 and (data := await self._stream.receive_some(READ_SIZE)):
                left -= len(data)


async def _last_words(stream: Stream, sender: trio.MemorySendChannel[bytes], error: ApplianceError) -> bool:
    """A source failed half way. Lines can say so; bytes can only be cut, visibly. True: said."""
    if not stream.content_type.startswith("application/x-ndjson"):
        return False
    await sender.send(dumps(error_body(error)) + b"\n")
    return True


def _error_answer(error: ApplianceError, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(dumps(error_body(error)) + b"\n", status=error.http_status, headers=headers)
