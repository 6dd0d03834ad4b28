from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.peer import Peer, serving


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with serving(tmp_path) as one:
        yield one
