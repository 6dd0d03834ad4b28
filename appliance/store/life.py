"""The life of a store: opening, its tasks, its end, and what looks after it meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from appliance.errors import ApplianceError, CorruptError, UnavailableError
from appliance.host import entropy
from appliance.host.disk import Disk, DiskFile
from appliance.host.worker import Worker
from appliance.store.alone import Alone
from appliance.store.committing import Committer, InThread, Writer
from appliance.store.frames import COMPACT
from appliance.store.log import Batch
from appliance.store.opening import Opened, open_tree
from appliance.store.requests import LIMITS, Limits
from appliance.store.retention import EVERYTHING, Historian, Retention
from appliance.store.surroundings import Publish, Sizes
from appliance.store.tree import Tree
from appliance.store.upkeep import Upkeep
from appliance.store.watching import WatchHub

if TYPE_CHECKING:
    from appliance.store.exporting import Export

_CACHE_BYTES = 4 << 20
_CACHE_BYTES_ALONE = 16 << 20


@dataclass(eq=False)
class Engine:
    """What exists between an open and a close."""

    tree: Tree
    committer: Committer
    upkeep: Upkeep
    historian: Historian


class Life:
    """What a ``Store`` is beside its verbs. ``run`` opens and serves it."""

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
        self._engine: Engine | None = None
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

    def _start(self, opened: Opened, writer: Writer) -> Engine:
        if self._engine is not None:
            self._engine.tree.log.close()
        tree = opened.tree
        tree.cache.bytes_max = _CACHE_BYTES_ALONE if self._alone else _CACHE_BYTES
        committer = Committer(tree, self._hub, writer, self._committed)
        upkeep = Upkeep(
            self._disk, tree, committer, self._in_thread, checkpoint_records=self._sizes.checkpoint_records,
            replayed=opened.replayed, checkpoint_revision=opened.checkpoint_revision, tell=self._tell,
            damaged=self.met_damage,
        )  # fmt: skip
        self._engine = Engine(tree, committer, upkeep, Historian(self._retention))
        self._hub.tree = tree
        self._failed = ""
        self._notes = opened.notes
        for note in opened.notes:
            self._tell("repaired", note)
        self._tell("opened", f"revision {tree.revision}, {opened.replayed} records replayed")
        return self._engine

    async def _last_checkpoint(self, engine: Engine) -> None:
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

    def met_damage(self, exc: CorruptError) -> None:
        """Somebody was not given what was written."""
        self._tell("corrupt", exc.message)

    def _tell(self, what: str, message: str) -> None:
        if self._publish is not None:
            self._publish("store", what, message=message)

    # for the verbs

    def _reading(self) -> Tree:
        if self._engine is None:
            raise UnavailableError(f"cannot read the store: {self._why_closed}")
        return self._engine.tree

    async def _writing(self) -> Engine:
        engine = self._engine_for_writing()
        await engine.committer.wait_room()
        return self._engine_for_writing()

    def _engine_for_writing(self) -> Engine:
        engine = self._engine
        if engine is None or not self._accepting or engine.committer.problem:
            why = self._failed or (engine.committer.problem if engine else "") or self._why_closed
            raise UnavailableError(f"cannot write to the store: {why}")
        return engine

    # looking after it

    async def backup(self) -> AsyncIterator[bytes]:
        """All that is kept at the newest durable revision, in chunks for ``restore``. Writers go on meanwhile."""
        tree = self._reading()
        assert self._engine is not None
        from appliance.store.backing_up import backup_chunks

        upkeep = self._engine.upkeep
        await upkeep.hold_segments()
        try:
            for chunk in backup_chunks(tree):
                await trio.lowlevel.checkpoint()
                if chunk:
                    yield chunk
        finally:
            upkeep.let_go_of_segments()

    @asynccontextmanager
    async def export(self) -> AsyncIterator[Export]:
        """All that is kept at the newest durable revision, as plain changes. Writers go on meanwhile."""
        tree = self._reading()
        assert self._engine is not None
        from appliance.store.exporting import Export

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
