"""``[logs]`` of a unit file: how much of its output is kept. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.schema import Size


@dataclass(frozen=True, kw_only=True)
class LogsSection:
    """``[logs]``."""

    limit: Size | None = field(default=None, metadata={"min": 64 << 10})
