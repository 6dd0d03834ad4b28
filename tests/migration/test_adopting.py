"""``appliance etcd`` on the data directory of an etcd: all of it, or nothing, and its files stay as they are."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.etcdapi.test_standalone import HOUSE, SOURCE, etcdctl, started
from tests.etcdapi.test_transcript import free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd")]


@contextmanager
def etcd(directory: Path, end: signal.Signals) -> Iterator[str]:
    url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    process = subprocess.Popen(
        ["etcd", "--data-dir", str(directory), "--listen-client-urls", url, "--advertise-client-urls", url,
         "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while "is healthy" not in etcdctl(url, "endpoint", "health", "--dial-timeout=1s"):
            assert process.poll() is None
        yield url
    finally:
        process.send_signal(end)
        process.wait()


def flags(directory: Path) -> tuple[str, Sequence[str]]:
    url = f"http://127.0.0.1:{free_port()}"
    return url, ("--data-dir", str(directory), "--listen-client-urls", url, "--advertise-client-urls", url)


def refused(directory: Path) -> str:
    done = subprocess.run(
        [*SOURCE, "etcd", *flags(directory)[1]], capture_output=True, text=True, timeout=60, cwd=HOUSE, check=False,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    return done.stderr


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (directory / "member").rglob("*") if path.is_file()}


def fill(url: str) -> str:
    for number in range(5):
        etcdctl(url, "put", f"key{number}", f"value{number}")
    lease = etcdctl(url, "lease", "grant", "9000").split()[1]
    etcdctl(url, "put", "leased", "x", f"--lease={lease}")
    etcdctl(url, "del", "key3")
    etcdctl(url, "compact", "4")
    return etcdctl(url, "get", "--prefix", "", "-w", "fields")


def without_header(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(('"ClusterID"', '"MemberID"', '"RaftTerm"'))]


def test_of_one_that_was_stopped(tmp_path: Path) -> None:
    with etcd(tmp_path, signal.SIGTERM) as url:
        before = fill(url)
        assert "another process uses it" in refused(tmp_path)
    theirs = files_of(tmp_path)
    ours, arguments = flags(tmp_path)
    with started(SOURCE, *arguments):
        assert without_header(etcdctl(ours, "get", "--prefix", "", "-w", "fields")) == without_header(before)
        assert "required revision has been compacted" in etcdctl(ours, "get", "key1", "--rev=3")
        assert etcdctl(ours, "lease", "list").startswith("found 1 leases")
        assert etcdctl(ours, "put", "new", "here") == "OK\n"
    with started(SOURCE, *arguments):  # its own store from here on
        assert etcdctl(ours, "get", "new") == "new\nhere\n"
    assert files_of(tmp_path) == theirs


def test_of_one_that_was_killed(tmp_path: Path) -> None:
    """Its database lacks what it did in the last moment before: that is not left away without a word."""
    with etcd(tmp_path, signal.SIGKILL) as url:
        fill(url)
        etcdctl(url, "put", "last", "word")
    ours, arguments = flags(tmp_path)
    with suppress(AssertionError), started(SOURCE, *arguments):
        assert etcdctl(ours, "get", "last") == "last\nword\n"  # it had written it just before
        return
    assert "its log has changes that its database lacks" in refused(tmp_path)
    with etcd(tmp_path, signal.SIGTERM):
        pass  # as the advice says
    with started(SOURCE, *arguments):
        assert etcdctl(ours, "get", "last") == "last\nword\n"


def test_of_a_restored_snapshot(tmp_path: Path) -> None:
    with etcd(tmp_path / "etcd", signal.SIGTERM) as url:
        before = fill(url)
        etcdctl(url, "snapshot", "save", str(tmp_path / "snapshot"))
    etcdctl(url, "snapshot", "restore", str(tmp_path / "snapshot"), "--data-dir", str(tmp_path / "restored"))
    ours, arguments = flags(tmp_path / "restored")
    with started(SOURCE, *arguments):
        assert without_header(etcdctl(ours, "get", "--prefix", "", "-w", "fields")) == without_header(before)


def test_what_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "member/snap").mkdir(parents=True)
    (tmp_path / "member/snap/db").write_bytes(b"")
    done = subprocess.run(
        [*SOURCE, "etcd", *flags(tmp_path)[1]], capture_output=True, text=True, timeout=60, cwd=HOUSE, check=False,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
    )  # fmt: skip
    assert "it is no snapshot of an etcd" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "member"]
