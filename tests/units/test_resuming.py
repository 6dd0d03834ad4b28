# ruff: noqa: ASYNC110, ASYNC220, ASYNC240 (a test may look at real processes and files)
"""The supervisor is killed in every phase of a unit; the next one goes on. Also after states that older ones wrote."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.host import clock
from appliance.host.procfs import process_stat
from appliance.units.run_state import RunState, decode_run_state_untrusted
from units.stage import PYTHON, Stage, is_alive, kill, wait_gone

DAEMON = Path(__file__).with_name("daemon.py")
OLD = Path(__file__).with_name("old_state")
BEFORE_MAIN = ("phase-condition", "in-condition", "phase-pre-start", "in-pre-start", "phase-start", "unit-spawned")
WITH_MAIN = ("in-start", "phase-post-start", "in-post-start", "phase-run")
RELOADING = ("phase-reload", "in-reload")
STOPPING = (
    "phase-stop", "in-stop", "phase-term", "in-term", "phase-kill", "in-kill", "phase-post-stop", "in-post-stop",
    "phase-final-term", "in-final-term", "phase-end",
)  # fmt: skip
WITH_COMMAND = ("in-condition", "in-pre-start", "in-post-start", "in-reload", "in-stop", "in-post-stop")


def with_pauses(*places: str) -> list[tuple[str, str]]:
    """The command that runs at the kill is over when the next supervisor comes; or it still runs."""
    return [(place, "0") for place in places] + [(place, "0.7") for place in places if place in WITH_COMMAND]


def killed_at(stage: Stage, place: str, *words: str) -> None:
    """A daemon that kills itself there."""
    daemon = subprocess.run(
        [sys.executable, str(DAEMON), str(stage.root), *words],
        env={"APPLIANCE_FAILPOINT": place, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        timeout=30,
    )
    assert daemon.returncode == -9, daemon.stdout.decode()


def write_unit(stage: Stage, log: Path, pause: str) -> None:
    """Each command says what it is and takes its time; the main one is deaf to SIGTERM, post_stop leaves one more."""

    def line(word: str, more: str = "") -> str:
        return f"[['sh', '-c', 'echo {word} >> {log}; sleep {pause}{more}'], ['true']]"

    stage.shell(
        "web",
        f"trap '' TERM; echo main $$ >> {log}; while :; do sleep 0.1; done",
        service=f"type = 'exec'\ncondition = {line('condition')}\npre_start = {line('pre')}\n"
        f"post_start = {line('post')}\nreload = {line('reload')}\nstop = {line('stop')}\n"
        f"post_stop = {line('gone', '; (trap : TERM; sleep 10030; sleep 0.1) &')}\nstop_timeout = '300ms'",
        more='[restart]\npolicy = "always"\ndelay = "10ms"',
    )


def mains(log: Path) -> list[int]:
    return [int(line.split()[1]) for line in log.read_text().split("\n") if line.startswith("main ")]


@pytest.mark.parametrize(("place", "pause"), with_pauses(*BEFORE_MAIN, *WITH_MAIN))
async def test_killed_while_it_started(stage: Stage, tmp_path: Path, place: str, pause: str) -> None:
    log = tmp_path / "log"
    write_unit(stage, log, pause)
    killed_at(stage, place)
    left = RunState(name="", boot_id="", state="", reason="")
    path = Path(stage.layout.run_units, "web/state.json")
    if path.exists():
        left = decode_run_state_untrusted(path.read_bytes())
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        with trio.fail_after(40):
            while not log.exists() or units.picture("web").pid not in mains(log):
                await trio.sleep(0.01)
        assert [pid for pid in mains(log) if is_alive(pid)] == [units.picture("web").pid], "no twin"
        assert units.picture("web").restarts == 0
        if place in WITH_MAIN:
            assert units.picture("web").pid == left.pid, "not restarted"
        await units.stop("web")


@pytest.mark.parametrize(("place", "pause"), with_pauses(*RELOADING))
async def test_killed_while_it_reloaded(stage: Stage, tmp_path: Path, place: str, pause: str) -> None:
    log = tmp_path / "log"
    write_unit(stage, log, pause)
    killed_at(stage, place, "reload", "web")
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        assert mains(log) == [units.picture("web").pid], "not restarted"
        await units.reload_unit("web")


@pytest.mark.parametrize(("place", "pause"), with_pauses(*STOPPING))
async def test_killed_while_it_stopped(stage: Stage, tmp_path: Path, place: str, pause: str) -> None:
    log = tmp_path / "log"
    write_unit(stage, log, pause)
    killed_at(stage, place, "stop", "web")
    stage.keeper.kept["units/web/desired"] = b"stopped"
    async with stage.running() as units:
        await stage.state(units, "web", "stopped")
        assert not [pid for pid in mains(log) if is_alive(pid)]
        assert len(mains(log)) == 1
        assert "gone" in log.read_text() or place == "phase-post-stop"
        await units.start("web")
        assert [pid for pid in mains(log) if is_alive(pid)] == [units.picture("web").pid]


@pytest.mark.parametrize("place", ["in-stop", "in-term", "in-kill", "in-post-stop", "phase-end"])
async def test_killed_in_a_restart_it_comes_up_again(stage: Stage, tmp_path: Path, place: str) -> None:
    log = tmp_path / "log"
    write_unit(stage, log, "0.1")
    killed_at(stage, place, "restart", "web")
    (old,) = mains(log)
    async with stage.running() as units:
        await stage.until(lambda: units.picture("web").state == "ready" and units.picture("web").pid != old)
        assert not is_alive(old)


async def test_killed_while_a_restart_was_due_it_waits_for_the_rest_of_the_time(stage: Stage, tmp_path: Path) -> None:
    stage.shell("web", f"echo x >> {tmp_path}/log; exit 1", more='[restart]\ndelay = "3s"')
    daemon = subprocess.Popen([sys.executable, str(DAEMON), str(stage.root)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    assert any(line.strip() == "web backoff" for line in daemon.stdout)
    with trio.fail_after(30):
        path = Path(stage.layout.run_units, "web/state.json")
        while json.loads(path.read_text())["phase"] != "backoff":
            await trio.sleep(0.01)
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    due = json.loads(path.read_text())["due"]
    async with stage.running() as units:
        assert units.picture("web").state == "backoff"
        assert (units.picture("web").restarts, units.picture("web").exit.code) == (1, 1)
        await stage.state(units, "web", "starting", "stopping")
        assert clock.monotonic_seconds() >= due


async def test_a_forked_daemon_is_adopted_with_its_restarts_and_its_stored_descriptors(stage: Stage) -> None:
    stage.shell("d", "sleep 10031 & exit 0", service="type = 'forking'", more='[restart]\npolicy = "always"')
    script = stage.root / "store.py"
    script.write_text(
        "import os, socket, time\n"
        's = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\na = os.environ["NOTIFY_SOCKET"]\n'
        's.connect("\\0" + a[1:] if a[0] == "@" else a)\n'
        'if not os.environ.get("LISTEN_FDS"):\n'
        '    fd = os.memfd_create("x"); os.write(fd, b"kept")\n'
        '    socket.send_fds(s, [b"FDSTORE=1\\nFDNAME=it"], [fd])\n'
        "else:\n    print(os.environ['LISTEN_FDNAMES'], os.pread(3, 9, 0).decode(), flush=True)\n"
        's.send(b"READY=1")\ntime.sleep(1000)\n'
    )
    stage.write("keep", f"[service]\ntype = 'notify'\ncommand = ['{PYTHON}', '{script}']\n")
    run_until(stage, "d ready", "keep ready")
    before = {name: pid_of(stage, name) for name in ("d", "keep")}
    async with stage.running() as units:
        assert {name: units.picture(name).pid for name in before} == before
        assert units.picture("keep").stored_descriptors == 1
        await units.restart("keep")
        assert await stage.log(units, "keep", "it") == "it kept"
        kill(before["d"])
        await stage.until(lambda: units.picture("d").restarts == 1)


async def test_what_a_unit_said_and_wrote_while_no_appliance_lived_is_not_lost(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f"while not os.path.exists('{go}'): time.sleep(0.02)\n"
    say = "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\na = os.environ['NOTIFY_SOCKET']\n"
    say += "s.sendto(b'READY=1\\nSTATUS=heard', '\\0' + a[1:] if a[0] == '@' else a)\n"
    (stage.root / "talk.py").write_text("import os, socket, time\n" + wait + say + "time.sleep(1000)\n")
    stage.write("talk", f"[service]\ntype = 'notify'\ncommand = ['{PYTHON}', '{stage.root}/talk.py']\n")
    stage.shell("last", f"echo up; until test -e {go}; do sleep 0.02; done; echo last words; exit 3",
                more='[restart]\npolicy = "no"')  # fmt: skip
    run_until(stage, "talk starting", "last ready", also=Path(stage.layout.run_units, "talk/notify"))
    with trio.fail_after(30):
        while not pid_of(stage, "talk"):
            await trio.sleep(0.01)
    last = pid_of(stage, "last")
    go.touch()
    await wait_gone(last)
    await trio.sleep(0.3)
    async with stage.running() as units:
        await stage.state(units, "talk", "ready")
        assert units.picture("talk").status_text == "heard"
        await stage.state(units, "last", "failed")
        assert [line.text async for line in units.logs("last")] == ["up", "last words"]


def run_until(stage: Stage, *wanted: str, also: Path | None = None) -> None:
    """A daemon of its own, killed once all those lines ("NAME STATE") were seen."""
    import time

    daemon = subprocess.Popen([sys.executable, str(DAEMON), str(stage.root)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    left = set(wanted)
    for line in daemon.stdout:
        left.discard(line.strip())
        if not left:
            break
    while also is not None and not also.exists():
        time.sleep(0.01)
    time.sleep(0.2)
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()


def pid_of(stage: Stage, name: str) -> int:
    pid: int = json.loads(Path(stage.layout.run_units, name, "state.json").read_text())["pid"]
    return pid


# -- other versions ----------------------------------------------------------------------------------------------------


def test_states_of_the_first_version_are_read() -> None:
    found = {path.stem: decode_run_state_untrusted(path.read_bytes()) for path in sorted(OLD.glob("bad20d1-*.json"))}
    assert {name: (run.state, run.phase) for name, run in found.items()} == {
        "bad20d1-bad": ("failed", ""), "bad20d1-once": ("exited", ""), "bad20d1-talk": ("starting", ""),
        "bad20d1-web": ("ready", ""),
    }  # fmt: skip


def test_ours_is_read_by_the_first_version_and_that_of_a_later_one_by_us() -> None:
    run = json.loads(RunState(name="x", boot_id="y", state="ready", reason="z").encode())
    assert run["version"] == 1
    first = json.loads((OLD / "bad20d1-web.json").read_text())
    assert {key: type(run[key]) for key in first} == {key: type(value) for key, value in first.items()}
    later = run | {"version": 2, "shiny": {"new": True}}
    assert decode_run_state_untrusted(json.dumps(later).encode()).name == "x"


@given(st.sampled_from([path.read_text() for path in sorted(OLD.glob("*.json"))]), st.data())
def test_any_damage_is_refused_or_read(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:place] + data.draw(st.text(max_size=3)) + text[place + 1 :]
    with contextlib.suppress(InputError):
        decode_run_state_untrusted(damaged.encode(errors="surrogatepass"))


async def test_units_of_the_first_version_are_adopted_not_restarted(stage: Stage) -> None:
    """As bad20d1 left them at an update: the process runs, the file says so in the old words."""
    children = {}
    for name in ("web", "talk", "once", "bad"):
        old = json.loads((OLD / f"bad20d1-{name}.json").read_text())
        stage.write(name, old["text"])
        old |= {"boot_id": clock.boot_id(), "file": f"{stage.directory}/{name}.toml", "cgroup": ""}
        if old["pid"]:
            environment = {"INVOCATION_ID": old["invocation"], "PATH": "/usr/bin:/bin"}
            child = children[name] = subprocess.Popen(["/bin/sleep", "1000"], env=environment, start_new_session=True)
            stat = process_stat(child.pid)
            assert stat is not None
            old |= {"pid": child.pid, "start_ticks": stat.start_ticks}
        path = Path(stage.layout.run_units, name, "state.json")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(old))
    async with stage.running() as units:
        states = {name: units.picture(name).state for name in ("web", "talk", "once", "bad")}
        assert states == {"web": "ready", "talk": "starting", "once": "exited", "bad": "failed"}
        for name, child in children.items():
            assert units.picture(name).pid == child.pid
            assert not units.picture(name).changed
        os.kill(children["web"].pid, 9)
        await stage.until(lambda: units.picture("web").restarts == 1)
        await stage.state(units, "web", "ready")
    for child in children.values():
        child.returncode = 0  # reaped by the stage


async def test_two_hundred_units_are_adopted_and_none_is_restarted(stage: Stage) -> None:
    names = [f"u{number:03}" for number in range(200)]
    for name in names:
        stage.write(name, '[service]\ncommand = ["sleep", "infinity"]\n[restart]\npolicy = "always"\n')
    run_until(stage, *(f"{name} ready" for name in names))
    before = {name: pid_of(stage, name) for name in names}
    async with stage.running() as units:
        assert {name: units.picture(name).pid for name in names} == before
        assert all(units.picture(name).restarts == 0 for name in names)
        assert not any(data.get("state") == "starting" for _, data in stage.events)
