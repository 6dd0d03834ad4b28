"""Group commit: one task that writes and syncs, batch after batch, with no timer.

While a batch is being synced, what is staged meanwhile is the next one. Writers wait for the batch that holds what they
wrote, or saw; it is released as a whole, to them and to the watchers, when it is durable.
"""

from __future__ import annotations

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

_PATIENCE_SECONDS = 0.0003  # so long the loop stands still for the commit of a lone writer
_LONE_PARTS = 2
_LONE_BYTES = 16 << 10
STAGED_BYTES_MAX = 32 << 20  # more than this waits before it is staged
InThread = Callable[..., Awaitable[Any]]


class Write(Protocol):
    """Runs the call in a thread. For ``patience`` seconds it may wait with the whole loop."""

    async def __call__(self, function: Callable[[Batch], None], batch: Batch, /, *, patience: float) -> object:
        """Once begun it is waited for, cancelled or not."""


@dataclass(eq=False)
class SnapshotWanted:
    """Somebody waits for the tree at a moment at which all of it is durable."""

    without: frozenset[int]
    done: trio.Event = field(default_factory=trio.Event)
    pieces: list[bytes] | None = None
    revision: int = 0


class Committer:
    """``full``: why the last batch found no room, until one does. ``problem``: why nothing is written any more."""

    def __init__(self, tree: Tree, hub: WatchHub, write: Write, committed: Callable[[Batch], None]) -> None:
        self.full = ""
        self.problem = ""
        self.index_is_sound = True
        self.batches = 0
        self.writes = 0
        self._tree = tree
        self._hub = hub
        self._write = write
        self._lone = 0  # small batches in a row
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
        self._wake.set()
        batch.waiting += 1
        try:
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
            while self._tree.log.open_batch is None and self._wanted is None:
                if self._closing:
                    return
                self._wake = trio.Event()
                await self._wake.wait()
            await self._commit()
            if self._tree.log.open_batch is not None:  # with patience there was no checkpoint
                await trio.lowlevel.checkpoint()

    async def _commit(self) -> None:
        tree = self._tree
        log = tree.log
        batch = log.take()
        if batch is not None and not batch.parts:  # a transaction that failed half-way left it behind
            self._release(batch)
            batch = None
        tree.in_flight = batch
        wanted, self._wanted = self._wanted, None
        pieces = snapshot(tree, batch, without=wanted.without) if wanted else None
        revision = tree.revision
        if batch is not None:
            try:
                await self._write(log.write, batch, patience=self._patience(batch))
            except NoRoomError as exc:
                self.full = exc.message
                self._refuse(batch, f"cannot write to the store: {exc.message}; reads go on", wanted)
                return
            except ApplianceError as exc:
                self.problem = exc.message
                self._refuse(batch, f"cannot write to the store: {exc.message}; it must be opened anew", wanted)
                raise UnavailableError(self.problem) from exc
            self._settle(batch)
        if wanted is not None:
            wanted.pieces, wanted.revision = pieces, revision
            wanted.done.set()

    def _patience(self, batch: Batch) -> float:
        is_lone = len(batch.parts) <= _LONE_PARTS and batch.size <= _LONE_BYTES
        self._lone = self._lone + 1 if is_lone else 0
        return _PATIENCE_SECONDS if self._lone > 1 else 0.0

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
        for callback in batch.callbacks:
            callback()
