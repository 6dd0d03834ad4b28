"""The room's service: listeners, their one loop, and an orderly end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from appliance.errors import NotFoundError
from appliance.etcdapi.auth import Auth, StoreKeeper
from appliance.etcdapi.http2 import Connection
from appliance.etcdapi.identity import Identity
from appliance.etcdapi.listening import Doors, Listen
from appliance.etcdapi.options import DEFAULTS, ApiOptions
from appliance.host import sockets
from appliance.migration import LEASE_FACTS
from appliance.store import Operation, Put, Store

if TYPE_CHECKING:
    from appliance.etcdapi.verbs import Verbs

DRAIN_SECONDS = 5.0


class EtcdApi:
    """etcd's v3 API over ``store``, on a unix socket that only its owner may open, and on TCP where ``listen`` says.

    Clients may not write below ``reserved``. ``run`` is a service's main; it can be run again after it went down.
    """

    def __init__(
        self,
        store: Store,
        identity: Identity,
        *,
        unix_path: str | None = None,
        listen: Sequence[Listen] = (),
        reserved: bytes = b"",
        options: ApiOptions = DEFAULTS,
    ) -> None:
        self._store = store
        self._identity = identity
        self._unix_path = unix_path
        self.listen = tuple(listen)  # may be changed between two runs
        self._reserved = reserved
        self._options = options
        self._made: Verbs | None = None
        self.listening: tuple[str, ...] = ()  # where, right now; a port that was asked for as 0 is known here

    async def run(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
        listeners: Sequence[sockets.Listener] = (),
    ) -> None:
        """Serve until ``stopping``; then calls that wait for the disk are answered, watches end, and so do we.

        ``listeners``: those that are open already, the unix socket's first. They are closed at the end, too.
        """
        from appliance.host.epoll import Loop  # brings what an idle command line must not pay for

        opened = list(listeners)
        try:
            async with trio.open_nursery() as nursery:
                loop = Loop(before=self._store.hold_commits, after=self._store.let_commits_go)
                auth = Auth(StoreKeeper(self._store), self._options)
                verbs = _Lazy(lambda: self._make_verbs(nursery, loop.flush_now, auth))
                if self._store.facts(LEASE_FACTS):  # their time runs out whether anybody connects or not
                    await verbs.get().lease.load()
                given = iter(listeners)
                for listen in (*([] if self._unix_path is None else [None]), *self.listen):
                    doors = Doors(listen, verbs.get, self._options)
                    listener = next(given, None)
                    if listener is None:
                        listener = self._open(listen)
                        opened.append(listener)
                    loop.listen(listener, doors.begin)
                await nursery.start(loop.run)
                self.listening = tuple(listener.name for listener in opened)
                task_status.started()
                await stopping.wait()
                loop.stop_listening()
                for machine in loop.machines():
                    inner = getattr(machine, "inner", machine)
                    if isinstance(inner, Connection):
                        inner.go_away()
                if verbs.made is not None:
                    with trio.move_on_after(DRAIN_SECONDS):
                        await verbs.made.backend.wait_idle()
                loop.flush()
                nursery.cancel_scope.cancel()
        finally:
            self.listening = ()
            self._made = None
            for listener in opened:
                listener.close()

    def _open(self, listen: Listen | None) -> sockets.Listener:
        if listen is not None:
            return sockets.listen_tcp(listen.address, backlog=sockets.BACKLOG_OF_ETCD)
        assert self._unix_path is not None
        return sockets.listen_unix(self._unix_path, mode=0o600, backlog=sockets.BACKLOG_OF_ETCD)

    def attach(self, operations: Sequence[Operation]) -> None:
        """Puts from elsewhere that name a lease belong to it from now on. Raises NotFoundError: there is no such."""
        for put in operations:
            if isinstance(put, Put) and put.lease:
                leases = self._made.leases if self._made is not None else None
                if leases is None or not leases.has(put.lease):
                    raise NotFoundError(f"cannot put {put.key!r}: there is no lease {put.lease}")
                leases.attach(put.lease, put.key)

    def _make_verbs(self, nursery: trio.Nursery, flush: Callable[[], None], auth: Auth) -> Verbs:
        from appliance.etcdapi.verbs import Verbs

        self._made = Verbs(self._store, self._identity, nursery, flush, auth, self._options, reserved=self._reserved)
        return self._made


class _Lazy:
    """Made at the first connection: protobuf costs memory that an idle node keeps."""

    def __init__(self, make: Callable[[], Verbs]) -> None:
        self._make = make
        self.made: Verbs | None = None

    def get(self) -> Verbs:
        if self.made is None:
            self.made = self._make()
        return self.made
