"""How the verbs write: a request and a callback, so that a put costs no task; what waits is bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi.statuses import refused
from appliance.store import Delete, Put, PutResult, Store, Txn, TxnResult

Done = Callable[[TxnResult | ApplianceError], None]
PutDone = Callable[[PutResult | ApplianceError], None]
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

    def submit(self, request: Put | Delete | Txn, size: int, done: Done) -> None:
        """``done`` is called once, when the write is durable or refused; a put or delete is answered as a transaction.

        Raises RefusedError when too much waits already.
        """
        if self._waiting_bytes + size > WAITING_BYTES_MAX:
            raise refused("too many requests")
        self._waiting += 1
        self._waiting_bytes += size

        def settled(result: TxnResult | ApplianceError) -> None:
            self._waiting -= 1
            self._waiting_bytes -= size
            done(result)
            if not self._waiting:
                self._idle.set()
                self._flush()

        self._store.submit(request, settled)

    def submit_put(self, put: Put, size: int, done: PutDone) -> None:
        """The same for what is asked most often."""
        if self._waiting_bytes + size > WAITING_BYTES_MAX:
            raise refused("too many requests")
        self._waiting += 1
        self._waiting_bytes += size

        def settled(result: PutResult | ApplianceError) -> None:
            self._waiting -= 1
            self._waiting_bytes -= size
            done(result)
            if not self._waiting:
                self._idle.set()
                self._flush()

        self._store.submit_put(put, settled)

    def submit_facts(self, facts: Mapping[bytes, bytes], done: Callable[[ApplianceError | None], None]) -> None:
        """What is kept beside the keys; ``done`` is called once, when it is durable or refused."""
        self._waiting += 1

        def settled(error: ApplianceError | None) -> None:
            self._waiting -= 1
            done(error)
            if not self._waiting:
                self._idle.set()
                self._flush()

        self._store.submit_facts(facts, settled)

    async def wait_idle(self) -> None:
        """Until all that began is answered."""
        while self._waiting:
            self._idle = trio.Event()
            await self._idle.wait()
