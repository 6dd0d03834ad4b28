"""Machines in QEMU."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pluggy
import pytest

HERE = Path(__file__).parent

_failed: dict[str, str] = {}
FIRST = ("test_story.py", "test_cuts.py", "test_flips.py")  # what matters most, should the time not be enough for all


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those first, and the rest of ours as it was."""
    ours = [item for item in items if item.path.parent == HERE]
    ours.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))
    items[:] = [item for item in items if item.path.parent != HERE] + ours


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
