"""What goes on beside writing: checkpoints, and giving back what compaction frees."""

from __future__ import annotations

from collections.abc import Callable

import trio

from appliance.errors import ApplianceError, CorruptError, UnavailableError
from appliance.host.disk import Disk
from appliance.store import checkpoint as checkpoints
from appliance.store import frames
from appliance.store.committing import Committer, InThread
from appliance.store.compaction import Compaction, victims
from appliance.store.log import Batch
from appliance.store.tree import Tree

_TRIES = 100  # to meet a moment at which nothing is being written


class Upkeep:
    """One task. Compaction and whoever holds segments (a backup) wait for each other."""

    def __init__(
        self, disk: Disk, tree: Tree, committer: Committer, in_thread: InThread, *,
        checkpoint_records: int, replayed: int, checkpoint_revision: int, tell: Callable[[str, str], None],
        damaged: Callable[[CorruptError], None],
    ) -> None:  # fmt: skip
        self.checkpoint_revision = checkpoint_revision
        self.problem = ""
        self._disk = disk
        self._tree = tree
        self._committer = committer
        self._in_thread = in_thread
        self._checkpoint_records = checkpoint_records
        self._records = replayed
        self._segment = tree.log.next_segment
        self._tell = tell
        self._damaged = damaged
        self._wake = trio.Event()
        self._compactions: list[trio.Event] = []
        self._one_at_a_time = trio.Lock()  # the last checkpoint of a life meets the task's
        self._thorough = False
        self._holders = 0
        self._compacting = False
        self._changed = trio.Event()  # of the two above

    async def hold_segments(self) -> None:
        """No segment goes away until ``let_go_of_segments``."""
        while self._compacting:
            await self._changed.wait()
        self._holders += 1

    def let_go_of_segments(self) -> None:
        """The other half."""
        self._holders -= 1
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def committed(self, batch: Batch) -> None:
        """From the committer, after each batch."""
        self._records += len(batch.parts)
        if self._records >= self._checkpoint_records or batch.segment != self._segment:
            self._wake.set()

    def want_compaction(self, *, thorough: bool = False) -> trio.Event:
        """Begin as soon as may be; set when it is done, or was given up. ``thorough``: leave no garbage behind."""
        done = trio.Event()
        self._thorough = self._thorough or thorough
        self._compactions.append(done)
        self._wake.set()
        return done

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            waiting, self._compactions = self._compactions, []
            try:
                if waiting or victims(self._tree):
                    while self._holders:
                        await self._changed.wait()
                    self._compacting = True
                    await self._compact()
                else:
                    await self.checkpoint()
            except ApplianceError as exc:
                # Full or failing: writers hear of it from the log, the next round tries again. Damage: nothing was
                # removed, what can be read is served, and the status says which byte.
                self._records = 0
                self.problem = exc.message
                self._tell("upkeep-failed", exc.message)
                if isinstance(exc, CorruptError):
                    self._damaged(exc)
            else:
                self.problem = ""
            finally:
                self._compacting = False
                self._note_change()
                for done in waiting:
                    done.set()

    async def checkpoint(self, without: frozenset[int] = frozenset()) -> None:
        """Write one. When this raises an ApplianceError, the older one stays good."""
        if not self._tree.log.durable_end >> frames.OFFSET_BITS or not self._tree.log.segments:
            return
        async with self._one_at_a_time:
            self._records = 0
            self._segment = self._tree.log.next_segment
            pieces, revision = await self._committer.snapshot(without)
            await self._in_thread(_write, self._disk, pieces)
            self.checkpoint_revision = revision

    async def _compact(self) -> None:
        tree, log = self._tree, self._tree.log
        await self._committer.settled()  # the compacted revision itself, for one
        rewinds = log.rewinds
        thorough, self._thorough = self._thorough, False
        rewritten = False
        if thorough:
            from appliance.store.rewriting import rewrite_history

            for _ in range(_TRIES):
                if self._committer.newest is None:
                    rewritten = rewrite_history(tree)
                    break
                await self._committer.settled()
            await self._committer.settled()
        compaction = Compaction(tree, thorough=thorough, rewritten=rewritten)
        for _ in compaction.steps():
            await self._committer.settled()
        await self._committer.settled()
        if log.rewinds != rewinds:
            raise UnavailableError("cannot give back segments: the log was rewound meanwhile")
        compaction.finish()
        if not compaction.victims:
            return
        await self.checkpoint(compaction.victims)
        if log.rewinds != rewinds:
            raise UnavailableError("cannot give back segments: the log was rewound meanwhile")
        gone = [segment for number in sorted(compaction.victims) if (segment := log.drop(number))]
        for segment in gone:
            segment.file.close()
        await self._in_thread(_remove, self._disk, [frames.segment_name(segment.number) for segment in gone])
        self._tell("compacted", f"{len(gone)} segments given back, {compaction.moved} records moved")


def _write(disk: Disk, pieces: list[bytes]) -> None:
    checkpoints.write_checkpoint(disk, checkpoints.seal(pieces))


def _remove(disk: Disk, names: list[str]) -> None:
    for name in names:
        disk.remove(name)
    disk.sync_names()
