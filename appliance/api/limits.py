"""What one listener gives away at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``lasting_max``: how many of the connections may be streams without an end, or readers who wait for a unit."""

    connections_max: int = 128
    lasting_max: int = 96  # the rest is for whoever asks something short
    head_bytes_max: int = 16 << 10
    body_bytes_max: int = 4 << 20
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    body_seconds: float = 30.0
    send_seconds: float = 30.0  # for each 64 KB
    heartbeat_seconds: float = 30.0
    drain_seconds: float = 5.0
