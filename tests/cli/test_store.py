"""appliance store: against a real daemon, and on files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from app.daemon import SETTINGS, Daemon

from cli.peer import command, run


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("node")
    (root / "etc/appliance").mkdir(parents=True)
    (root / "etc/appliance/appliance.toml").write_text(SETTINGS)
    one = Daemon(command(), root)
    one.expect_ready()
    one.expect_service("store", "ready")
    yield one
    one.clean_up()


def store(daemon: Daemon, *words: str, code: int = 0) -> str:
    done = run("--root", daemon.layout.root, "store", *words)
    assert (done.returncode, done.stderr) == (code, ""), done
    return str(done.stdout)


def test_put_get_del(daemon: Daemon) -> None:
    assert store(daemon, "put", "a", "1").startswith("revision ")
    assert store(daemon, "put", "a", "2", "--prev").splitlines()[1] == "1"
    store(daemon, "put", "ab", "x")
    assert store(daemon, "get", "a") == "a\n2\n"
    assert store(daemon, "get", "--prefix", "a", "--keys-only") == "a\nab\n"
    assert store(daemon, "get", "a", "b", "--limit", "1", "--value-only") == "2"
    assert store(daemon, "get", "--prefix", "a", "--count") == "2\n"
    first = json.loads(store(daemon, "get", "a", "-o", "json"))["kvs"][0]
    assert store(daemon, "get", "a", "--rev", str(first["create_revision"])) == "a\n1\n"
    assert store(daemon, "del", "--prefix", "a", "--prev") == "2\na\n2\nab\nx\n"
    assert store(daemon, "get", "a", code=4) == ""
    done = run("--root", daemon.layout.root, "store", "get", "a", "--rev", "99999999")
    assert (done.returncode, "cannot read at revision 99999999" in done.stderr) == (2, True)


def test_watch_from_a_revision_prints_history(daemon: Daemon) -> None:
    revision = int(store(daemon, "put", "w", "1").split()[1])
    store(daemon, "put", "w", "2")
    store(daemon, "del", "w")
    words = command("--root", daemon.layout.root, "store", "watch", "w", "--rev", str(revision))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline().rstrip() for _ in range(9)]
        watching.terminate()
    assert [line for line in lines if line] == [
        f"PUT (revision {revision})", "w", "1", f"PUT (revision {revision + 1})", "w", "2",
        f"DELETE (revision {revision + 2})", "w",
    ]  # fmt: skip


def test_backup_check_restore(daemon: Daemon, tmp_path: Path) -> None:
    store(daemon, "put", "kept", "for ever")
    file = str(tmp_path / "b")
    assert "proved" in store(daemon, "backup", file)
    assert "whole" in run("store", "check", file).stdout
    refused = run("--root", daemon.layout.root, "store", "restore", file)
    assert (refused.returncode, "holds it" in refused.stderr) == (7, True)
    other = str(tmp_path / "other")
    assert "restored to revision" in run("--root", other, "store", "restore", file).stdout
    checked = run("--root", other, "store", "check")
    assert (checked.returncode, "every checksum holds" in checked.stdout) == (0, True)
    again = run("--root", other, "store", "restore", file)
    assert (again.returncode, "there is a store in" in again.stderr) == (2, True)
    assert run("--root", other, "store", "restore", file, "--replace").returncode == 0
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:-3])
    cut = run("--root", other, "store", "restore", file, "--replace")
    assert (cut.returncode, "cut off" in cut.stderr) == (1, True)
    assert run("--root", other, "store", "check").returncode == 0


def test_status_and_compact(daemon: Daemon) -> None:
    revision = int(store(daemon, "put", "s", "1").split()[1])
    assert "state" in store(daemon, "status")
    store(daemon, "compact", str(revision))
    answer = json.loads(store(daemon, "status", "-o", "json"))
    assert (answer["state"], answer["compacted_revision"]) == ("open", revision)


def test_a_missing_key_is_said(tmp_path: Path) -> None:
    done = run("--root", str(tmp_path), "store", "get")
    assert (done.returncode, "KEY is missing" in done.stderr) == (2, True)
