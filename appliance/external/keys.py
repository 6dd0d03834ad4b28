"""What the appliance asks of a store, wherever that is; and moving keys from one to another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from appliance.errors import ConflictError
from appliance.store import (
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    DeleteResult,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Store,
    TxnResult,
    WatchBatch,
    prefix_end,
)  # fmt: skip

_PAGE = 100


class Watch(Protocol):
    """Iterate it for batches; ``next_revision`` is where it would resume."""

    @property
    def next_revision(self) -> int:
        """The first revision that was not delivered yet."""

    def __aiter__(self) -> Watch:
        """Itself."""

    async def __anext__(self) -> WatchBatch:
        """The next events. Raises CompactedError or UnavailableError."""


class Readable(Protocol):
    """Where keys are moved from."""

    async def read(self, request: Range) -> RangeResult:
        """What is durable."""


class Keys(Readable, Protocol):
    """As ``Store``, but for reading, which may take a while too. The errors are the store's."""

    async def put(self, request: Put) -> PutResult:
        """Durable when it returns."""

    async def delete(self, request: Delete) -> DeleteResult:
        """Durable when it returns."""

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation]
    ) -> TxnResult:
        """One of the two branches, at one revision."""

    async def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted before."""

    def watch(
        self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0, prev_kv: bool = False
    ) -> AbstractAsyncContextManager[Watch]:
        """Changes from ``start_revision`` on (0: from now on), in order, each once."""


class Embedded:
    """The store of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, request: Range) -> RangeResult:
        """See Keys."""
        return self._store.read(request)

    async def put(self, request: Put) -> PutResult:
        """See Keys."""
        return await self._store.put(
            request.key, request.value, lease=request.lease, prev_kv=request.prev_kv,
            ignore_value=request.ignore_value, ignore_lease=request.ignore_lease,
        )  # fmt: skip

    async def delete(self, request: Delete) -> DeleteResult:
        """See Keys."""
        return await self._store.delete(request.key, request.range_end, prev_kv=request.prev_kv)

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation]
    ) -> TxnResult:
        """See Keys."""
        return await self._store.txn(compares, success, failure)

    async def compact(self, revision: int) -> None:
        """See Keys."""
        await self._store.compact(revision)

    def watch(
        self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0, prev_kv: bool = False
    ) -> AbstractAsyncContextManager[Watch]:
        """See Keys."""
        return self._store.watch(key, range_end, start_revision=start_revision, prev_kv=prev_kv)


async def migrate(source: Readable, target: Keys, prefix: bytes, *, replace: bool = False) -> int:
    """Copy the keys below ``prefix`` as they are at one revision of ``source``; returns how many. May be run again.

    Raises ConflictError when ``target`` has another value for one of them, unless ``replace`` is set.
    """
    key, end = prefix or b"\0", prefix_end(prefix)
    revision = copied = 0
    while True:
        page = await source.read(Range(key, end, revision, _PAGE))
        revision = revision or page.revision
        for kv in page.kvs:
            if replace:
                await target.put(Put(kv.key, kv.value))
            else:
                await _put_new(target, kv.key, kv.value)
        copied += len(page.kvs)
        if not page.more:
            return copied
        key = page.kvs[-1].key + b"\0"


async def _put_new(target: Keys, key: bytes, value: bytes) -> None:
    absent = Compare(key, CompareTarget.CREATE, CompareResult.EQUAL, 0)
    result = await target.txn((absent,), (Put(key, value),), (Range(key),))
    if not result.succeeded:
        there = result.responses[0]
        assert isinstance(there, RangeResult)
        if there.kvs[0].value != value:
            raise ConflictError(f"cannot move {key!r}: it is there already, with another value")
