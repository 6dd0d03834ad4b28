"""Group commit: one task that writes and syncs, batch after batch, with no timer.

While a batch is being synced, what is staged meanwhile is the next one. Writers wait for the batch that holds what they
wrote, or saw; it is released as a whole, to them and to the watchers, when it is durable.

For a lone writer all this is a detour: while batches are small and syncs are quick, whoever staged the batch commits it
on the spot, and the loop stands still for it (0.2 ms). A sync that takes longer is the task's again, and the next ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from appliance.errors import ApplianceError, UnavailableError
from appliance.host.disk import NoRoomError
from appliance.store.checkpoint import snapshot
from appliance.store.log import Batch
from appliance.store.tree import Tree
from appliance.store.watching import WatchHub

_LONE_PARTS = 2
_LONE_BYTES = 16 << 10
_PATIENCE_SECONDS = 0.001  # so long the loop stands still for a lone writer, unless the store has it for itself
_SLOW_SECONDS = 0.004  # commits on the spot that take so long in the mean are too slow; one among many may be
_MEAN_OF = 16
_SLOW_SKIPPED = 20  # so many go by the thread then; twice as many when the next ones are slow again
_SLOW_SKIPPED_MAX = 160
STAGED_BYTES_MAX = 32 << 20  # more than this waits before it is staged
InThread = Callable[..., Awaitable[Any]]


class Writer(Protocol):
    """How a batch gets to the disk: one at a time."""

    async def call(self, function: Callable[[Batch], None], batch: Batch, /) -> object:
        """In a thread. Once begun it is waited for, cancelled or not."""

    def call_now(self, function: Callable[[Batch], None], batch: Batch, /, *, patience: float) -> bool:
        """With the whole loop waiting. False after ``patience`` seconds: go on with ``finish``."""

    async def finish(self) -> object:
        """Wait for what ``call_now`` began."""


@dataclass(eq=False)
class SnapshotWanted:
    """Somebody waits for the tree at a moment at which all of it is durable."""

    without: frozenset[int]
    done: trio.Event = field(default_factory=trio.Event)
    pieces: list[bytes] | None = None
    revision: int = 0


class Committer:
    """``full``: why the last batch found no room, until one does. ``problem``: why nothing is written any more."""

    def __init__(self, tree: Tree, hub: WatchHub, writer: Writer, committed: Callable[[Batch], None]) -> None:
        self.full = ""
        self.problem = ""
        self.index_is_sound = True
        self.batches = 0
        self.writes = 0
        self._tree = tree
        self._hub = hub
        self._writer = writer
        self._lone = 0  # small batches in a row
        self._writing = False
        self._begun: Batch | None = None  # on the spot, and not over yet
        self._skip = 0  # so many commits go by the thread
        self._next_skip = _SLOW_SKIPPED
        self._took = 0.0  # seconds for a commit on the spot, in the mean
        self._held = False
        self._kicked = False
        self._committed = committed
        self._wake = trio.Event()
        self._closing = False
        self._wanted: SnapshotWanted | None = None

    @property
    def newest(self) -> Batch | None:
        """The batch that proves all that is staged now; None when all is durable."""
        return self._tree.log.open_batch or self._tree.in_flight

    def waiting(self) -> int:
        """How many writers wait."""
        return sum(batch.waiting for batch in (self._tree.log.open_batch, self._tree.in_flight) if batch)

    def kick(self) -> None:
        """There may be something to write."""
        if self._held:
            self._kicked = True
        else:
            self._wake.set()

    def hold(self) -> None:
        """Until ``go`` is called, in the same step of the loop: more may come for the batch."""
        self._held = True

    def go(self) -> None:
        """Nothing more comes for now."""
        self._held = False
        if self._kicked:
            self._kicked = False
            if not self._commit_here():
                self._wake.set()

    def close(self) -> None:
        """Write what is staged, then return from ``run``."""
        self._closing = True
        self.kick()

    async def settled(self) -> None:
        """Until all that is staged now is durable. Raises UnavailableError when it could not be written."""
        batch = self.newest
        if batch is None:
            await trio.lowlevel.checkpoint()
            return
        batch.waiting += 1
        try:
            if self._may_commit_here():
                try:
                    await trio.lowlevel.checkpoint()  # whoever is about to write, too, joins the batch
                finally:
                    if not batch.done.is_set() and not self._commit_here():
                        self.kick()
            else:
                self.kick()
            if not batch.done.is_set():
                await batch.done.wait()
        finally:
            batch.waiting -= 1
        if batch.error:
            raise UnavailableError(batch.error)

    async def wait_room(self) -> None:
        """Until not too much is staged."""
        while (batch := self._tree.log.open_batch) is not None and batch.size > STAGED_BYTES_MAX:
            self._wake.set()
            await batch.done.wait()

    async def snapshot(self, without: frozenset[int]) -> tuple[list[bytes], int]:
        """Pieces of a checkpoint that is true of the disk, and its revision. Raises UnavailableError."""
        wanted = self._wanted = SnapshotWanted(without)
        self._wake.set()
        await wanted.done.wait()
        if wanted.pieces is None:
            raise UnavailableError("cannot write a checkpoint: the log could not be written")
        return wanted.pieces, wanted.revision

    async def run(self) -> None:
        """Until closed. Raises UnavailableError after a disk error: the log must be opened anew then."""
        while True:
            while not (self._tree.log.open_batch or self._wanted or self._begun or self.problem):
                if self._closing:
                    return
                self._wake = trio.Event()
                await self._wake.wait()
            if self.problem:  # met by who committed on the spot
                raise UnavailableError(self.problem)
            await self._commit()
            if self._tree.log.open_batch is not None:  # a call that was over at once took no checkpoint
                await trio.lowlevel.checkpoint()

    async def _commit(self) -> None:
        tree = self._tree
        batch = self._begun or self._take()
        wanted = None
        if not self._begun:  # else the tree has more than the batch by now: next time
            wanted, self._wanted = self._wanted, None
        pieces = snapshot(tree, batch, without=wanted.without) if wanted else None
        revision = tree.revision
        if batch is not None:
            self._skip -= self._skip > 0
            self._writing = True
            try:
                if self._begun:
                    await self._writer.finish()
                else:
                    await self._writer.call(self._tree.log.write, batch)
            except ApplianceError as exc:
                self._fail(batch, exc, wanted)
                return
            finally:
                self._writing, self._begun = False, None
            self._settle(batch)
        if wanted is not None:
            wanted.pieces, wanted.revision = pieces, revision
            wanted.done.set()

    def _take(self) -> Batch | None:
        batch = self._tree.log.take()
        if batch is not None and not batch.parts:  # a transaction that failed half-way left it behind
            self._release(batch)
            batch = None
        self._tree.in_flight = batch
        if batch is not None:
            self._lone = self._lone + 1 if _is_small(batch) else 0
        return batch

    def _may_commit_here(self) -> bool:
        batch = self._tree.log.open_batch
        return (
            self._lone > 1 and not self._skip and not self._writing and self._wanted is None and not self._closing
            and batch is not None and _is_small(batch)
        )  # fmt: skip

    def _commit_here(self) -> bool:
        """Write what is staged with the loop standing still. False: it is not done, that would take too long."""
        if not self._may_commit_here():
            return False
        batch = self._take()
        if batch is None:
            return True
        begun = trio.current_time()
        try:
            over = self._writer.call_now(self._tree.log.write, batch, patience=_PATIENCE_SECONDS)
        except ApplianceError as exc:
            with contextlib.suppress(UnavailableError):  # ``problem`` is set: the task raises it
                self._fail(batch, exc, None)
            self._wake.set()
            return True
        self._took += (trio.current_time() - begun - self._took) / _MEAN_OF
        if not over or self._took > _SLOW_SECONDS:
            self._took = _SLOW_SECONDS * 3 / 4
            self._skip = self._next_skip
            self._next_skip = min(self._next_skip * 2, _SLOW_SKIPPED_MAX)
        elif self._next_skip > _SLOW_SKIPPED:
            self._next_skip -= 1
        if over:
            self._settle(batch)
        else:
            self._writing, self._begun = True, batch
            self._wake.set()
        return True

    def _fail(self, batch: Batch, exc: ApplianceError, wanted: SnapshotWanted | None) -> None:
        """Raises UnavailableError when nothing more may be written."""
        if isinstance(exc, NoRoomError):
            self.full = exc.message
            self._refuse(batch, f"cannot write to the store: {exc.message}; reads go on", wanted)
            return
        self.problem = exc.message
        self._refuse(batch, f"cannot write to the store: {exc.message}; it must be opened anew", wanted)
        raise UnavailableError(self.problem) from exc

    def _settle(self, batch: Batch) -> None:
        tree = self._tree
        before = tree.durable_revision
        tree.in_flight = None
        tree.settle(batch)
        self.full = ""
        self.batches += 1
        self.writes += len(batch.parts)
        self._hub.deliver(tree, batch.parts, before)
        self._release(batch)
        self._committed(batch)

    def _refuse(self, batch: Batch, why: str, wanted: SnapshotWanted | None) -> None:
        """The batch was not written, so nothing staged after it holds either."""
        tree, log = self._tree, self._tree.log
        later, log.open_batch = log.open_batch, None
        tree.in_flight = None
        newest_first = [batch] if later is None else [later, batch]
        try:
            for one in newest_first:
                tree.undo(one)
                log.rewind(one)
        except ApplianceError as exc:  # older keys could not be read: the index is not to be trusted
            self.problem = self.problem or exc.message
            self.index_is_sound = False
            raise UnavailableError(self.problem) from exc
        finally:
            tree.revision = tree.durable_revision
            for one in reversed(newest_first):
                one.error = why
                self._release(one)
            if wanted is not None:
                wanted.done.set()

    def abandon(self, why: str) -> None:
        """The store ends with writers still waiting: they hear of it."""
        for batch in (self._tree.in_flight, self._tree.log.open_batch):
            if batch is not None and not batch.done.is_set():
                batch.error = why
                self._release(batch)
        if self._wanted is not None:
            self._wanted.done.set()

    @staticmethod
    def _release(batch: Batch) -> None:
        batch.done.set()
        if batch.error:
            for done, _ in batch.callbacks:
                done(UnavailableError(batch.error))
        else:
            for done, result in batch.callbacks:
                done(result)


def _is_small(batch: Batch) -> bool:
    return len(batch.parts) <= _LONE_PARTS and batch.size <= _LONE_BYTES
