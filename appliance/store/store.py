"""THIN SLICE (in memory) with the final face; the log engine replaces it under the same names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, assert_never

import trio

from appliance.errors import UnavailableError
from appliance.store.faults import CompactedError, EmptyKeyError, FutureRevisionError, KeyNotFoundError
from appliance.store.requests import Compare, Delete, Operation, Put, Range, SortOrder, SortTarget, Txn
from appliance.store.results import (
    DeleteResult,
    Event,
    EventKind,
    KeyValue,
    PutResult,
    RangeResult,
    StoreStatus,
    TxnResult,
    WatchBatch,
)  # fmt: skip
from appliance.store.rules import check_put, check_txn, holds, in_range, sort_and_filter


class Store:
    """The embedded key-value store. ``disk`` is a ``appliance.host.disk.Disk``."""

    def __init__(self, disk: Any, *, publish: Callable[..., None] | None = None) -> None:
        self._disk = disk
        self._publish = publish
        self._kvs: dict[bytes, KeyValue] = {}
        self._history: list[Event] = []
        self._open = False
        self.revision = 1
        self.compacted_revision = 0
        self._changed = trio.Event()

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until ``stopping`` is set."""
        self._open = True
        task_status.started()
        await stopping.wait()
        self._open = False

    def range(
        self, key: bytes, range_end: bytes | None = None, *, revision: int = 0, limit: int = 0,
        keys_only: bool = False, count_only: bool = False, sort_target: SortTarget = SortTarget.KEY,
        sort_order: SortOrder = SortOrder.NONE, min_mod_revision: int = 0, max_mod_revision: int = 0,
        min_create_revision: int = 0, max_create_revision: int = 0,
    ) -> RangeResult:  # fmt: skip
        """What is durable, now or at a kept revision."""
        return self._range(
            Range(
                key, range_end, revision, limit, keys_only, count_only, sort_target, sort_order,
                min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
            )
        )  # fmt: skip

    def read(self, request: Range) -> RangeResult:
        """As ``range``, for a request that exists already."""
        return self._range(request)

    async def put(
        self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False,
        ignore_value: bool = False, ignore_lease: bool = False,
    ) -> PutResult:  # fmt: skip
        """Returns when the write is durable."""
        result = await self.txn((), (Put(key, value, lease, prev_kv, ignore_value, ignore_lease),), ())
        assert isinstance(result.responses[0], PutResult)
        return result.responses[0]

    async def delete(self, key: bytes, range_end: bytes | None = None, *, prev_kv: bool = False) -> DeleteResult:
        """Returns when the delete is durable."""
        result = await self.txn((), (Delete(key, range_end, prev_kv),), ())
        assert isinstance(result.responses[0], DeleteResult)
        return result.responses[0]

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        """One of the two branches, at one revision. Returns when it is durable."""
        txn = Txn(tuple(compares), tuple(success), tuple(failure))
        check_txn(txn)
        await trio.lowlevel.checkpoint()
        if not self._open:
            raise UnavailableError("cannot write to the store: it is not open")
        before = len(self._history)
        result = self._apply(txn, self.revision + 1)
        if len(self._history) > before:
            self.revision += 1
            self._changed.set()
            self._changed = trio.Event()
        return result

    def _apply(self, txn: Txn, revision: int) -> TxnResult:
        succeeded = all(
            holds(c, [kv for key, kv in self._kvs.items() if in_range(key, c.key, c.range_end)]) for c in txn.compares
        )
        responses: list[Any] = []
        for operation in txn.success if succeeded else txn.failure:
            match operation:
                case Range():
                    responses.append(self._range(operation))
                case Put():
                    check_put(operation)
                    old = self._kvs.get(operation.key)
                    if old is None and (operation.ignore_value or operation.ignore_lease):
                        raise KeyNotFoundError(f"cannot put {operation.key!r}: key not found")
                    kv = KeyValue(
                        operation.key,
                        old.value if old and operation.ignore_value else operation.value,
                        old.create_revision if old else revision, revision, old.version + 1 if old else 1,
                        old.lease if old and operation.ignore_lease else operation.lease,
                    )  # fmt: skip
                    self._kvs[kv.key] = kv
                    self._history.append(Event(EventKind.PUT, kv, old))
                    responses.append(PutResult(revision, old if operation.prev_kv else None))
                case Delete():
                    keys = sorted(k for k in self._kvs if in_range(k, operation.key, operation.range_end))
                    prev = tuple(self._kvs.pop(k) for k in keys)
                    for kv in prev:
                        gone = KeyValue(kv.key, b"", 0, revision, 0)
                        self._history.append(Event(EventKind.DELETE, gone, kv))
                    at = revision if prev else self.revision
                    responses.append(DeleteResult(at, len(prev), prev if operation.prev_kv else ()))
                case Txn():
                    responses.append(self._apply(operation, revision))
                case _:
                    assert_never(operation)
        return TxnResult(revision if self._history and self._history[-1].kv.mod_revision == revision else self.revision,
                         succeeded, tuple(responses))

    def _range(self, r: Range) -> RangeResult:
        if not r.key:
            raise EmptyKeyError("cannot read range: the key is empty")
        if r.revision > self.revision:
            raise FutureRevisionError(f"cannot read revision {r.revision}: the newest is {self.revision}")
        if 0 < r.revision < self.compacted_revision:
            raise CompactedError(f"cannot read revision {r.revision}: it is compacted", self.compacted_revision)
        kvs = self._kvs
        if r.revision:
            kvs = {}
            for event in self._history:
                if event.kv.mod_revision <= r.revision:
                    kvs.pop(event.kv.key, None)
                    if event.kind is EventKind.PUT:
                        kvs[event.kv.key] = event.kv
        found = [kvs[k] for k in sorted(kvs) if in_range(k, r.key, r.range_end)]
        wanted = sort_and_filter(r, found)
        more = bool(r.limit) and len(wanted) > r.limit
        wanted = wanted[: r.limit] if r.limit else wanted
        if r.keys_only:
            wanted = [KeyValue(k.key, b"", k.create_revision, k.mod_revision, k.version, k.lease) for k in wanted]
        return RangeResult(() if r.count_only else tuple(wanted), more and not r.count_only, len(found), self.revision)

    @asynccontextmanager
    async def watch(
        self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0, prev_kv: bool = False
    ) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        """Changes from ``start_revision`` on (0: from now on), in order, each once."""
        await trio.lowlevel.checkpoint()
        yield self._batches(key, range_end, start_revision or self.revision + 1)

    async def _batches(self, key: bytes, range_end: bytes | None, start: int) -> AsyncIterator[WatchBatch]:
        while True:
            events = tuple(
                e for e in self._history if e.kv.mod_revision >= start and in_range(e.kv.key, key, range_end)
            )
            changed = self._changed
            if events:
                start = events[-1].kv.mod_revision + 1
                yield WatchBatch(start - 1, events)
            else:
                await changed.wait()

    async def compact(self, revision: int, *, physical: bool = False) -> None:
        """Forget what was overwritten or deleted before ``revision``; ``physical``: wait for the space too."""
        await trio.lowlevel.checkpoint()
        self.compacted_revision = revision

    def status(self) -> StoreStatus:
        """How it is."""
        return StoreStatus(
            "open" if self._open else "closed", "", self.revision, self.compacted_revision, len(self._kvs),
            0, 0, 0, 0, 0, len(self._history), 0,
        )  # fmt: skip

    async def backup(self) -> AsyncIterator[bytes]:
        """All that is kept at the newest revision, as a stream that ``restore`` takes."""
        await trio.lowlevel.checkpoint()
        yield b""
