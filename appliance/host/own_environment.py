"""The variables that we were started with."""

from __future__ import annotations

import os
from collections.abc import Iterable


def variables(names: Iterable[str]) -> dict[str, str]:
    """Those of these names that are there."""
    return {name: os.environ[name] for name in names if name in os.environ}
