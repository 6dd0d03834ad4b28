"""The store as its callers know it; everything below it is in this room's other modules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from appliance.errors import ApplianceError, CorruptError, InputError
from appliance.store import rules
from appliance.store.faults import CompactedError, EmptyKeyError, FutureRevisionError
from appliance.store.frames import COMPACT, RECORD_HEADER_SIZE
from appliance.store.keeping import Keeping
from appliance.store.requests import Compare, Delete, Operation, Put, Range, SortOrder, SortTarget, Txn
from appliance.store.results import DeleteResult, PutResult, RangeResult, TxnResult
from appliance.store.transaction import Attach, Make, read_plain, read_range, run_put, run_txn
from appliance.store.watching import Watcher

Done = Callable[[TxnResult | ApplianceError], None]
PutDone = Callable[[PutResult | ApplianceError], None]


class Store(Keeping):
    """An embedded key-value store with etcd's semantics on ``disk``. ``run`` opens and serves it."""

    # reading

    @property
    def revision(self) -> int:
        """The newest durable revision."""
        return self._reading().durable_revision

    @property
    def compacted_revision(self) -> int:
        """The oldest revision that can be read; 0 while all can."""
        return self._reading().compacted_revision

    def range(
        self, key: bytes, range_end: bytes | None = None, *, revision: int = 0, limit: int = 0,
        keys_only: bool = False, count_only: bool = False, sort_target: SortTarget = SortTarget.KEY,
        sort_order: SortOrder = SortOrder.NONE, min_mod_revision: int = 0, max_mod_revision: int = 0,
        min_create_revision: int = 0, max_create_revision: int = 0,
    ) -> RangeResult:  # fmt: skip
        """What is durable, now or at a kept revision."""
        return self.read(
            Range(
                key, range_end, revision, limit, keys_only, count_only, sort_target, sort_order,
                min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
            )
        )  # fmt: skip

    def read(self, request: Range) -> RangeResult:
        """As ``range``, for a request that exists already."""
        tree = self._reading()
        try:
            return read_range(tree, request, tree.durable_revision)
        except CorruptError as exc:
            self.met_damage(exc)
            raise

    def may_hold(self, key: bytes, lease: int) -> bool:
        """Whether the key has the lease now, or will when all that is being written is: False is certain."""
        return self._reading().may_hold(key, lease)

    def read_plain(self, request: Range, make: Make) -> tuple[list[bytes], bool, int, int] | None:
        """(what ``make`` made of each key, more, count, revision). None: use ``read`` for that request.

        ``make`` must be the same function always.
        """
        tree = self._reading()
        now = tree.durable_revision
        try:
            found = read_plain(tree, request, now, make)
        except CorruptError as exc:
            self.met_damage(exc)
            raise
        return (*found, now) if found is not None else None

    # writing

    async def put(
        self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False,
        ignore_value: bool = False, ignore_lease: bool = False,
    ) -> PutResult:  # fmt: skip
        """Returns when the write is durable. Cancelled while it waits, the write may be done or not."""
        request = Put(key, value, lease, prev_kv, ignore_value, ignore_lease)
        rules.check_put(request, self.limits)
        engine = await self._writing()
        self._check_room(engine, rules.cost(request))
        result = run_put(engine.tree, request)
        await engine.committer.settled()
        return result

    async def delete(self, key: bytes, range_end: bytes | None = None, *, prev_kv: bool = False) -> DeleteResult:
        """Returns when the delete is durable."""
        if not key:
            raise EmptyKeyError("cannot delete: the key is empty")
        engine = await self._writing()
        result = run_txn(engine.tree, Txn(success=(Delete(key, range_end, prev_kv),))).responses[0]
        await engine.committer.settled()
        assert isinstance(result, DeleteResult)
        return result

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        """One of the two branches, at one revision. Returns when it, and what it saw, is durable."""
        txn = Txn(tuple(compares), tuple(success), tuple(failure))
        rules.check_txn(txn, self.limits)
        engine = await self._writing()
        self._check_room(engine, rules.cost(txn))
        result = run_txn(engine.tree, txn)
        await engine.committer.settled()
        return result

    def check(self, request: Range | Put | Delete | Txn) -> None:
        """What needs no look at the keys: raises what a request is refused for in any case."""
        rules.check_txn(request if isinstance(request, Txn) else Txn(success=(request,)), self.limits)

    def submit(self, request: Put | Delete | Txn, done: Done, attach: Attach | None = None) -> None:
        """The same without a task: ``done`` is called once, with the result or the error, of a Txn in any case.

        ``attach`` is asked about the lease of each put that will run; it may refuse all of it.
        """
        txn = request if isinstance(request, Txn) else Txn(success=(request,))
        try:
            rules.check_txn(txn, self.limits)
            engine = self._engine_for_writing()
            self._check_room(engine, rules.cost(txn))
            result = run_txn(engine.tree, txn, attach)
        except ApplianceError as exc:
            if isinstance(exc, CorruptError):
                self.met_damage(exc)
            done(exc)
            return
        batch = engine.committer.newest
        if batch is None:
            done(result)
            return
        batch.callbacks.append((done, result))
        engine.committer.kick()

    def submit_put(self, put: Put, done: PutDone) -> None:
        """``submit`` for what is asked most often."""
        try:
            rules.check_put(put, self.limits)
            engine = self._engine_for_writing()
            if self.quota:
                self._check_room(engine, RECORD_HEADER_SIZE + len(put.key) + len(put.value))
            result = run_put(engine.tree, put)
        except ApplianceError as exc:
            if isinstance(exc, CorruptError):
                self.met_damage(exc)
            done(exc)
            return
        batch = engine.tree.log.open_batch
        assert batch is not None
        batch.callbacks.append((done, result))
        engine.committer.kick()

    def hold_commits(self) -> None:
        """Whoever calls ``submit`` for many says so before, and ``let_commits_go`` after, in the same step."""
        if self._engine is not None:
            self._engine.committer.hold()

    def let_commits_go(self) -> None:
        """What was submitted since is written now."""
        if self._engine is not None:
            self._engine.committer.go()

    async def compact(self, revision: int, *, physical: bool = False) -> None:
        """Forget what was overwritten or deleted before ``revision``; ``physical``: wait for the space too."""
        engine = await self._writing()
        tree = engine.tree
        if revision > tree.durable_revision:
            raise FutureRevisionError(f"cannot compact revision {revision}: the newest is {tree.durable_revision}")
        if revision <= tree.compacted_revision:
            raise CompactedError(
                f"cannot compact revision {revision}: kept from revision {tree.compacted_revision} on",
                tree.compacted_revision,
            )
        tree.write(COMPACT, b"", b"", revision)
        await engine.committer.settled()
        done = engine.upkeep.want_compaction()
        if physical:
            await done.wait()

    async def defragment(self) -> None:
        """Give back all the room there is to give; with much kept history, all but its newest segments'."""
        engine = await self._writing()
        await engine.upkeep.want_compaction(thorough=True).wait()

    # following

    @asynccontextmanager
    async def watch(
        self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0, prev_kv: bool = False
    ) -> AsyncIterator[Watcher]:
        """Changes from ``start_revision`` on (0: from now on; it may lie ahead), in order, each once, when durable.

        An empty key is the smallest one. Raises CompactedError, here or later when the reader is too slow.
        """
        tree = self._reading()
        if start_revision < 0:
            raise InputError(f"cannot watch {key!r} from revision {start_revision}: it is negative")
        if 0 < start_revision < tree.compacted_revision:
            raise CompactedError(
                f"cannot watch {key!r} from revision {start_revision}: kept from revision {tree.compacted_revision} on",
                tree.compacted_revision,
            )
        watcher = Watcher(self._hub, key or b"\0", range_end, start_revision or tree.durable_revision + 1, prev_kv)
        watcher.synced = watcher.next_revision > tree.durable_revision
        self._hub.add(watcher)
        try:
            await trio.lowlevel.checkpoint()
            yield watcher
        finally:
            self._hub.remove(watcher)
