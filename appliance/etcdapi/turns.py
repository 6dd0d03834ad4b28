"""How many calls of the JSON gateway are under way at once. Pure.

An etcd's gateway speaks to it over one connection, so that ``--max-concurrent-streams`` holds for all its callers
together; who comes when all are taken waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Turns:
    """``most`` at a time; 0: as many as come."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._waiting: deque[Callable[[], bool]] = deque()

    def take(self, begin: Callable[[], bool]) -> None:
        """``begin`` is called now or when one is given back; it says whether it was still wanted."""
        if self._most and self._taken >= self._most:
            self._waiting.append(begin)
            return
        self._taken += 1
        if not begin():
            self.give()

    def give(self) -> None:
        """One is over."""
        while self._waiting:
            if self._waiting.popleft()():
                return
        self._taken -= 1
