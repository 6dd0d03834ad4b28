# ruff: noqa: ASYNC110, ASYNC240 (a test may look at real processes and files)
"""Real units on real processes: types, order, restarts, stops, escapes."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import trio

from appliance.errors import InputError, NotFoundError, UnavailableError
from units.stage import PYTHON, Stage, is_alive, kill, wait_gone

NOTIFY = """
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
a = os.environ["NOTIFY_SOCKET"]
s.connect("\\0" + a[1:] if a[0] == "@" else a)
open("{go}", "rb").read(1)
s.send(b"STATUS=warming up\\nREADY=1")
time.sleep(1000)
"""


async def test_simple_is_ready_at_once_and_stops_with_the_daemon(stage: Stage) -> None:
    stage.write("nap", '[service]\ncommand = ["sleep", "infinity"]\n')
    async with stage.running() as units:
        await stage.state(units, "nap", "ready")
        pid = units.picture("nap").pid
        assert pid is not None
        assert units.health() == {"nap": True}
    assert not is_alive(pid)
    assert stage.states("nap") == ["waiting", "starting", "ready", "stopping", "stopped"]


async def test_a_oneshot_that_is_done_counts_as_ready(stage: Stage) -> None:
    stage.shell("once", "echo done; exit 0", service='type = "oneshot"')
    stage.shell("next", "exec sleep infinity", more='[unit]\nrequires = ["once"]\nafter = ["once"]')
    async with stage.running() as units:
        await stage.state(units, "next", "ready")
        assert units.picture("once").state == "exited"
        assert await stage.log(units, "once", "done") == "done"


async def test_exec_waits_for_execve_and_says_what_failed(stage: Stage) -> None:
    stage.write("good", '[service]\ntype = "exec"\ncommand = ["sleep", "infinity"]\n')
    stage.write("bad", '[service]\ntype = "exec"\ncommand = ["/no/such/program"]\n[restart]\npolicy = "no"\n')
    stage.write("lost", '[service]\ncommand = ["true"]\nworking_directory = "/no/where"\n[restart]\npolicy = "no"\n')
    stage.write("who", '[service]\ncommand = ["true"]\nuser = "nobody-at-all"\n[restart]\npolicy = "no"\n')
    async with stage.running() as units:
        await stage.state(units, "good", "ready")
        await stage.state(units, "bad", "failed")
        assert units.picture("bad").reason == "cannot execute /no/such/program: No such file or directory"
        await stage.state(units, "lost", "failed")
        assert "cannot enter directory /no/where: No such file" in units.picture("lost").reason
        await stage.state(units, "who", "failed")
        assert "cannot find user nobody-at-all" in units.picture("who").reason
        with pytest.raises(UnavailableError, match="cannot start bad: cannot execute /no/such/program"):
            await units.start("bad")


async def test_notify_is_ready_when_it_says_so(stage: Stage, tmp_path: Path) -> None:
    import os

    go = tmp_path / "go"
    os.mkfifo(go)
    stage.python("talk", NOTIFY.format(go=go), service='type = "notify"')
    async with stage.running() as units:
        await stage.state(units, "talk", "starting")
        fd = os.open(go, os.O_RDWR)
        os.write(fd, b"x")
        await stage.state(units, "talk", "ready")
        assert units.picture("talk").status_text == "warming up"
        os.close(fd)


async def test_a_notify_unit_that_ends_or_dawdles_before_ready_failed(stage: Stage) -> None:
    stage.shell("mute", "exit 0", service='type = "notify"', more='[restart]\npolicy = "no"')
    stage.shell(
        "slow", "sleep 1000", service='type = "notify"\nstart_timeout = "200ms"', more='[restart]\npolicy = "no"'
    )
    async with stage.running() as units:
        await stage.state(units, "mute", "failed")
        assert "before it said that it is ready" in units.picture("mute").reason
        await stage.state(units, "slow", "failed")
        assert "not ready within 0.2 s" in units.picture("slow").reason


async def test_a_stranger_cannot_say_that_a_unit_is_ready(stage: Stage) -> None:
    import socket

    stage.shell("shy", "echo here; exec sleep 1000", service='type = "notify"')
    async with stage.running() as units:
        await stage.log(units, "shy", "here")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            stranger.connect(f"{stage.layout.run_units}/shy/notify")
            stranger.send(b"READY=1\nSTATUS=lies")
        await units.stop("shy")
        assert "ready" not in stage.states("shy")
        assert units.picture("shy").status_text == ""


async def test_escapes_die_with_the_unit(stage: Stage, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"setsid sh -c 'sleep 10001 & echo $! >> {pids}; exec sleep 10002' & (setsid -f sleep 10003)\n"
    script += "trap '' TERM; echo up; while :; do sleep 1000; done"
    stage.shell("octopus", script, service='stop_timeout = "200ms"')
    async with stage.running() as units:
        await stage.log(units, "octopus", "up")
        pid = units.picture("octopus").pid
        assert pid is not None
        while len(_sleepers()) < 3:
            await trio.sleep(0.01)
        await units.stop("octopus")
        assert not is_alive(pid)
        assert not _sleepers()
        assert "killed by SIGKILL" in units.picture("octopus").reason


async def test_escapes_die_without_cgroups_too(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("appliance.units.units.find_cgroup_root", lambda tag, poller: None)
    await test_escapes_die_with_the_unit(stage, tmp_path)


def _sleepers() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"sleep") and words[1] in (b"10001", b"10002", b"10003") and is_alive(int(entry.name)):
                found.append(int(entry.name))
    return found


async def test_order_up_and_down(stage: Stage, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for name, after in (("a", ""), ("b", "a"), ("c", "b")):
        stage.shell(
            name,
            f"echo +{name} >> {trace}; trap 'echo -{name} >> {trace}; exit 0' TERM; echo up; sleep 1000 & wait",
            more=f'[unit]\nafter = ["{after}"]\nrequires = ["{after}"]' if after else "",
        )
    async with stage.running() as units:
        for name in "abc":
            await stage.log(units, name, "up")
    lines = trace.read_text().split()
    assert lines[-3:] == ["-c", "-b", "-a"]
    order = [name for name, data in stage.events if data.get("state") == "ready"]
    assert order == ["a", "b", "c"]


async def test_requires_failing_keeps_and_takes_down_dependants_with_a_reason(stage: Stage) -> None:
    stage.shell("db", "exit 3", service='type = "oneshot"')
    stage.shell("app", "exec sleep infinity", more='[unit]\nrequires = ["db"]\nafter = ["db"]')
    stage.shell("fan", "exec sleep infinity", more='[unit]\nwants = ["db"]\nafter = ["db"]')
    async with stage.running() as units:
        await stage.state(units, "db", "failed")
        await stage.state(units, "app", "stopped")
        assert units.picture("app").reason == "it requires db, which failed"
        await stage.state(units, "fan", "ready")
        with pytest.raises(UnavailableError, match="cannot start app: it requires db, which failed"):
            await units.start("app")
        assert units.health() == {"db": False, "app": False, "fan": True}


async def test_stop_and_start_by_hand_take_dependants_along_and_are_remembered(stage: Stage) -> None:
    stage.shell("web", "exec sleep infinity")
    stage.shell("hello", "exec sleep infinity", more='[unit]\nrequires = ["web"]\nafter = ["web"]')
    async with stage.running() as units:
        await stage.state(units, "hello", "ready")
        picture = await units.stop("web")
        assert (picture.state, picture.desired) == ("stopped", "down")
        assert units.picture("hello").state == "stopped"
        assert "web, which is stopped" in units.picture("hello").reason
        downs = [name for name, data in stage.events if data.get("state") == "stopped"]
        assert downs == ["hello", "web"]
    async with stage.running() as units:
        assert units.picture("web").desired == "down"
        await units.start("hello")
        assert units.picture("web").state == "ready"
    assert stage.keeper.kept == {}


async def test_restart_restarts_dependants_too(stage: Stage) -> None:
    stage.shell("web", "exec sleep infinity")
    stage.shell("hello", "exec sleep infinity", more='[unit]\nrequires = ["web"]\nafter = ["web"]')
    async with stage.running() as units:
        await stage.state(units, "hello", "ready")
        before = {name: units.picture(name).pid for name in ("web", "hello")}
        await units.restart("web")
        await stage.state(units, "hello", "ready")
        for name, pid in before.items():
            assert units.picture(name).pid != pid


async def test_killed_is_restarted_and_counted(stage: Stage) -> None:
    stage.shell("phoenix", "exec sleep infinity", more='[restart]\npolicy = "always"\ndelay = "0"')
    async with stage.running() as units:
        await stage.state(units, "phoenix", "ready")
        for count in (1, 2, 3):
            pid = units.picture("phoenix").pid
            assert pid is not None
            kill(pid)
            await stage.until(lambda n=count: units.picture("phoenix").restarts == n)  # type: ignore[misc]
            await stage.state(units, "phoenix", "ready")
            assert units.picture("phoenix").pid != pid
        assert units.picture("phoenix").last_exit == "killed by SIGKILL"


async def test_flapping_is_given_up_after_the_burst_and_can_be_reset(stage: Stage) -> None:
    stage.shell(
        "flap", "exit 7", more='[restart]\ndelay = "1ms"\ndelay_max = "2ms"\nlimit = { burst = 4, interval = "1m" }'
    )
    async with stage.running() as units:
        await stage.state(units, "flap", "failed")
        assert stage.states("flap").count("starting") == 4
        assert "exited with code 7; given up after 4 starts within 1m" in units.picture("flap").reason
        await units.reset_failed("flap")
        await stage.until(lambda: stage.states("flap").count("failed") == 2)
        assert stage.states("flap").count("starting") == 8


async def test_on_failure_leaves_a_clean_end_alone(stage: Stage) -> None:
    stage.shell("brief", "exit 0")
    async with stage.running() as units:
        await stage.state(units, "brief", "exited")
        assert (await units.start("brief")).state in ("ready", "exited")
        assert stage.states("brief").count("starting") == 2


async def test_environment_directory_user_and_umask(stage: Stage) -> None:
    stage.shell(
        "who",
        "echo $COLOUR; pwd; id -u; id -g; id -G; umask; echo $HOME; "
        "env | cut -d= -f1 | sort | tr '\\n' ' '; echo; exec sleep 1000",
        service='environment = { COLOUR = "blue" }\nworking_directory = "/usr"\nuser = "daemon"\numask = "077"',
    )
    async with stage.running() as units:
        await stage.log(units, "who", "USER")
        lines = [line.text async for line in units.logs("who")]
        assert lines[:4] == ["blue", "/usr", "1", "1"]
        assert lines[5:7] == ["0077", "/usr/sbin"]
        assert set(lines[7].split()) <= {
            "COLOUR", "HOME", "INVOCATION_ID", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL", "USER", "_",
        }  # fmt: skip


async def test_unknown_names_and_refused_units(stage: Stage) -> None:
    stage.write("sick", "[servic]\n")
    stage.write("left", '[unit]\nafter = ["right"]\n[service]\ncommand = ["true"]\n')
    stage.write("right", '[unit]\nafter = ["left"]\n[service]\ncommand = ["true"]\n')
    stage.write("lonely", '[unit]\nrequires = ["nobody"]\n[service]\ncommand = ["true"]\n')
    stage.write("well", '[service]\ncommand = ["sleep", "infinity"]\n')
    async with stage.running() as units:
        await stage.state(units, "well", "ready")
        with pytest.raises(NotFoundError):
            units.picture("nobody")
        with pytest.raises(InputError, match="file is not valid"):
            units.picture("sick")
        with pytest.raises(InputError, match="the order has a cycle: left after right after left"):
            await units.start("left")
        with pytest.raises(InputError, match="requires nobody, which does not exist"):
            await units.start("lonely")
        assert units.picture("right").state == "stopped"
        found = "\n".join(map(str, units.problems()))
        assert "left.toml:2:1: unit.after: left cannot start: the order has a cycle" in found
        assert "lonely.toml:2:1: unit.requires: lonely cannot start: it requires nobody" in found
        assert "sick.toml:1:2: servic: unknown key" in found


async def test_without_a_store_units_run_and_say_what_they_cannot_keep(stage: Stage) -> None:
    stage.keeper.down = True
    stage.shell("web", "exec sleep infinity")
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        await units.stop("web")
        assert units.picture("web").state == "stopped"
        assert any("cannot remember that web was stopped" in one.message for one in units.problems())


async def test_the_health_check_restarts_what_is_ill(stage: Stage, tmp_path: Path) -> None:
    flag = tmp_path / "ill"
    stage.shell(
        "weak",
        "exec sleep infinity",
        more=f'[health]\ncommand = ["/bin/sh", "-c", "! test -e {flag}"]\ninterval = "100ms"\nthreshold = 2\n'
        '[restart]\ndelay = "10ms"',
    )
    async with stage.running() as units:
        await stage.until(lambda: units.picture("weak").health == "healthy")
        assert units.health() == {"weak": True}
        pid = units.picture("weak").pid
        assert pid is not None
        flag.touch()
        await wait_gone(pid)
        flag.unlink()
        await stage.until(lambda: units.picture("weak").health == "healthy" and units.picture("weak").pid != pid)
        assert any("unhealthy, 2 times in a row" in str(data.get("reason")) for _, data in stage.events)


async def test_a_server_that_takes_a_moment_to_listen_is_healthy_long_before_the_interval_is_over(stage: Stage) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = (
        "import time, http.server as h\ntime.sleep(0.6)\n"
        f'h.HTTPServer(("127.0.0.1", {port}), h.SimpleHTTPRequestHandler).serve_forever()'
    )
    for name, check in (("get", f'http = "http://127.0.0.1:{port}/"'), ("connect", f'tcp = "127.0.0.1:{port}"')):
        stage.shell(name, "exec sleep infinity", more=f'[health]\n{check}\ninterval = "30s"\n')
    stage.python("server", serve)
    async with stage.running() as units:
        with trio.fail_after(25):  # less than the interval
            for name in ("get", "connect"):
                await stage.until(lambda name=name: units.picture(name).health == "healthy")  # type: ignore[misc]
        assert not any(data.get("healthy") is False for _, data in stage.events)


async def test_a_unit_file_linked_to_dev_null_is_masked(stage: Stage) -> None:
    stage.shell("web", "exec sleep infinity")
    (stage.directory / "gone.toml").symlink_to("/dev/null")
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        assert [picture.name for picture in units.pictures()] == ["web"]
        assert not units.problems()


def test_python_of_the_test_exists() -> None:
    assert Path(PYTHON).exists()


async def test_a_unit_comes_back_after_its_cgroup_was_killed_from_outside(stage: Stage) -> None:
    stage.shell("phoenix", "echo up $$; exec sleep infinity", more='[restart]\npolicy = "always"\ndelay = "0"')
    async with stage.running() as units:
        for count in (1, 2, 3):
            await stage.state(units, "phoenix", "ready")
            await stage.log(units, "phoenix", f"up {units.picture('phoenix').pid}")
            run = json.loads(Path(stage.layout.run_units, "phoenix/state.json").read_text())
            if not run["cgroup"]:
                pytest.skip("no cgroups here")
            Path(run["cgroup"], "cgroup.kill").write_text("1")
            await stage.until(lambda n=count: units.picture("phoenix").restarts == n)  # type: ignore[misc]
        await stage.state(units, "phoenix", "ready")
        await stage.log(units, "phoenix", f"up {units.picture('phoenix').pid}")
        assert units.picture("phoenix").restarts == 3


async def test_a_target_is_up_when_what_it_requires_is_and_takes_its_followers_along(stage: Stage) -> None:
    stage.shell("web", "exec sleep infinity")
    stage.write("multi-user", '[unit]\nrequires = ["web"]\nafter = ["web"]\n')
    stage.shell("last", "exec sleep infinity", more='[unit]\nrequires = ["multi-user"]\nafter = ["multi-user"]')
    async with stage.running() as units:
        await stage.state(units, "last", "ready")
        assert (units.picture("multi-user").type, units.picture("multi-user").state) == ("target", "ready")
        await units.stop("multi-user")
        assert [units.picture(name).state for name in ("web", "multi-user", "last")] == ["ready", "stopped", "stopped"]
        await units.start("last")
        order = [name for name, data in stage.events if data.get("state") == "ready"]
        assert order == ["web", "multi-user", "last", "multi-user", "last"]
    assert units.picture("multi-user").state == "stopped"


async def test_a_name_that_is_nearly_one_is_guessed(stage: Stage) -> None:
    stage.shell("web", "sleep 1h")
    async with stage.running() as units:
        with pytest.raises(NotFoundError, match='did you mean "web"'):
            await units.start("wbe")


async def test_what_goes_wrong_again_and_again_is_told_once(stage: Stage) -> None:
    stage.write("web", "[service]\ncommand = ['true']\ntype = 'oneshot'\n[timer]\nevery = '20ms'\n")
    async with stage.running() as units:
        await units.enable("mask", ["web"], now=False)

        def said() -> list[str]:
            return [str(data["trouble"]) for _, data in stage.events if "trouble" in data]

        await stage.until(lambda: len(said()) >= 3)
        told = said()
        assert set(told) == {"cannot start web: it is masked; see appliance unit unmask"}
        assert [one.message for one in units.problems() if one.message in told] == told[:1]
