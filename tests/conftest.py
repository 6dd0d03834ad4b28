"""For all tests: the slow suites end when their time is over, so that a run on a slow machine is a whole run."""

from __future__ import annotations

import os
import signal
import time

import pytest
from hypothesis import settings

SLOW = ("boot", "qemu", "soak")


def pytest_configure(config: pytest.Config) -> None:
    """What holds for every test."""
    # The same cases each time: one never seen before shall stop who looks for it, not who changed something else.
    settings.register_profile("same", derandomize=True, database=None)
    if not os.environ.get("APPLIANCE_TEST_RANDOM"):
        settings.load_profile("same")
    # A shell without job control lets what runs behind it ignore Ctrl-C, and every child inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``build.sh test`` says when (seconds since 1970, TESTS_SLOW_UNTIL); by hand there is no limit."""
    limit = float(os.environ.get("TESTS_SLOW_UNTIL", "inf"))
    if time.time() > limit and any(item.get_closest_marker(name) for name in SLOW):
        pytest.skip("the time for slow tests is over (TESTS_SLOW_UNTIL)")
