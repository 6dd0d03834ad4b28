"""What a store is given besides its disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Publish(Protocol):
    """``EventBus.publish``."""

    def __call__(self, kind: str, subject: str, **data: str | int | float | bool | None) -> object:
        """Tell whoever listens."""


@dataclass(frozen=True)
class Sizes:
    """Numbers that tests make small."""

    segment_bytes: int = 64 << 20
    reserve_bytes: int = 16 << 20  # zeros written ahead
    checkpoint_records: int = 250_000
