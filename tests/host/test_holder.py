# ruff: noqa: ASYNC222 (a test may wait for a process that it killed)
"""Descriptors outlive their daemon in the holder, and the holder outlives nothing it should not."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from units.stage import PATIENCE_SECONDS, spawn_program, wait_gone

from appliance.host.holder import Holder
from appliance.host.poller import Poller

HOUSE = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    path = f"{tmp_path}/run/holder.sock"
    yield path
    holder = Holder(path, spawn_program(), Poller())
    for made in _MADE:
        made.close()
    _MADE.clear()
    holder.end()


_MADE: list[Holder] = []


def new_holder(path: str, poller: Poller | None = None) -> Holder:
    _MADE.append(Holder(path, spawn_program(), poller or Poller()))
    return _MADE[-1]


def listening_pid(path: str) -> int:
    """SO_PEERCRED of a listener is who called listen(2); so ask /proc who has the name of a holder and this socket."""
    inode = next(line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(path))
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text() == "appliance-hold\n":
                for fd in (comm.parent / "fd").iterdir():
                    if os.readlink(fd) == f"socket:[{inode}]":
                        return int(comm.parent.name)
    raise AssertionError(f"no holder at {path}")


def content(fd: int) -> bytes:
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()


def test_copies_come_back_with_their_names_in_order_as_often_as_asked(path: str, tmp_path: Path) -> None:
    holder = new_holder(path)
    assert holder.take("socket/web") == []
    assert not os.path.exists(path), "nothing is started before something is held"
    for text in ("one", "two", "three"):
        (tmp_path / text).write_text(text)
        with open(tmp_path / text, "rb") as file:
            holder.put("socket/web", "same" if text != "two" else "other", file.fileno())
    with open(tmp_path / "one", "rb") as file:
        holder.put("fdstore/db", "x", file.fileno())
    for _ in range(2):
        taken = holder.take("socket/web")
        assert [name for name, _ in taken] == ["same", "other", "same"]
        assert not any(os.get_inheritable(fd) for _, fd in taken)
        assert [content(fd) for _, fd in taken] == [b"one", b"two", b"three"]
    assert holder.keys() == ("socket/web", "fdstore/db")
    holder.drop("socket/web", "same")
    (left,) = holder.take("socket/web")
    assert content(left[1]) == b"two"
    holder.drop("socket/web")
    assert holder.take("socket/web") == []
    assert holder.keys() == ("fdstore/db",)


def test_the_same_open_file_is_held_once(path: str, tmp_path: Path) -> None:
    holder = new_holder(path)
    (tmp_path / "a").touch()
    with open(tmp_path / "a") as first, open(tmp_path / "a") as second:
        for fd in (first.fileno(), os.dup(first.fileno()), second.fileno()):
            holder.put("key", "name", fd)
    taken = holder.take("key")
    for _, fd in taken:
        os.close(fd)
    assert len(taken) == 2, "opened twice is two open files, a dup is none"


def test_a_listener_outlives_a_killed_daemon_and_refuses_nobody(path: str) -> None:
    script = f"""
import os, signal, socket
from appliance.host.holder import Holder
from appliance.host.poller import Poller
raw = socket.create_server(("127.0.0.1", 0))
Holder({path!r}, {spawn_program()!r}, Poller()).put("socket/web", "web", raw.fileno())
print(raw.getsockname()[1], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # Its end of file shows too that the holder keeps nothing of the daemon's own.
    daemon = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=HOUSE, timeout=PATIENCE_SECONDS)
    assert daemon.returncode == -signal.SIGKILL
    with socket.create_connection(("127.0.0.1", int(daemon.stdout))) as client:
        client.sendall(b"early")
        ((name, fd),) = new_holder(path).take("socket/web")
        assert name == "web"
        with socket.socket(fileno=fd) as listener, listener.accept()[0] as served:
            served.settimeout(PATIENCE_SECONDS)
            assert served.recv(10) == b"early"


async def test_it_ends_when_told_and_when_it_holds_nothing(path: str) -> None:
    poller = Poller()
    holder = new_holder(path, poller)
    for way in (holder.end, lambda: holder.drop("a")):
        holder.put("a", "b", 0)
        pid = listening_pid(path)
        holder.drop("unknown")
        way()
        await wait_gone(pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        assert holder.take("a") == []
        assert holder.keys() == ()


async def test_a_lost_one_is_told_and_replaced(path: str) -> None:
    poller = Poller()
    holder = new_holder(path, poller)
    lost = trio.Event()
    holder.on_lost.append(lost.set)
    holder.put("a", "b", 0)
    pid = listening_pid(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(PATIENCE_SECONDS):
            await lost.wait()
        nursery.cancel_scope.cancel()
    os.waitpid(pid, 0)
    assert holder.take("a") == []
    holder.put("a", "c", 0)
    second = listening_pid(path)
    os.kill(second, signal.SIGKILL)  # and one that dies between two calls, unseen
    os.waitpid(second, 0)
    holder.put("a", "d", 0)
    assert [name for name, fd in holder.take("a") if os.close(fd) is None] == ["d"]


def test_garbage_ends_the_conversation_and_nothing_else(path: str) -> None:
    holder = new_holder(path)
    holder.put("a", "b", 0)
    for nonsense in (b"P", b"P\0", b"Pkey", b"Pkey\0", b"Tkey\0name", b"\0" * 8000, b"x" * 9000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
            raw.connect(path)
            raw.settimeout(PATIENCE_SECONDS)
            raw.send(nonsense)
            assert len(raw.recv(100)) in (0, 4)
    assert [name for name, fd in holder.take("a") if os.close(fd) is None] == ["b"]


def test_it_is_small(path: str) -> None:
    holder = new_holder(path)
    for number in range(200):
        read, write = os.pipe()
        holder.put(f"socket/unit{number}", "name", read)
        os.close(read)
        os.close(write)
    rollup = Path(f"/proc/{listening_pid(path)}/smaps_rollup").read_text()
    # Its text is page cache, the same as that of the spawn program which runs anyway.
    own = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(("Private_Dirty", "Swap:")))
    assert 0 < own < 300, rollup


def test_what_is_sent_without_waiting_is_done_and_told(path: str, tmp_path: Path) -> None:
    holder = new_holder(path)
    failures: list[str] = []
    (tmp_path / "file").write_text("kept")
    with (tmp_path / "file").open() as file:
        for number in range(500):  # more than its buffer holds answers
            holder.put_soon(f"key-{number}", "it", file.fileno(), lambda exc: failures.append(exc.message))
    assert len(holder.keys()) == 500
    assert holder.holds("key-7")
    assert not holder.holds("key-500")
    holder.drop_soon("key-7")
    assert holder.take("key-7") == []
    holder.close()
    again = new_holder(path)
    assert len(again.keys()) == 499
    for number in range(500):
        again.drop_soon(f"key-{number}")
    assert not again.holds("key-1")
    assert failures == []
