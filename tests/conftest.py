"""For all tests: the slow suites end when their time is over, so that a run on a slow machine is a whole run."""

from __future__ import annotations

import os
import time

import pytest

SLOW = ("boot", "soak")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``build.sh test`` says when (seconds since 1970, TESTS_SLOW_UNTIL); by hand there is no limit."""
    limit = float(os.environ.get("TESTS_SLOW_UNTIL", "inf"))
    if time.time() > limit and any(item.get_closest_marker(name) for name in SLOW):
        pytest.skip("the time for slow tests is over (TESTS_SLOW_UNTIL)")
