"""Machines in QEMU."""

from __future__ import annotations

from collections.abc import Generator

import pluggy
import pytest

_failed: dict[str, str] = {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """The tests of a story follow each other on one machine: after the first that fails the others say nothing."""
    outcome = yield
    if outcome.get_result().failed and item.path.name == "test_story.py":
        _failed.setdefault(item.path.name, item.name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """See above."""
    if item.path.name in _failed:
        pytest.skip(f"{_failed[item.path.name]} failed before it")
