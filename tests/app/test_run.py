"""``python -m appliance run``; the cases are in run_cases.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from app.run_cases import *  # noqa: F403


@pytest.fixture(scope="session")
def command() -> Sequence[str]:
    return [sys.executable, "-m", "appliance"]
