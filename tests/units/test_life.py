# ruff: noqa: ASYNC110, ASYNC240 (a test may look at real processes and files)
"""Every type of unit, the commands around it, its signals and timeouts, by real processes; systemd is the measure."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from appliance.errors import InputError, UnavailableError
from units.stage import Stage, is_alive, kill, wait_gone

NO_RESTART = '[restart]\npolicy = "no"'


async def said(stage: Stage, path: Path, *lines: str) -> None:
    """Until the file holds exactly those lines."""
    with trio.fail_after(40):
        while (path.read_text().split("\n")[:-1] if path.exists() else []) != list(lines):
            await trio.sleep(0.01)


async def test_all_commands_in_their_order_with_what_they_are_told(stage: Stage, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def line(word: str) -> str:
        return f"['sh', '-c', 'echo {word} >> {log}']"

    told = "$SERVICE_RESULT $EXIT_CODE $EXIT_STATUS"
    stage.shell(
        "web",
        f"trap 'exit 7' TERM; echo main >> {log}; echo up; while :; do sleep 0.05; done",
        service=f"condition = {line('condition')}\n"
        f"pre_start = [{line('first')}, {{ command = ['false'], ignore_failure = true }}, {line('second')}]\n"
        f"post_start = {line('after $MAINPID')}\n"
        f"reload = {line('reload $MAINPID')}\n"
        f"stop = {line(f'stop $MAINPID {told}')}\n"
        f"post_stop = {line(f'gone {told}')}\n",
    )
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        await stage.log(units, "web", "up")
        pid = units.picture("web").pid
        assert (await units.reload_unit("web")).state == "ready"
        assert stage.states("web")[-3:] == ["ready", "reloading", "ready"]
        assert units.picture("web").pid == pid
        await units.stop("web")
    lines = log.read_text().split("\n")[:-1]
    assert sorted(lines[3:5]) == sorted(["main", f"after {pid}"])  # simple: it is up once it is forked
    assert [*lines[:3], *lines[5:]] == [
        "condition", "first", "second", f"reload {pid}", f"stop {pid} success", "gone exit-code exited 7",
    ]  # fmt: skip


async def test_a_condition_that_does_not_hold_is_no_failure_and_255_is_one(stage: Stage, tmp_path: Path) -> None:
    for name, code in (("skipped", 1), ("broken", 255)):
        stage.shell(
            name, f"touch {tmp_path}/{name}", service=f"condition = ['sh', '-c', 'exit {code}']", more=NO_RESTART
        )
    stage.shell("next", "exec sleep 1000", more='[unit]\nrequires = ["skipped"]\nafter = ["skipped"]')
    async with stage.running() as units:
        await stage.state(units, "skipped", "exited")
        assert "its condition does not hold: sh exited with code 1" in units.picture("skipped").reason
        await stage.state(units, "broken", "failed")
        assert units.picture("broken").reason == "condition: sh exited with code 255"
        await stage.state(units, "next", "ready")
    assert not list(tmp_path.glob("skipped")) + list(tmp_path.glob("broken"))


async def test_a_failed_pre_start_runs_post_stop_only_and_is_tried_again(stage: Stage, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    stage.shell(
        "web",
        f"echo main >> {log}; exec sleep 1000",
        service=f"pre_start = ['test', '-e', '{go}']\nstop = ['sh', '-c', 'echo stop >> {log}']\n"
        f"post_stop = ['sh', '-c', 'echo $SERVICE_RESULT >> {log}; touch {go}']",
        more='[restart]\ndelay = "1ms"',
    )
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        await said(stage, log, "exit-code", "main")
        assert units.picture("web").restarts == 1


async def test_a_failed_post_start_takes_it_down(stage: Stage) -> None:
    stage.shell("web", "exec sleep 1000", service="post_start = 'false'", more=NO_RESTART)
    async with stage.running() as units:
        await stage.state(units, "web", "failed")
        assert units.picture("web").reason == "post_start: false exited with code 1"
        assert "ready" not in stage.states("web")


async def test_start_and_stop_commands_have_their_timeouts(stage: Stage) -> None:
    stage.shell("late", "exec sleep 1000", service="pre_start = 'sleep 1000'\nstart_timeout = '100ms'", more=NO_RESTART)
    stage.shell("slow", "exec sleep 1000", service="stop = 'sleep 1000'\nstop_timeout = '100ms'")
    async with stage.running() as units:
        await stage.state(units, "late", "failed")
        assert units.picture("late").reason == "not ready within 0.1 s (service.start_timeout): pre_start runs"
        assert units.picture("late").exit.result == "timeout"
        await stage.state(units, "slow", "ready")
        pid = units.picture("slow").pid
        assert pid is not None
        await units.stop("slow")
        assert not is_alive(pid)
        assert "stop: not done within 0.1 s" in units.picture("slow").reason


async def test_a_oneshot_of_several_commands_that_remains(stage: Stage, tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = ", ".join(f"['sh', '-c', 'echo {word} >> {log}']" for word in ("one", "two"))
    stage.write(
        "net",
        f"[service]\ntype = 'oneshot'\nremain_after_exit = true\ncommands = [{lines}, "
        f"{{ command = ['false'], ignore_failure = true }}]\nstop = ['sh', '-c', 'echo down >> {log}']\n",
    )
    stage.write("bad", "[service]\ntype = 'oneshot'\ncommands = [['true'], ['false'], ['touch', '/never']]\n")
    async with stage.running() as units:
        await stage.state(units, "net", "exited")
        await said(stage, log, "one", "two")
        assert units.picture("net").phase == "remain"
        await units.start("net")
        await said(stage, log, "one", "two")
        await stage.state(units, "bad", "failed")
        assert units.picture("bad").last_exit == "exited with code 1"
        await units.stop("net")
        assert units.picture("net").state == "stopped"
        await said(stage, log, "one", "two", "down")
        await units.start("net")
    await said(stage, log, "one", "two", "down", "one", "two", "down")


async def test_a_service_that_remains_after_its_exit(stage: Stage) -> None:
    stage.shell("web", "(trap '' HUP; exec sleep 10004) & exit 0", service="remain_after_exit = true")
    async with stage.running() as units:
        await stage.state(units, "web", "exited")
        assert stage.states("web") == ["waiting", "starting", "ready", "exited"]


# -- forking ------------------------------------------------------------------------------------------------------


async def test_forking_with_a_pid_file_that_is_written_late(stage: Stage, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text("1\n")  # an old one, of a process that is none of it
    script = f"(sleep 10005 & echo $! > {tmp_path}/real; sleep 0.3; cp {tmp_path}/real {pid_file}; wait) & exit 0"
    stage.shell("d", script, service=f"type = 'forking'\npid_file = '{pid_file}'", more='[restart]\ndelay = "1ms"')
    async with stage.running() as units:
        await stage.state(units, "d", "ready")
        pid = units.picture("d").pid
        assert pid == int(pid_file.read_text())
        kill(pid)
        await stage.until(lambda: units.picture("d").state == "ready" and units.picture("d").pid != pid)
        assert "killed by SIGKILL" in [data.get("reason") for name, data in stage.events if name == "d"]


async def test_forking_by_guess_of_the_only_process_that_is_left(stage: Stage, tmp_path: Path) -> None:
    stage.shell("d", "sleep 10006 & exit 0", service="type = 'forking'", more=NO_RESTART)
    async with stage.running() as units:
        await stage.state(units, "d", "ready")
        pid = units.picture("d").pid
        assert pid is not None
        await stage.until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0010006\0")  # after its fork
        os.kill(pid, signal.SIGTERM)
        await stage.state(units, "d", "exited")  # a clean signal


async def test_forking_without_a_main_process_lives_as_long_as_anything_of_it(stage: Stage) -> None:
    stage.shell("d", "sleep 10007 & sleep 10008 & exit 0", service="type = 'forking'", more=NO_RESTART)
    async with stage.running() as units:
        await stage.state(units, "d", "ready")
        assert units.picture("d").pid is None
        await stage.until(lambda: len(sleepers("10007", "10008")) == 2)  # they have forked, and are not yet sleep
        left = sleepers("10007", "10008")
        kill(left[0])
        await wait_gone(left[0])
        assert units.picture("d").state == "ready"
        kill(left[1])
        await stage.state(units, "d", "exited")
        await units.start("d")
        await units.stop("d")
        assert not sleepers("10007", "10008")


async def test_forking_that_leaves_nothing_or_fails(stage: Stage) -> None:
    stage.shell("none", "exit 0", service="type = 'forking'", more=NO_RESTART)
    stage.shell("bad", "exit 3", service="type = 'forking'", more=NO_RESTART)
    async with stage.running() as units:
        await stage.state(units, "none", "failed")
        assert units.picture("none").exit.result == "protocol"
        await stage.state(units, "bad", "failed")
        assert (units.picture("bad").exit.result, units.picture("bad").exit.code) == ("exit-code", 3)


def sleepers(*seconds: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == b"sleep" and words[1].decode() in seconds and is_alive(int(entry.name)):
                found.append(int(entry.name))
    return sorted(found)


# -- going down ---------------------------------------------------------------------------------------------------


async def test_kill_modes(stage: Stage, tmp_path: Path) -> None:
    """A main process with a child; both write what signal they got."""
    script = (
        f"echo $$ > {tmp_path}/NAME.main; "
        f"(trap 'echo child TERM >> {tmp_path}/NAME; exit' TERM; echo $$ ready; while :; do sleep 0.02; done) & "
        f"trap 'echo main TERM >> {tmp_path}/NAME; exit' TERM; while :; do sleep 0.02; done"
    )
    modes = {"control-group": "child TERM", "mixed": "", "process": "", "none": ""}
    for mode in modes:
        stage.shell(mode, script.replace("NAME", mode), service=f"kill_mode = '{mode}'")
    async with stage.running() as units:
        for mode, of_child in modes.items():
            await stage.log(units, mode, "ready")
            pid = units.picture(mode).pid
            assert pid is not None
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            group = [pid, *map(int, children)]
            await units.stop(mode)
            got = (tmp_path / mode).read_text() if (tmp_path / mode).exists() else ""
            assert ("main TERM" in got) is (mode != "none"), mode
            assert ("child TERM" in got) is bool(of_child), mode
            alive = [one for one in group if is_alive(one)]
            assert bool(alive) is (mode in ("process", "none")), mode
            for one in alive:
                kill(one)


async def test_signals_of_the_stop(stage: Stage) -> None:
    stage.shell("quit", "trap 'echo bye; exit 0' QUIT; echo up; while :; do sleep 0.02; done",
                service="kill_signal = 'SIGQUIT'")  # fmt: skip
    stage.shell("deaf", "trap '' TERM; trap 'echo last; exit 0' USR1; echo up; while :; do sleep 0.02; done",
                service="final_kill_signal = 'USR1'\nstop_timeout = '100ms'")  # fmt: skip
    stage.shell("spared", "trap '' TERM; echo up $$; while :; do sleep 0.02; done",
                service="send_sigkill = false\nstop_timeout = '100ms'")  # fmt: skip
    stage.shell("hup", "trap 'echo hup; exit 0' HUP; trap '' TERM; echo up; while :; do sleep 0.02; done",
                service="send_sighup = true")  # fmt: skip
    async with stage.running() as units:
        for name in ("quit", "deaf", "spared", "hup"):
            await stage.log(units, name, "up")
        spared = units.picture("spared").pid
        assert spared is not None
        for name in ("quit", "deaf", "spared", "hup"):
            await units.stop(name)
        for name, word in (("quit", "bye"), ("deaf", "last"), ("hup", "hup")):
            assert await stage.log(units, name, word) == word
        assert is_alive(spared)
        assert "not done within 0.1 s" in units.picture("spared").reason
        kill(spared)


@pytest.mark.parametrize(
    ("end", "keys", "state"),
    [
        ("kill -TERM $$", "", "exited"),
        ("kill -KILL $$", "", "failed"),
        ("exit 42", "success_exit_codes = [42]", "exited"),
        ("kill -USR1 $$", "success_exit_codes = ['SIGUSR1']", "exited"),
        ("exit 1", "", "failed"),
    ],
)
async def test_what_counts_as_an_end_that_is_well(stage: Stage, end: str, keys: str, state: str) -> None:
    stage.shell("it", end, service=keys, more=NO_RESTART)
    async with stage.running() as units:
        await stage.state(units, "it", state)


async def test_codes_that_force_or_prevent_a_restart(stage: Stage, tmp_path: Path) -> None:
    stage.shell("over", "exit 9", service="restart_prevent_exit_codes = [9]", more='[restart]\npolicy = "always"')
    again = f"test -e {tmp_path}/again && exec sleep 1000; touch {tmp_path}/again; exit 8"
    stage.shell("again", again, service="restart_force_exit_codes = [8]", more=NO_RESTART)
    async with stage.running() as units:
        await stage.state(units, "over", "failed")
        await stage.until(lambda: units.picture("again").restarts == 1 and units.picture("again").state == "ready")


async def test_it_may_run_only_so_long(stage: Stage) -> None:
    stage.shell("short", "exec sleep 1000", service="runtime_max = '150ms'", more=NO_RESTART)
    async with stage.running() as units:
        await stage.state(units, "short", "failed")
        assert units.picture("short").exit.result == "timeout"
        assert "it ran for 0.15 s" in units.picture("short").reason


# -- reload -------------------------------------------------------------------------------------------------------


async def test_reload_by_signal_by_command_and_what_goes_wrong(stage: Stage) -> None:
    loop = "trap 'echo again' HUP; echo up; while :; do sleep 0.02; done"
    stage.shell("signal", loop, service="reload_signal = 'SIGHUP'")
    stage.shell("command", loop, service="reload = 'kill -HUP $MAINPID'")
    stage.shell("bad", loop, service="reload = 'false'")
    stage.shell("slow", loop, service="reload = 'sleep 1000'\nstart_timeout = '150ms'")
    stage.shell("none", loop)
    async with stage.running() as units:
        for name in ("signal", "command", "bad", "slow", "none"):
            await stage.log(units, name, "up")
        for name in ("signal", "command"):
            await units.reload_unit(name)
            assert await stage.log(units, name, "again") == "again"
        with pytest.raises(UnavailableError, match="cannot reload bad: reload: false exited with code 1"):
            await units.reload_unit("bad")
        with pytest.raises(UnavailableError, match=r"cannot reload slow: reload: not done within 0.15 s"):
            await units.reload_unit("slow")
        with pytest.raises(InputError, match=r"cannot reload none: its file says neither service.reload nor"):
            await units.reload_unit("none")
        for name in ("bad", "slow"):
            assert units.picture(name).state == "ready", "a failed reload changes nothing"
        await units.stop("bad")
        with pytest.raises(InputError, match="cannot reload bad: it is stopped"):
            await units.reload_unit("bad")


# -- surroundings -------------------------------------------------------------------------------------------------


async def test_directories_environment_files_and_streams(stage: Stage, tmp_path: Path) -> None:
    variables = tmp_path / "env"
    variables.write_text("# comment\nA=1\nB='two words'\nCOLOUR=red\nLONG=a\\\nb\n")
    stage.shell(
        "web",
        "echo $RUNTIME_DIRECTORY; echo $STATE_DIRECTORY; echo $A $B $COLOUR $LONG; cat; echo error >&2; id -u; "
        "touch $RUNTIME_DIRECTORY/mine; echo end; exec sleep 1000",
        service=f"environment_file = ['{variables}', '-/no/such/file']\nenvironment = {{ COLOUR = 'blue' }}\n"
        "runtime_directory = ['web']\nruntime_directory_mode = '0750'\nstate_directory = ['deep/web']\n"
        "user = 'daemon'\n"
        f"standard_input = 'file:{tmp_path}/in'\nstandard_error = 'append:{tmp_path}/err'\n"
        "pre_start = { command = ['sh', '-c', 'id -u > ROOT'], privileged = true }\n".replace("ROOT", f"{tmp_path}/as"),
    )
    (tmp_path / "in").write_text("typed\n")
    (tmp_path / "err").write_text("before\n")
    stage.shell("off", "echo nobody reads this; exec sleep 1000", service=f"standard_output = 'file:{tmp_path}/out'")
    run, state = stage.root / "run/web", stage.root / "var/lib/deep/web"
    tmp_path.chmod(0o755)
    for above in tmp_path.parents:
        if above.owner() == "root" and str(above).startswith("/tmp/"):
            above.chmod(0o755)
    async with stage.running() as units:
        await stage.log(units, "web", "end")
        lines = [line.text async for line in units.logs("web")]
        assert lines == [str(run), str(state), "1 two words red ab", "typed", "1", "end"]
        assert (tmp_path / "as").read_text() == "0\n"
        assert (tmp_path / "err").read_text() == "before\nerror\n"
        assert (run.stat().st_mode & 0o777, run.owner(), state.owner()) == (0o750, "daemon", "daemon")
        await units.stop("web")
        assert not run.exists()
        assert state.exists()
        await stage.state(units, "off", "ready")
        with trio.fail_after(30):
            while "nobody" not in (tmp_path / "out").read_text():
                await trio.sleep(0.01)
        assert [line.text async for line in units.logs("off")] == []


async def test_a_link_in_a_directory_is_not_followed(stage: Stage, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (stage.root / "var/lib").mkdir(parents=True, exist_ok=True)
    (stage.root / "var/lib/web").symlink_to(target)
    stage.shell("web", "exec sleep 1000", service="state_directory = ['web/data']\nuser = 'daemon'", more=NO_RESTART)
    async with stage.running() as units:
        await stage.state(units, "web", "failed")
        assert "cannot make directory" in units.picture("web").reason
    assert not list(target.iterdir())
    assert target.owner() == "root"


async def test_a_flapping_unit_is_named_with_how_it_ended(stage: Stage) -> None:
    stage.shell("flap", "echo oh no; kill -SEGV $$", more='[restart]\ndelay = "1ms"\ndelay_max = "1ms"')
    stage.shell("well", "exec sleep 1000")
    async with stage.running() as units:
        await stage.until(lambda: units.picture("flap").restarts >= 3)
        picture = units.picture("flap")
        assert picture.flapping
        assert picture.restarts_lately >= 3
        assert picture.exit.signal == "SIGSEGV"
        assert set(picture.last_lines) == {"oh no"}
        assert picture.exit.result in ("signal", "core-dump")
        assert not units.picture("well").flapping
