"""Chance, through one door, so that tests can fix it."""

from __future__ import annotations

import os
import random

_rng = random.SystemRandom()


def uniform(low: float, high: float) -> float:
    """A number between the two."""
    return _rng.uniform(low, high)


def token(size: int = 16) -> str:
    """That many random bytes, as lower-case hex."""
    return os.urandom(size).hex()
