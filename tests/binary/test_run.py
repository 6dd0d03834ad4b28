"""The built file, run; the cases are in tests/app/run_cases.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from app.run_cases import *  # noqa: F403

pytestmark = pytest.mark.binary


@pytest.fixture(scope="session")
def command(binary: Path) -> Sequence[str]:
    return [str(binary)]
