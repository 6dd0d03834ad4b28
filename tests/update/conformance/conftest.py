"""A repository that can be made to lie, and a host that follows it, for each case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.update.conformance.simulator import Client, Simulator, served


@pytest.fixture
def repo() -> Simulator:
    return Simulator()


@pytest.fixture
def client(repo: Simulator, tmp_path: Path) -> Iterator[Client]:
    with served(repo) as url:
        yield Client(tmp_path / "client", url, repo.signed["root"][1])
