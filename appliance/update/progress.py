"""How far a download is: kept in a small file that the daemon shows, and whoever waits reads from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.errors import ApplianceError
from appliance.host import files
from appliance.host.clock import monotonic_seconds

_SECONDS = 0.5
_RATE_SECONDS = 5.0


@dataclass(kw_only=True)
class Progress:
    """Bytes of the file that are in place (``present``), of the network (``fetched``), and how fast they come."""

    tell: Callable[[dict[str, Any]], None] = lambda _: None
    clock: Callable[[], float] = monotonic_seconds
    step: str = "starting"
    total: int = 0
    present: int = 0
    fetched: int = 0
    to_fetch: int = 0
    trouble: str = ""  # what went wrong and is tried again
    _told: float = field(default=float("-inf"), init=False)
    _marks: list[tuple[float, int]] = field(default_factory=list, init=False)

    def enter(self, step: str, total: int) -> None:
        """What is done now."""
        self.step, self.total = step, total
        self._tell()

    def receive(self, size: int) -> None:
        """Bytes came."""
        self.fetched += size
        if self.clock() - self._told >= _SECONDS:
            self._tell()

    def rate(self) -> float:
        """Bytes a second, over the last few."""
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return 0.0
        (since, before), (until, after) = self._marks[0], self._marks[-1]
        return (after - before) / (until - since)

    def picture(self) -> dict[str, Any]:
        """Plain values."""
        rate = self.rate()
        left = max(0, self.to_fetch - self.fetched)
        return {
            "step": self.step, "total_bytes": self.total, "present_bytes": self.present,
            "fetched_bytes": self.fetched, "to_fetch_bytes": self.to_fetch, "bytes_per_second": int(rate),
            "seconds_left": round(left / rate, 1) if rate else None, "trouble": self.trouble,
        }  # fmt: skip

    def _tell(self) -> None:
        moment = self.clock()
        self._told = moment
        self._marks.append((moment, self.fetched))
        while len(self._marks) > 2 and moment - self._marks[0][0] > _RATE_SECONDS:
            del self._marks[0]
        self.tell(self.picture())


def keeper(path: str) -> Callable[[dict[str, Any]], None]:
    """Tell it to a file; one that cannot be written stops nothing."""

    def keep(picture: dict[str, Any]) -> None:
        try:
            files.write_atomic(path, json.dumps(picture).encode(), durable=False)
        except ApplianceError:
            return

    return keep


def read_progress(path: str) -> dict[str, Any]:
    """What a worker told last; empty when there is none."""
    try:
        value = json.loads(files.read_bytes(path, size_max=1 << 16))
        return value if isinstance(value, dict) else {}
    except (ApplianceError, ValueError):
        return {}
