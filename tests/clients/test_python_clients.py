"""PyPI's etcd3gw and aetcd see the same of us as of a real etcd: every answer, event and refusal they make."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import StartStore

HERE = Path(__file__).parent


def seen(clients: Path, script: str, address: str) -> dict[str, object]:
    done = subprocess.run(
        [clients / "python", HERE / script, *address.split(":")], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("script", ["with_etcd3gw.py", "with_aetcd.py"])
def test_client_sees_an_etcd(script: str, clients: Path, ours: StartStore, etcd: StartStore) -> None:
    we, they = seen(clients, script, ours()), seen(clients, script, etcd())
    assert we == they
