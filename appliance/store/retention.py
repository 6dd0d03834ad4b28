"""How much history is kept: when the oldest of it may go, and up to where. Pure; it is told the time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from appliance.store import frames
from appliance.store.frames import OFFSET_MASK, SEGMENT_HEADER_SIZE
from appliance.store.log import Batch, Log
from appliance.store.tree import Tree

_STEPS = 10  # of ``seconds``: so exact is the time from which history is kept


@dataclass(frozen=True)
class Retention:
    """Bounds of history; the tightest counts, 0 is none. Half as much again may be there for a while."""

    revisions: int = 0
    seconds: float = 0.0
    size_bytes: int = 0  # of log


EVERYTHING = Retention()


class Historian:
    """One for each opening of a store."""

    def __init__(self, retention: Retention = EVERYTHING) -> None:
        self.retention = retention
        self._moments: deque[tuple[float, int]] = deque()  # when a revision was the newest
        self._written: int | None = None  # bytes since we looked; None: not yet looked

    def due(self, tree: Tree, batch: Batch, now: float) -> int:
        """After each durable batch: the revision to compact to, or 0."""
        bounds = self.retention
        oldest = 0
        if bounds.revisions and tree.durable_revision - tree.compacted_revision > bounds.revisions * 3 // 2:
            oldest = tree.durable_revision - bounds.revisions
        if bounds.seconds:
            oldest = max(oldest, self._by_time(tree, bounds.seconds, now))
        if bounds.size_bytes:
            self._written = None if self._written is None else self._written + batch.size
            if self._written is None or self._written > bounds.size_bytes // 2:
                self._written = 0
                oldest = max(oldest, _by_size(tree, bounds.size_bytes))
        return oldest if oldest > tree.compacted_revision else 0

    def _by_time(self, tree: Tree, seconds: float, now: float) -> int:
        moments = self._moments
        if moments and now - moments[-1][0] < seconds / _STEPS:
            return 0
        moments.append((now, tree.durable_revision))
        oldest = 0
        while moments and moments[0][0] <= now - seconds:
            _, oldest = moments.popleft()
        return oldest


def _by_size(tree: Tree, size: int) -> int:
    at = _behind(tree.log, size)
    return tree.marks.revision_at(at) if at else 0


def _behind(log: Log, size: int) -> int:
    """The location behind which the log has about ``size`` bytes; 0: it has not so many."""
    newest = log.durable_end >> frames.OFFSET_BITS
    for number in sorted(log.segments, reverse=True):
        if number > newest:
            continue
        end = log.durable_end & OFFSET_MASK if number == newest else log.segments[number].end
        size -= end - SEGMENT_HEADER_SIZE
        if size < 0:
            return frames.location(number, SEGMENT_HEADER_SIZE - size)
    return 0
