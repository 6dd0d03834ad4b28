"""Which of many ranges have a key in them, without a look at each. Pure.

Levels of doubling size, each sorted by where its ranges begin, with a tree of how far they reach. A new range waits in
a short list; a full list becomes a level, and levels of one size become one of twice that size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from appliance.store.rules import FROM_KEY, in_range

T = TypeVar("T")
Ends = tuple[bytes, bytes]  # key, range_end
NEW_MAX = 32


class _Level:
    """Does not change."""

    def __init__(self, ranges: Iterable[Ends]) -> None:
        self.ranges = sorted(ranges)
        self._starts = [start for start, _ in self.ranges]
        self._ends = sorted({end for _, end in self.ranges if end != FROM_KEY})
        rank = {end: number for number, end in enumerate(self._ends)}
        rank[FROM_KEY] = len(rank)
        self._leaves = 1 << (len(self.ranges) - 1).bit_length()
        reach = [-1] * self._leaves
        reach += [rank[end] for _, end in self.ranges]
        reach += [-1] * (2 * self._leaves - len(reach))
        for node in range(self._leaves - 1, 0, -1):
            reach[node] = max(reach[2 * node], reach[2 * node + 1])
        self._reach = reach

    def at(self, key: bytes) -> Iterator[Ends]:
        """The ranges with the key."""
        begun = bisect_right(self._starts, key)
        over = bisect_right(self._ends, key)
        reach = self._reach
        if not begun or reach[1] < over:
            return
        stack = [(1, 0, self._leaves)]
        while stack:
            node, first, width = stack.pop()
            if first >= begun or reach[node] < over:
                continue
            if width == 1:
                yield self.ranges[first]
                continue
            width //= 2
            stack.append((2 * node + 1, first + width, width))
            stack.append((2 * node, first, width))


class Ranges(Generic[T]):
    """Things by their ranges. Iterate it for all of them."""

    def __init__(self) -> None:
        self._of: dict[Ends, dict[T, None]] = {}
        self._placed: set[Ends] = set()  # in a level or new; those without things go when they are too many
        self._new: list[Ends] = []
        self._levels: list[_Level] = []

    def __len__(self) -> int:
        """How many things."""
        return sum(map(len, self._of.values()))

    def __iter__(self) -> Iterator[T]:
        """All of them."""
        for things in self._of.values():
            yield from things

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._of)

    def add(self, key: bytes, range_end: bytes, thing: T) -> None:
        """Once."""
        ends = key, range_end
        self._of.setdefault(ends, {})[thing] = None
        if ends in self._placed:
            return
        self._placed.add(ends)
        self._new.append(ends)
        if len(self._new) > NEW_MAX:
            self._place()

    def discard(self, key: bytes, range_end: bytes, thing: T) -> None:
        """If it is there."""
        things = self._of.get((key, range_end))
        if things is not None:
            things.pop(thing, None)
            if not things:
                del self._of[key, range_end]
                if len(self._placed) > 2 * len(self._of) + NEW_MAX:
                    self._placed = set(self._of)
                    self._new = []
                    self._levels = [_Level(self._of)] if self._of else []

    def _place(self) -> None:
        ranges, self._new = self._new, []
        while self._levels and len(self._levels[-1].ranges) < 2 * len(ranges):
            ranges = ranges + self._levels.pop().ranges
        self._levels.append(_Level(ranges))

    def at(self, key: bytes) -> list[T]:
        """Those whose range has the key."""
        found: list[T] = []
        of = self._of
        for ends in self._new:
            if in_range(key, *ends):
                found += of.get(ends, ())
        for level in self._levels:
            for ends in level.at(key):
                found += of.get(ends, ())
        return found
