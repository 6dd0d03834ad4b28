# ruff: noqa: ASYNC110, ASYNC220, ASYNC240 (a test may look at real processes and files)
"""A dead supervisor's units live on, and the next one takes them over (design, law 2)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from appliance.host.cgroups import find_cgroup_root
from appliance.host.poller import Poller
from units.stage import Stage, is_alive, kill, wait_gone

DAEMON = Path(__file__).with_name("daemon.py")
COUNTER = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"


def run_and_kill(stage: Stage, wanted: Iterable[str]) -> None:
    """A daemon of its own, killed once all those lines ("NAME STATE") were seen."""
    daemon = subprocess.Popen([sys.executable, str(DAEMON), str(stage.root)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    left = set(wanted)
    for line in daemon.stdout:
        left.discard(line.strip())
        if not left:
            break
    assert not left, f"never seen: {left}"
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()


def pids(stage: Stage, *names: str) -> dict[str, int]:
    import json

    return {name: json.loads(Path(stage.layout.run_units, name, "state.json").read_text())["pid"] for name in names}


async def test_units_live_on_with_pid_readiness_and_every_log_line(stage: Stage) -> None:
    stage.shell("count", COUNTER)
    stage.shell("once", "echo ran; exit 0", service='type = "oneshot"')
    stage.shell("bad", "exit 1", service='type = "oneshot"')
    run_and_kill(stage, ["count ready", "once exited", "bad failed"])
    before = pids(stage, "count")
    async with stage.running() as units:
        assert units.picture("count").state == "ready"
        assert units.picture("count").pid == before["count"]
        assert [units.picture(name).state for name in ("once", "bad")] == ["exited", "failed"]
        await stage.log(units, "count", "line 40")
        await units.stop("count")
        assert not is_alive(before["count"])
        lines = [line.text async for line in units.logs("count")]
        numbers = [int(line.split()[1]) for line in lines]
        assert numbers == list(range(1, len(numbers) + 1))
        assert [line.text async for line in units.logs("once")] == ["ran"]


async def test_what_died_meanwhile_is_restarted_by_policy(stage: Stage) -> None:
    stage.shell("keep", "exec sleep infinity", more='[restart]\npolicy = "always"\ndelay = "0"')
    stage.shell("leave", "exec sleep infinity", more='[restart]\npolicy = "no"')
    run_and_kill(stage, ["keep ready", "leave ready"])
    before = pids(stage, "keep", "leave")
    for pid in before.values():
        kill(pid)
        await wait_gone(pid)
    async with stage.running() as units:
        await stage.state(units, "keep", "ready")
        assert units.picture("keep").pid not in (None, before["keep"])
        await stage.state(units, "leave", "failed")
        # We may be the subreaper to whom it fell; then its end is known.
        assert units.picture("leave").reason in ("it ended while no appliance watched", "killed by SIGKILL")


async def test_the_end_of_an_adopted_stranger_is_noticed_with_its_status(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    stage.shell("job", f"until test -e {go}; do sleep 0.05; done; exit 5", more='[restart]\npolicy = "no"')
    run_and_kill(stage, ["job ready"])
    async with stage.running() as units:
        assert units.picture("job").state == "ready"
        go.touch()
        await stage.state(units, "job", "failed")
        assert units.picture("job").last_exit in ("exited with code 5", "ended, nobody saw how")


async def test_a_unit_whose_file_vanished_is_stopped_and_one_whose_file_broke_runs_on(stage: Stage) -> None:
    stage.shell("gone", "exec sleep infinity")
    stage.shell("sick", "exec sleep infinity")
    stage.shell("fresh", "exec sleep infinity")
    run_and_kill(stage, ["gone ready", "sick ready", "fresh ready"])
    before = pids(stage, "gone", "sick", "fresh")
    (stage.directory / "gone.toml").unlink()
    stage.write("sick", "[service]\ncomand = 1\n")
    stage.shell("fresh", "exec sleep 9999")
    async with stage.running() as units:
        await wait_gone(before["gone"])
        await stage.until(lambda: "gone" not in [picture.name for picture in units.pictures()])
        assert units.picture("sick").pid == before["sick"]
        assert any("comand" in str(one) for one in units.problems())
        assert units.picture("fresh").pid == before["fresh"]
        assert units.picture("fresh").changed
        plan = await units.reload()
        assert plan.restart == ("fresh",)
        await stage.until(lambda: units.picture("fresh").state == "ready" and not units.picture("fresh").changed)
    assert not any(map(is_alive, before.values()))


async def test_detached_units_are_adopted_as_own_children_in_the_same_process(stage: Stage) -> None:
    stage.shell("count", COUNTER)
    async with stage.running(detach=True) as units:
        await stage.log(units, "count", "line 3")
        pid = units.picture("count").pid
    assert pid is not None
    assert is_alive(pid)
    async with stage.running() as units:
        assert units.picture("count").pid == pid
        kill(pid)
        await stage.until(lambda: units.picture("count").last_exit == "killed by SIGKILL")


async def test_a_daemon_killed_right_after_a_spawn_leaves_no_twin(stage: Stage, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    stage.shell("twin", f"echo $$ >> {pid_file}; exec sleep infinity")
    for place in ("cgroup",):
        daemon = subprocess.Popen(
            [sys.executable, str(DAEMON), str(stage.root)],
            env={"APPLIANCE_FAILPOINT": "unit-spawned", "PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
        )
        daemon.communicate()
        assert daemon.returncode == -9, place
    async with stage.running() as units:
        await stage.state(units, "twin", "ready")
        with trio.fail_after(30):
            while len(pid_file.read_text().split() if pid_file.exists() else []) < 1:
                await trio.sleep(0.01)
        alive = [pid for pid in map(int, pid_file.read_text().split()) if is_alive(pid)]
        assert alive in ([], [units.picture("twin").pid])


async def test_an_adopted_notify_unit_is_still_heard(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    stage.python(
        "talk",
        "import os, socket, time\n"
        "def say(text):\n"
        "    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        '    a = os.environ["NOTIFY_SOCKET"]\n'
        '    s.sendto(text, "\\0" + a[1:] if a[0] == "@" else a)\n'
        'say(b"READY=1\\nSTATUS=first")\n'
        f'while not os.path.exists("{go}"): time.sleep(0.05)\n'
        'say(b"STATUS=second")\n'
        'print("said")\n'
        "time.sleep(1000)\n",
        service='type = "notify"',
    )
    run_and_kill(stage, ["talk ready"])
    async with stage.running() as units:
        assert units.picture("talk").state == "ready"
        go.touch()
        with trio.fail_after(30):
            while units.picture("talk").status_text != "second":
                await trio.sleep(0.01)


async def test_what_a_killed_daemon_left_empty_is_swept(stage: Stage, tmp_path: Path) -> None:
    cgroups = find_cgroup_root(str(stage.root), Poller())
    if cgroups is None:
        pytest.skip("no cgroup v2 that we may write to")
    gone, there = (find_cgroup_root(str(tmp_path / name), Poller()) for name in ("gone", "there"))
    assert gone is not None
    assert there is not None
    (tmp_path / "there").mkdir()
    marked = "user.appliance.root" in os.listxattr(gone.directory)  # not every kernel has marks in its cgroups
    for made in (cgroups, gone, there):
        os.makedirs(f"{made.directory}/old/inner", exist_ok=True)
    stage.shell("web", "exec sleep 1000")
    stray = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        os.makedirs(f"{cgroups.directory}/stray")
        Path(cgroups.directory, "stray/cgroup.procs").write_text(str(stray.pid))
        run_and_kill(stage, ["web ready"])
        stage.write("web", "[service]\ncommand = ['/bin/sleep', '1001']")
        async with stage.running() as units:
            await stage.state(units, "web", "ready")
            await stage.until(lambda: not os.path.exists(f"{cgroups.directory}/old"))
            if marked:
                await stage.until(lambda: not os.path.exists(gone.directory))
            assert os.path.exists(f"{there.directory}/old"), "that of another appliance, which may come again"
            assert os.path.exists(f"{cgroups.directory}/stray"), "somebody lives in it"
            assert units.processes("web")
    finally:
        stray.kill()
        stray.wait()
        for path in (f"{there.directory}/old/inner", f"{there.directory}/old", there.directory,
                     f"{cgroups.directory}/stray", cgroups.directory):  # fmt: skip
            with contextlib.suppress(OSError):
                os.rmdir(path)
