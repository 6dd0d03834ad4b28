"""``[restart]`` of a unit file: what follows an end that nobody asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from appliance.schema import Duration

Policy = Literal["always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog", "no"]


@dataclass(frozen=True, kw_only=True)
class LimitTable:
    """``[restart] limit``: that many starts within the interval and it is given up."""

    burst: int = field(metadata={"min": 1, "max": 1000})
    interval: Duration = field(metadata={"min": 0.001})


@dataclass(frozen=True, kw_only=True)
class RestartSection:
    """The delay doubles up to ``delay_max``; a random part of ``jitter`` comes on top."""

    policy: Policy | None = None
    delay: Duration = 1.0
    delay_max: Duration = 60.0
    jitter: Duration = 0.0
    limit: LimitTable | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """``delay_max`` may not be the smaller one."""
        if self.delay_max < self.delay:
            yield "delay_max", "is smaller than delay"
