"""Which mirror to ask first: one that failed rests for a while, longer each time, and never in step with other hosts.

Decorrelated jitter: a wait is a random time up to three times the last one. Kept in a file, for a worker lives short.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from appliance.errors import ApplianceError
from appliance.host import clock, entropy, files

WAIT_FIRST, WAIT_MAX = 5.0, 3600.0


@dataclass(frozen=True)
class Rest:
    """How a mirror stands. Times in seconds since 1970."""

    failures: int = 0
    wait: float = 0.0
    until: float = 0.0
    why: str = ""


def after_failure(rest: Rest, now: float, chance: float, why: str) -> Rest:
    """``chance`` is a number from 0 to 1."""
    wait = min(WAIT_MAX, WAIT_FIRST + chance * (max(WAIT_FIRST, rest.wait * 3) - WAIT_FIRST))
    return Rest(rest.failures + 1, wait, now + wait, why[:300])


def order(rests: Sequence[Rest], now: float) -> list[int]:
    """The numbers of the mirrors: those that need no rest as they were listed, then who may be asked again first."""

    def left(number: int) -> float:
        seconds = rests[number].until - now
        return seconds if 0.0 < seconds <= WAIT_MAX else 0.0  # more than that: the clock was set back

    return sorted(range(len(rests)), key=lambda number: (left(number), number))


class Mirrors(Protocol):
    """What the fetcher needs of it."""

    def order(self) -> list[int]:
        """Whom to ask, in that order."""

    def failed(self, number: int, why: str) -> None:
        """It did not do what it should."""

    def worked(self, number: int) -> None:
        """It did."""


class KeptMirrors:
    """The state of each, in a small file; when that cannot be written all still works."""

    def __init__(self, path: str, urls: Sequence[str]) -> None:
        self._path, self._urls = path, list(urls)
        self._rests = read_rests(path)

    def order(self) -> list[int]:
        """Whom to ask, in that order."""
        return order([self._rests.get(url, Rest()) for url in self._urls], clock.wall_seconds())

    def failed(self, number: int, why: str) -> None:
        """It did not do what it should."""
        url = self._urls[number]
        rest = self._rests.get(url, Rest())
        self._rests[url] = after_failure(rest, clock.wall_seconds(), entropy.uniform(0, 1), why)
        self._keep()

    def worked(self, number: int) -> None:
        """It did."""
        if self._rests.pop(self._urls[number], None) is not None:
            self._keep()

    def _keep(self) -> None:
        kept = {url: asdict(rest) for url, rest in self._rests.items() if url in self._urls}
        try:
            files.write_atomic(self._path, json.dumps(kept).encode(), mode=0o600, durable=False)
        except ApplianceError:
            return


def read_rests(path: str) -> dict[str, Rest]:
    """By URL; empty when it cannot be read."""
    try:
        value = json.loads(files.read_bytes(path, size_max=1 << 20))
        return {
            str(url): Rest(int(one["failures"]), float(one["wait"]), float(one["until"]), str(one["why"]))
            for url, one in value.items()
        }
    except (ApplianceError, ValueError, KeyError, TypeError, AttributeError):
        return {}
