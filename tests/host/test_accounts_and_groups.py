# ruff: noqa: ASYNC110, ASYNC222, ASYNC240 (a test may look at real processes and files)
"""Accounts without NSS; cgroups by the kernel's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from appliance.errors import NotFoundError
from appliance.host import users
from appliance.host.cgroups import find_cgroup_root
from appliance.host.poller import Poller
from appliance.host.procfs import process_stat
from appliance.host.sessions import Session


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passwd").write_text(
        "root:x:0:0::/root:/bin/bash\n# note\nbroken\nweb:x:33:34:Web:/srv/web:\nbad:x:y:z::/:/bin/sh\n"
    )
    (tmp_path / "group").write_text("root:x:0:\nweb:x:34:\nlogs:x:50:other,web\nmore:x:51:web\nempty:x:52:\n")
    monkeypatch.setattr(users, "_PASSWD", str(tmp_path / "passwd"))
    monkeypatch.setattr(users, "_GROUP", str(tmp_path / "group"))


@pytest.mark.usefixtures("accounts")
def test_accounts_and_groups() -> None:
    web = users.find_account("web")
    assert (web.uid, web.gid, web.home, web.shell) == (33, 34, "/srv/web", "/bin/sh")
    assert users.find_account("33") == web
    assert users.find_account("4711").uid == 4711
    assert users.find_group("logs") == 50
    assert users.find_group("99") == 99
    assert users.groups_of(web, 34) == (34, 50, 51)
    for wrong in ("nobody-here", "bad"):
        with pytest.raises(NotFoundError, match=f"cannot find user {wrong}"):
            users.find_account(wrong)
    with pytest.raises(NotFoundError, match="cannot find group x"):
        users.find_group("x")


@pytest.mark.usefixtures("accounts")
def test_without_the_files_numbers_still_work(tmp_path: Path) -> None:
    (tmp_path / "passwd").unlink()
    assert users.find_account("5").gid == 5
    with pytest.raises(NotFoundError):
        users.find_account("root")


async def test_a_cgroup_is_emptied_and_says_so(tmp_path: Path) -> None:
    poller = Poller()
    root = find_cgroup_root(str(tmp_path), poller)
    if root is None:
        pytest.skip("no writable cgroup2 hierarchy")
    group = root.group("web")
    assert group.empty()
    group.renew()
    assert group.empty()
    assert group.path is not None
    called: list[int] = []
    group.clear(lambda: called.append(1))
    assert called == [1]
    pid = os.fork()
    if pid == 0:
        Path(group.path, "cgroup.procs").write_text("0")
        os.execv("/bin/sh", ["sh", "-c", "mkdir " + group.path + "/inner; sleep 1000 & sleep 1000 & sleep 1000"])
    emptied = trio.Event()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run)
            while group.empty():
                await trio.sleep(0.01)
            assert group.has(pid)
            assert not group.has(os.getpid())
            group.clear(emptied.set)
            await emptied.wait()
            nursery.cancel_scope.cancel()
    os.waitpid(pid, 0)
    assert group.empty()
    group.remove()
    assert not Path(group.path).exists()
    os.rmdir(root.directory)
    poller.close()


def test_a_session_whose_number_was_given_away_is_over() -> None:
    session = Session("no-such-mark", Poller())
    stat = process_stat(os.getpid())
    assert stat is not None
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.execv("/bin/sleep", ["sleep", "1000"])
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        child = process_stat(pid)
        assert child is not None
        session.lead(pid, child.start_ticks + 1)
        assert session.empty()
        session.lead(pid, child.start_ticks)
        assert session.has(pid)
        assert not session.has(os.getpid())
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
