"""The store as its callers know it; everything below it is in this room's other modules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio

from appliance.errors import ApplianceError, InputError, UnavailableError
from appliance.host import entropy
from appliance.host.disk import Disk, DiskFile
from appliance.host.worker import Worker
from appliance.store import rules
from appliance.store.alone import Alone
from appliance.store.backing_up import backup_chunks
from appliance.store.committing import Committer, InThread, Writer
from appliance.store.exporting import Export
from appliance.store.faults import CompactedError, EmptyKeyError, FutureRevisionError, NoSpaceError
from appliance.store.frames import COMPACT, FACT
from appliance.store.hashing import hash_slices
from appliance.store.log import Batch
from appliance.store.opening import Opened, open_tree
from appliance.store.requests import LIMITS, Compare, Delete, Limits, Operation, Put, Range, SortOrder, SortTarget, Txn
from appliance.store.results import DeleteResult, PutResult, RangeResult, StoreStatus, TxnResult
from appliance.store.retention import EVERYTHING, Historian, Retention
from appliance.store.surroundings import Publish, Sizes
from appliance.store.transaction import Attach, Make, read_plain, read_range, run_put, run_txn
from appliance.store.tree import Tree
from appliance.store.upkeep import Upkeep
from appliance.store.watching import Watcher, WatchHub

Done = Callable[[TxnResult | ApplianceError], None]
PutDone = Callable[[PutResult | ApplianceError], None]
Settled = Callable[[ApplianceError | None], None]
_CACHE_BYTES = 4 << 20
_CACHE_BYTES_ALONE = 16 << 20
NO_SPACE = b"alarm/nospace"  # the fact that the quota was reached


@dataclass(eq=False)
class _Engine:
    """What exists between an open and a close."""

    tree: Tree
    committer: Committer
    upkeep: Upkeep
    historian: Historian


class Store:
    """An embedded key-value store with etcd's semantics on ``disk``. ``run`` opens and serves it."""

    def __init__(
        self, disk: Disk, *, publish: Publish | None = None, sizes: Sizes | None = None,
        retention: Retention = EVERYTHING, quota: int = 0, limits: Limits = LIMITS, in_thread: InThread | None = None,
        alone: bool = False,
    ) -> None:  # fmt: skip
        """``alone``: nothing else lives in this loop, so that it may stand still for a lone writer's sync."""
        self._disk = disk
        self._publish = publish
        self._sizes = sizes or Sizes()
        self._retention = retention
        self.limits = limits
        self.quota = quota  # bytes of log from which on an alarm refuses what needs room; 0: none; may be changed
        self._in_thread = in_thread or trio.to_thread.run_sync
        self._commit_by = in_thread
        self._alone = alone
        self._hub = WatchHub()
        self._engine: _Engine | None = None
        self._accepting = False
        self._why_closed = "it is not open"
        self._failed = ""
        self._notes: tuple[str, ...] = ()

    # life

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open, serve until ``stopping``, close.

        After a disk error this ends with UnavailableError and may be run again; in between, what was durable is read.
        """
        opened = await self._in_thread(self._open)
        worker = Worker("store")
        alone = self._alone or self._commit_by is not None
        engine = self._start(opened, Alone(self._commit_by or worker.call) if alone else worker)
        tree, committer = engine.tree, engine.committer
        failure: ApplianceError | None = None

        async def commit() -> None:
            nonlocal failure
            try:
                await committer.run()
            except UnavailableError as exc:
                failure = exc
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(commit)
                nursery.start_soon(engine.upkeep.run)
                self._accepting = True
                task_status.started()
                await stopping.wait()
                self._accepting, self._why_closed = False, "it is stopping"
                await self._last_checkpoint(engine)
                committer.close()
        finally:
            worker.close()
            self._accepting = False
            self._failed = failure.message if failure else ""
            self._why_closed = self._failed or "it is closed"
            committer.abandon(f"cannot write to the store: {self._why_closed}")
            self._hub.close(f"the store is closed: {self._why_closed}")
            if failure is None or not committer.index_is_sound:
                self._engine = None
                tree.log.close()
        if failure is not None:
            self._tell("failed", failure.message)
            raise failure

    def _open(self) -> Opened:
        sizes = self._sizes
        self._disk.prepare()  # a new store on a disk that cannot be written says so now, not at the first put
        part = max(self.quota >> 4, 1 << 20) if self.quota else sizes.segment_bytes  # whole segments are given back
        segment_bytes = min(sizes.segment_bytes, part)
        return open_tree(self._disk, segment_bytes=segment_bytes, reserve_bytes=sizes.reserve_bytes)

    def _start(self, opened: Opened, writer: Writer) -> _Engine:
        if self._engine is not None:
            self._engine.tree.log.close()
        tree = opened.tree
        tree.cache.bytes_max = _CACHE_BYTES_ALONE if self._alone else _CACHE_BYTES
        committer = Committer(tree, self._hub, writer, self._committed)
        upkeep = Upkeep(
            self._disk, tree, committer, self._in_thread, checkpoint_records=self._sizes.checkpoint_records,
            replayed=opened.replayed, checkpoint_revision=opened.checkpoint_revision, tell=self._tell,
        )  # fmt: skip
        self._engine = _Engine(tree, committer, upkeep, Historian(self._retention))
        self._hub.tree = tree
        self._failed = ""
        self._notes = opened.notes
        for note in opened.notes:
            self._tell("repaired", note)
        self._tell("opened", f"revision {tree.revision}, {opened.replayed} records replayed")
        return self._engine

    async def _last_checkpoint(self, engine: _Engine) -> None:
        if engine.upkeep.checkpoint_revision == engine.tree.revision:
            return
        try:
            await engine.upkeep.checkpoint()
        except ApplianceError as exc:  # the log has everything: the next start replays it
            self._tell("upkeep-failed", exc.message)

    def _committed(self, batch: Batch) -> None:
        engine = self._engine
        assert engine is not None
        engine.upkeep.committed(batch)
        if not self._accepting:
            return
        oldest = engine.historian.due(engine.tree, batch, trio.current_time())
        if oldest:
            engine.tree.write(COMPACT, b"", b"", oldest)
            engine.upkeep.want_compaction()
            engine.committer.kick()

    def retain(self, retention: Retention) -> None:
        """How much history is kept from here on; by default all, until ``compact``."""
        self._retention = retention
        if self._engine is not None:
            self._engine.historian.retention = retention

    def _tell(self, what: str, message: str) -> None:
        if self._publish is not None:
            self._publish("store", what, message=message)

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
        return read_range(tree, request, tree.durable_revision)

    def may_hold(self, key: bytes, lease: int) -> bool:
        """Whether the key has the lease now, or will when all that is being written is: False is certain."""
        return self._reading().may_hold(key, lease)

    def read_plain(self, request: Range, make: Make) -> tuple[list[bytes], bool, int, int] | None:
        """(what ``make`` made of each key, more, count, revision). None: use ``read`` for that request.

        ``make`` must be the same function always.
        """
        tree = self._reading()
        now = tree.durable_revision
        found = read_plain(tree, request, now, make)
        return (*found, now) if found is not None else None

    def _reading(self) -> Tree:
        if self._engine is None:
            raise UnavailableError(f"cannot read the store: {self._why_closed}")
        return self._engine.tree

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

    def facts(self, prefix: bytes) -> dict[bytes, bytes]:
        """What is kept beside the keys under names that begin so; what is still being written is there already."""
        return {name: value for name, value in self._reading().facts.items() if name.startswith(prefix)}

    def submit_facts(self, facts: Mapping[bytes, bytes], done: Settled, *, always: bool = False) -> None:
        """Keep them, an empty one no longer: all or none, without a revision. ``done`` is called once, when durable.

        They are in memory and in every checkpoint, so they should be small and few. ``always``: over the quota, too.
        """
        try:
            engine = self._engine_for_writing()
            if not always:
                self._check_room(engine, sum(len(name) + len(value) for name, value in facts.items() if value))
        except ApplianceError as exc:
            done(exc)
            return
        self._keep(engine, facts, done)

    @property
    def alarmed(self) -> bool:
        """Whether the quota was reached, and nobody has disarmed the alarm since."""
        return bool(self.quota) and NO_SPACE in self._reading().facts

    def set_alarm(self, on: bool, done: Settled) -> None:
        """Raise or disarm it, for good. Disarmed with too much still there, the next write raises it again."""
        try:
            engine = self._engine_for_writing()
        except ApplianceError as exc:
            done(exc)
            return
        self._keep(engine, {NO_SPACE: b"1" if on else b""}, done)

    def _check_room(self, engine: _Engine, wanted: int) -> None:
        """Raises NoSpaceError."""
        if not self.quota or not wanted:
            return
        tree = engine.tree
        if NO_SPACE not in tree.facts:
            staged = sum(batch.size for batch in (tree.in_flight, tree.log.open_batch) if batch)
            if tree.log.size_bytes() + staged + wanted <= self.quota:
                return
            self._keep(engine, {NO_SPACE: b"1"}, lambda error: None)
            self._tell("no-space", self._over_quota())
        raise NoSpaceError(f"cannot write to the store: {self._over_quota()}")

    def _over_quota(self) -> str:
        return f"its quota of {self.quota} bytes was reached; delete keys, compact, defragment and disarm the alarm"

    def _keep(self, engine: _Engine, facts: Mapping[bytes, bytes], done: Settled) -> None:
        for name, value in facts.items():
            engine.tree.write(FACT, name, value, 0)
        batch = engine.committer.newest
        if batch is None:
            done(None)
            return
        batch.callbacks.append((done, None))
        engine.committer.kick()

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
                self._check_room(engine, rules.cost(put))
            result = run_put(engine.tree, put)
        except ApplianceError as exc:
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
        """Give back all the room there is to give, but for that of kept history and the newest segment."""
        engine = await self._writing()
        await engine.upkeep.want_compaction(thorough=True).wait()

    async def _writing(self) -> _Engine:
        engine = self._engine_for_writing()
        await engine.committer.wait_room()
        return self._engine_for_writing()

    def _engine_for_writing(self) -> _Engine:
        engine = self._engine
        if engine is None or not self._accepting or engine.committer.problem:
            why = self._failed or (engine.committer.problem if engine else "") or self._why_closed
            raise UnavailableError(f"cannot write to the store: {why}")
        return engine

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

    # looking after it

    def status(self) -> StoreStatus:
        """How it is; never raises."""
        engine = self._engine
        if engine is None:
            problem = "" if self._why_closed == "it is not open" else self._why_closed
            return StoreStatus("closed", problem, 0, 0, 0, len(self._hub), 0, 0, 0, 0, 0, 0)
        tree, committer, log = engine.tree, engine.committer, engine.tree.log
        problem = self._failed or committer.problem or committer.full or engine.upkeep.problem
        state = "failed" if self._failed or committer.problem else "full" if committer.full else "open"
        if state == "open" and self.alarmed:
            state, problem = "nospace", self._over_quota()
        return StoreStatus(
            state, problem or "; ".join(self._notes), tree.durable_revision, tree.compacted_revision,
            tree.index.size - tree.index.dead, len(self._hub), committer.waiting(), len(log.segments),
            log.size_bytes(), committer.batches, committer.writes, engine.upkeep.checkpoint_revision,
        )  # fmt: skip

    async def backup(self) -> AsyncIterator[bytes]:
        """All that is kept at the newest durable revision, in chunks for ``restore``. Writers go on meanwhile."""
        tree = self._reading()
        assert self._engine is not None
        upkeep = self._engine.upkeep
        await upkeep.hold_segments()
        try:
            for chunk in backup_chunks(tree):
                await trio.lowlevel.checkpoint()
                if chunk:
                    yield chunk
        finally:
            upkeep.let_go_of_segments()

    async def hash(self, revision: int) -> int:
        """One number for all that was there at a revision. Nobody waits for it. Raises CompactedError."""
        slices = hash_slices(self._reading(), revision)
        while True:
            await trio.lowlevel.checkpoint()
            try:
                next(slices)
            except StopIteration as found:
                return int(found.value)

    @asynccontextmanager
    async def export(self) -> AsyncIterator[Export]:
        """All that is kept at the newest durable revision, as plain changes. Writers go on meanwhile."""
        tree = self._reading()
        assert self._engine is not None
        upkeep = self._engine.upkeep
        await upkeep.hold_segments()
        try:
            yield Export(tree)
        finally:
            upkeep.let_go_of_segments()

    @contextmanager
    def scratch(self) -> Iterator[DiskFile]:
        """An empty file beside the log, gone in the end (or at the next start)."""
        name = f"scratch-{entropy.token(8)}.new"
        file = self._disk.create(name)
        try:
            yield file
        finally:
            file.close()
            self._disk.remove(name)
