"""HTTP/1.1 on one listener: each connection is one task, everything has a limit.

A connection that is slow or silent costs its own slot and nothing else: heads, bodies and sends have deadlines, streams
go at the reader's pace with nothing queued, and when all slots are taken the longest idle one makes room.
Stop: no new connections, idle ones close, endless streams end politely, the others get the drain time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import trio

from appliance.api.connection import Connection, Door
from appliance.api.limits import Limits
from appliance.api.router import Caller, Router
from appliance.api.wire import dumps, error_body
from appliance.errors import UnavailableError
from appliance.host.sockets import Listener

Admit = Callable[[trio.SocketStream], Caller]
Counted = Callable[[str, str, int], None]  # method, pattern, status


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
        self.lasting = 0
        self.connections: dict[Connection, None] = {}  # oldest first
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
            connection = Connection(self, stream, caller, self._forget)
            self.connections[connection] = None
            serving.start_soon(connection.run)

    def _forget(self, connection: Connection) -> None:
        self.connections.pop(connection, None)

    def _make_room(self) -> bool:
        return any(connection.hang_up_if_idle() for connection in self.connections)  # the oldest one


async def _turn_away(stream: trio.SocketStream) -> None:
    body = dumps(error_body(UnavailableError("cannot serve: all connections are taken")))
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with trio.move_on_after(1), contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(head.encode() + b"Connection: close\r\n\r\n" + body)
    await trio.aclose_forcefully(stream)
