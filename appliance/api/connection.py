"""One peer, request after request: who may, who answers, and how the answer is told.

A bug in a handler costs its own request (500, and the trace on stderr), not the connections of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol

import h11
import trio

from appliance.api.access import NeedToken, Refusal
from appliance.api.limits import Limits
from appliance.api.peer import Gone, Peer
from appliance.api.router import Answer, Caller, Reply, Request, Route, Router, Stream, WrongMethod
from appliance.api.wire import dumps, error_body
from appliance.errors import ApplianceError, UnavailableError
from appliance.host import clock
from appliance.supervisor import Bug, contain, describe
from appliance.telling import tell_fault

CLOSE_SECONDS = 5.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
SECURITY = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
NO_CONTENT_POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


class Door(Protocol):
    """The rules of one listener."""

    @property
    def name(self) -> str:
        """As ``Caller.door``."""

    def check(self, headers: Mapping[str, str], route: Route, caller: Caller) -> None:
        """Raises UntrustedError."""


class Host(Protocol):
    """What all connections of one listener share: ``server.HttpServer``."""

    router: Router
    door: Door
    limits: Limits
    counted: Callable[[str, str, int], None]
    draining: bool
    lasting: int  # how many connections are endless streams, or readers who wait


class Connection:
    """One peer."""

    def __init__(
        self, host: Host, stream: trio.SocketStream, caller: Caller, leave: Callable[[Connection], None]
    ) -> None:
        """``leave``: called when it holds nobody's place any more, perhaps twice."""
        self._host = host
        self._leave = leave
        self._peer = Peer(stream, host.limits)
        self._http = self._peer.http
        self._caller = caller
        self._endless: trio.CancelScope | None = None  # set while an endless stream is told

    async def run(self) -> None:
        """Until either side has had enough."""
        try:
            bug = await contain(self._serve)
            if isinstance(bug, Bug):
                tell_fault(f"api-{self._host.door.name}", bug.fault)
        finally:
            self._leave(self)
            await self._peer.close()

    async def _serve(self) -> None:
        first = True
        try:
            while await self._one(first=first):
                first = False
        except (Gone, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # nobody is left to be told

    def drain(self) -> None:
        """The server stops: do not wait for more, end what has no end of its own."""
        self.hang_up_if_idle()
        if self._endless is not None:
            self._endless.cancel()

    def hang_up_if_idle(self) -> bool:
        """Close between two requests; False when one is under way."""
        return self._peer.hang_up_if_idle()

    async def _one(self, *, first: bool) -> bool:
        """One request and its answer; False when the connection is over."""
        if self._host.draining:
            return False
        method, pattern = "other", "none"
        try:
            head = await self._peer.head(first=first)
            if head is None:
                return False
            said = head.method.decode("ascii")
            method = said if said in METHODS else "other"
            found = self._host.router.find_untrusted(said, head.target)
            if isinstance(found, WrongMethod):
                allow = (("Allow", ", ".join(found.allowed)),)
                refusal = Refusal(405, f"cannot {said} {found.path}: allowed is {', '.join(found.allowed)}")
                return await self._finish(method, pattern, error_answer(refusal, allow))
            pattern = found.route.pattern
            headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
            self._host.door.check(headers, found.route, self._caller)
            body = await self._peer.body(headers)
            request = Request(
                method=said,
                path=found.path,
                names=found.names,
                query=found.query,
                headers=headers,
                body=body,
                caller=self._caller,
            )
            reply = await self._ask(found.route, request)
        except ApplianceError as error:
            more = (("WWW-Authenticate", 'Basic realm="appliance"'),) if isinstance(error, NeedToken) else ()
            reply = error_answer(error, more)
        return await self._finish(method, pattern, reply)

    async def _ask(self, route: Route, request: Request) -> Reply:
        """What the handler says. Raises ApplianceError, Gone."""
        reply = await (self._wait(route, request) if route.waits else contain(lambda: route.handler(request)))
        if isinstance(reply, Bug):
            tell_fault(f"api-{self._host.door.name}", reply.fault)
            message = f"cannot {request.method} {request.path}: a bug of ours: {describe(reply.fault)}"
            raise ApplianceError(message, where=request.path)
        if isinstance(reply, Stream) and reply.endless and self._is_crowded():
            await reply.chunks.aclose()
            raise self._crowded()
        return reply

    async def _wait(self, route: Route, request: Request) -> Reply | Bug:
        """A handler that may take hours. Raises ApplianceError, Gone.

        When the peer hangs up, that of a reader ends. What changes something goes on, but holds no place any more:
        no number of people who gave up waiting can lock the others out.
        """
        if route.reads and self._is_crowded():
            raise self._crowded()
        outcome: Reply | Bug | ApplianceError | None = None
        self._host.lasting += route.reads
        try:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    await self._peer.until_hung_up()
                    if route.reads:
                        nursery.cancel_scope.cancel()
                    self._leave(self)

                nursery.start_soon(watch)
                try:
                    outcome = await contain(lambda: route.handler(request))
                except ApplianceError as error:
                    outcome = error  # raised outside of the nursery, so that it stays a plain one
                nursery.cancel_scope.cancel()
        finally:
            self._host.lasting -= route.reads
        if outcome is None:
            raise Gone
        if isinstance(outcome, ApplianceError):
            raise outcome
        return outcome

    def _is_crowded(self) -> bool:
        return self._host.lasting >= self._host.limits.lasting_max

    def _crowded(self) -> UnavailableError:
        return UnavailableError(f"cannot serve: {self._host.lasting} streams and waiting readers are here already")

    async def _finish(self, method: str, pattern: str, reply: Reply) -> bool:
        """Answer, and say whether the connection goes on."""
        self._host.counted(method, pattern, reply.status if isinstance(reply, Answer) else 200)
        if self._http.our_state not in (h11.SEND_RESPONSE, h11.IDLE):
            raise Gone  # h11 allows no answer any more
        if isinstance(reply, Answer):
            await self._answer(reply, head_only=method == "HEAD")
        else:
            await self._tell(reply, head_only=method == "HEAD")
        if set(self._http.states.values()) == {h11.DONE}:
            self._http.start_next_cycle()
            return True
        await self._peer.linger()
        return False

    def _response(self, status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> h11.Response:
        named = {name.lower() for name, _ in headers}
        fixed = [pair for pair in (*SECURITY, NO_CONTENT_POLICY) if pair[0].lower() not in named]
        date = ("Date", clock.http_date(clock.wall_seconds()))  # RFC 9110, 6.6.1: whoever has a clock must
        lines = [date, ("Content-Type", content_type), *headers, *fixed]
        unread = self._http.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR, h11.CLOSED)
        if unread or self._host.draining:
            lines.append(("Connection", "close"))
        reason = HTTPStatus(status).phrase
        return h11.Response(status_code=status, headers=lines, reason=reason.encode())

    async def _answer(self, answer: Answer, *, head_only: bool) -> None:
        length = (("Content-Length", str(len(answer.body))),)
        events: list[h11.Event] = [self._response(answer.status, answer.content_type, answer.headers + length)]
        if answer.body and not head_only:
            events.append(h11.Data(data=answer.body))
        await self._peer.send(*events, h11.EndOfMessage())

    async def _tell(self, stream: Stream, *, head_only: bool) -> None:
        """Chunk by chunk, each sent before the next is asked for."""
        response = self._response(200, stream.content_type, stream.headers)
        if head_only:
            await stream.chunks.aclose()
            await self._peer.send(response, h11.EndOfMessage())
            return
        gone = False
        whole = True
        self._host.lasting += stream.endless
        try:
            async with trio.open_nursery() as nursery:
                sender, receiver = trio.open_memory_channel[bytes](0)
                pumping = trio.CancelScope()
                if stream.endless:
                    self._endless = pumping
                    nursery.start_soon(self._watch_hang_up, nursery.cancel_scope)
                    if self._host.draining:
                        pumping.cancel()

                async def pump() -> None:
                    nonlocal whole
                    with sender, pumping:  # not "async with sender", whose checkpoint would swallow a bug
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
                    await self._peer.send(response)
                    await self._send_all_of(receiver, stream.heartbeat)
                    gone = False
                except (Gone, trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # judged below, outside the nursery, so that it stays a plain exception
                nursery.cancel_scope.cancel()
        finally:
            self._endless = None
            self._host.lasting -= stream.endless
        if gone or not whole:
            raise Gone
        await self._peer.send(h11.EndOfMessage())

    async def _send_all_of(self, chunks: trio.MemoryReceiveChannel[bytes], heartbeat: bytes) -> None:
        while True:
            wait = self._host.limits.heartbeat_seconds if heartbeat else float("inf")
            chunk = heartbeat
            with trio.move_on_after(wait):
                try:
                    chunk = await chunks.receive()
                except trio.EndOfChannel:
                    return
            if chunk:
                await self._peer.send(h11.Data(data=chunk))

    async def _watch_hang_up(self, telling: trio.CancelScope) -> None:
        await self._peer.until_hung_up()
        telling.cancel()


async def _last_words(stream: Stream, sender: trio.MemorySendChannel[bytes], error: ApplianceError) -> bool:
    """A source failed half way. Lines can say so; bytes can only be cut, visibly. True: said."""
    if not stream.content_type.startswith("application/x-ndjson"):
        return False
    await sender.send(dumps(error_body(error)) + b"\n")
    return True


def error_answer(error: ApplianceError, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """What every failure looks like."""
    return Answer(dumps(error_body(error)) + b"\n", status=error.http_status, headers=headers)
