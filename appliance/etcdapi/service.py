"""The room's service: listeners, their one loop, and an orderly end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from appliance.etcdapi.door import Door, Machine
from appliance.etcdapi.http2 import Connection
from appliance.etcdapi.identity import Identity
from appliance.host import sockets
from appliance.store import Store

if TYPE_CHECKING:
    from appliance.etcdapi.verbs import Verbs

DRAIN_SECONDS = 5.0
BACKLOG = 4096


class EtcdApi:
    """etcd's v3 API over ``store``, on a unix socket that only its owner may open, and on TCP where ``addresses`` say.

    ``run`` is a service's main; it can be run again after it went down.
    """

    def __init__(
        self,
        store: Store,
        identity: Identity,
        *,
        unix_path: str | None = None,
        addresses: Sequence[sockets.Address] = (),
    ) -> None:
        self._store = store
        self._identity = identity
        self._unix_path = unix_path
        self._addresses = tuple(addresses)
        self.listening: tuple[str, ...] = ()  # where, right now; a port that was asked for as 0 is known here

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until ``stopping``; then calls that wait for the disk are answered, watches end, and so do we."""
        from appliance.host.epoll import Loop  # brings what an idle command line must not pay for

        listeners: list[sockets.Listener] = []
        try:
            if self._unix_path is not None:
                listeners.append(sockets.listen_unix(self._unix_path, mode=0o600, backlog=BACKLOG))
            for address in self._addresses:
                listeners.append(sockets.listen_tcp(address, backlog=BACKLOG))
            async with trio.open_nursery() as nursery:
                beginning = _Beginning(self._store, self._identity, nursery)
                loop = Loop(beginning.machine)
                beginning.flush = loop.flush_now
                for listener in listeners:
                    loop.listen(listener)
                await nursery.start(loop.run)
                self.listening = tuple(listener.name for listener in listeners)
                task_status.started()
                await stopping.wait()
                loop.stop_listening()
                await beginning.drain([m for m in loop.machines() if isinstance(m, Connection)])
                loop.flush()
                nursery.cancel_scope.cancel()
        finally:
            self.listening = ()
            for listener in listeners:
                listener.close()


class _Beginning:
    """Makes the machine of each new connection; the first one brings the verbs in."""

    def __init__(self, store: Store, identity: Identity, nursery: trio.Nursery) -> None:
        self._store = store
        self._identity = identity
        self._nursery = nursery
        self._known: Verbs | None = None
        self.flush: Callable[[], None] = lambda: None

    def machine(self, wake: Callable[[], None]) -> Machine:
        """For ``host.epoll``."""

        def http2() -> Machine:
            return Connection(self._verbs().methods, wake)

        def http1() -> Machine:
            from appliance.etcdapi.http1 import Http1

            return Http1(self._verbs(), wake)

        return Door(http2, http1)

    async def drain(self, connections: Sequence[Connection]) -> None:
        """No new calls; those that wait for the disk are answered."""
        for connection in connections:
            connection.go_away()
        if self._known is not None:
            with trio.move_on_after(DRAIN_SECONDS):
                await self._known.backend.wait_idle()

    def _verbs(self) -> Verbs:
        if self._known is None:
            from appliance.etcdapi.verbs import Verbs

            self._known = Verbs(self._store, self._identity, self._nursery, self.flush)
        return self._known
