"""PyPI's etcd3gw and aetcd see the same of us as of a real etcd: every answer, event and refusal they make."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import StartStore
from tests.etcdapi.test_standalone import HOUSE

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


@pytest.mark.binary
@pytest.mark.parametrize("script", ["with_etcd3gw.py", "with_aetcd.py"])
def test_client_of_the_built_file(script: str, clients: Path, ours: StartStore, etcd: StartStore) -> None:
    subprocess.run([HOUSE / "build.sh"], check=True)
    we, they = seen(clients, script, ours([str(HOUSE / "dist/appliance")])), seen(clients, script, etcd())
    assert we == they


@pytest.mark.slow
def test_user_and_password(clients: Path, ours: StartStore, etcd: StartStore) -> None:
    found = []
    for start in (ours, etcd):
        address = start()
        for step in (
            "user add root:pw", "role add root", "user grant-role root root", "user add u:p", "role add r",
            "role grant-permission r readwrite u --prefix", "user grant-role u r", "auth enable",
        ):  # fmt: skip
            program = [clients / "etcdctl", "--endpoints", address, *step.split()]
            subprocess.run(program, check=True, capture_output=True, timeout=60)
        found.append(seen(clients, "with_aetcd_as_user.py", address))
    assert found[0] == found[1]
