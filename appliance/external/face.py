"""A real etcd as ``/v1/store`` and ``appliance store`` ask for it: their verbs work wherever the store is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from appliance.errors import ApplianceError
from appliance.external.client import ExternalStore, RemoteWatch
from appliance.external.wire import number
from appliance.store import (
    Compare,
    Delete,
    DeleteResult,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    StoreStatus,
    TxnResult,
)  # fmt: skip


class ExternalFace:
    """The same methods as ``Store``; ``read`` is awaited, and ``status`` is what the last ``look`` found."""

    def __init__(self, store: ExternalStore) -> None:
        self._store = store
        self._latest = StoreStatus("open", "", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    def status(self) -> StoreStatus:
        """See ``look``."""
        return self._latest

    async def look(self) -> StoreStatus:
        """How the member is that answers; what an etcd does not tell is 0. Never raises."""
        self._latest = await self._look()
        return self._latest

    async def _look(self) -> StoreStatus:
        try:
            answer = await self._store.status()
            keys = (await self.read(Range(b"\0", b"\0", count_only=True))).count
        except ApplianceError as exc:
            return StoreStatus("failed", exc.message, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        errors = "; ".join(map(str, answer.get("errors", ())))
        revision, size = number(answer.get("header", {}), "revision"), number(answer, "dbSize")
        state = "nospace" if "NOSPACE" in errors else "open"
        return StoreStatus(state, errors, revision, 0, keys, 0, 0, 0, size, 0, 0, 0)

    async def read(self, request: Range) -> RangeResult:
        """See Store."""
        return await self._store.read(request)

    async def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> PutResult:
        """See Store."""
        return await self._store.put(Put(key, value, lease, prev_kv))

    async def delete(self, key: bytes, range_end: bytes | None = None, *, prev_kv: bool = False) -> DeleteResult:
        """See Store."""
        return await self._store.delete(Delete(key, range_end, prev_kv))

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation]
    ) -> TxnResult:
        """See Store."""
        return await self._store.txn(compares, success, failure)

    async def compact(self, revision: int) -> None:
        """See Store."""
        await self._store.compact(revision)

    def watch(
        self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0, prev_kv: bool = False
    ) -> AbstractAsyncContextManager[RemoteWatch]:
        """See Store."""
        return self._store.watch(key, range_end, start_revision=start_revision, prev_kv=prev_kv)

    async def backup(self) -> AsyncIterator[bytes]:
        """All of the etcd, whoever's keys: what ``etcdctl snapshot save`` would write, for ``store restore``."""
        async for piece in self._store.snapshot():
            yield piece
