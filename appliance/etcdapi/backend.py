"""How the verbs write: a request and a callback, so that a put costs no task; what waits is bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi.statuses import refused
from appliance.store import Delete, Put, PutResult, Store, Txn, TxnResult

Done = Callable[[TxnResult | ApplianceError], None]
PutDone = Callable[[PutResult | ApplianceError], None]
Attach = Callable[[int, bytes], None]
R = TypeVar("R")
WAITING_BYTES_MAX = 64 << 20  # of requests whose writes wait for the disk, of all clients together


class Backend:
    """Writes in the order of the calls."""

    def __init__(self, store: Store, flush: Callable[[], None]) -> None:
        """``flush`` sends all answers: called when the last of those who wait got one, which saves it a turn."""
        self._store = store
        self._flush = flush
        self._waiting = 0
        self._waiting_bytes = 0
        self._idle = trio.Event()

    def submit(self, request: Put | Delete | Txn, size: int, done: Done, attach: Attach | None = None) -> None:
        """``done`` is called once, when the write is durable or refused; a put or delete is answered as a transaction.

        ``attach``: see Store.submit. Raises RefusedError when too much waits already.
        """
        self._store.submit(request, self._admitted(size, done), attach)

    def submit_put(self, put: Put, size: int, done: PutDone) -> None:
        """The same for what is asked most often; ``done`` calls ``leave`` with the size when it is done."""
        self._enter(size)
        self._store.submit_put(put, done)

    def submit_facts(self, facts: Mapping[bytes, bytes], done: Callable[[ApplianceError | None], None]) -> None:
        """What is kept beside the keys; ``done`` is called once, when it is durable or refused."""
        self._store.submit_facts(facts, self._admitted(0, done))

    def _admitted(self, size: int, done: Callable[[R], None]) -> Callable[[R], None]:
        """``done``, with one more waiting until it is called. Raises RefusedError when too much waits already."""
        self._enter(size)

        def settled(result: R) -> None:
            done(result)
            self.leave(size)

        return settled

    def _enter(self, size: int) -> None:
        if size and self._waiting_bytes + size > WAITING_BYTES_MAX:
            raise refused("too many requests")
        self._waiting += 1
        self._waiting_bytes += size

    def leave(self, size: int) -> None:
        """One of that size was answered."""
        self._waiting -= 1
        self._waiting_bytes -= size
        if not self._waiting:
            self._idle.set()
            self._flush()

    async def wait_idle(self) -> None:
        """Until all that began is answered."""
        while self._waiting:
            self._idle = trio.Event()
            await self._idle.wait()
