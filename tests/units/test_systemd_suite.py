# ruff: noqa: ASYNC110, ASYNC240 (a test may look at real processes and files)
"""What systemd's own integration tests (test/units/testsuite-NN.sh) hold it to, where it makes sense on one host."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from appliance.errors import ConflictError, InputError, UnavailableError
from appliance.host.listening import open_endpoint, remove_endpoint
from appliance.units import graph_of, read_unit_files
from appliance.units.activation import endpoint_of
from units.stage import PYTHON, Stage


def write(stage: Stage, **files: str) -> None:
    """``a_service="..."``: the file ``a.service``."""
    for name, text in files.items():
        stem, _, kind = name.rpartition("_")
        (stage.directory / f"{stem.replace('_', '-')}.{kind}").write_text(textwrap.dedent(text))


async def said(path: Path) -> str:
    with trio.fail_after(40):
        while not path.exists() or not path.read_text().endswith("\n"):
            await trio.sleep(0.01)
    return path.read_text()


async def test_07_and_63_what_was_called_is_told_by_whom(stage: Stage, tmp_path: Path) -> None:
    x, done = f"{tmp_path}/%p.x", f"{tmp_path}/%p"
    tell = f"/bin/sh -c 'env | grep -E \"TRIGGER|MONITOR\" | sort > {x}; echo >> {x}; mv {x} {done}'"
    write(
        stage,
        my_service=f"[Service]\nType=oneshot\nExecStartPre={tell}\nExecStart=/bin/true\n",
        my_timer="[Timer]\nOnActiveSec=10ms\n",
        glob_service=f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={tell}\n",
        glob_path=f"[Path]\nPathExistsGlob={tmp_path}/found-*\n",
        bad_service="[Unit]\nOnFailure=help.service\n[Service]\nType=exec\nExecStart=/bin/sh -c 'exit 7'\n",
        help_service=f"[Service]\nType=oneshot\nExecStart={tell}\n",
        good_service="[Unit]\nOnSuccess=next.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
        next_service=f"[Service]\nType=oneshot\nExecStart={tell}\n",
    )
    async with stage.running() as units:
        timer = dict(line.split("=", 1) for line in (await said(tmp_path / "my")).split())
        assert timer.keys() == {"TRIGGER_UNIT", "TRIGGER_TIMER_REALTIME_USEC", "TRIGGER_TIMER_MONOTONIC_USEC"}
        assert timer["TRIGGER_UNIT"] == "my.timer"
        assert min(int(timer[key]) for key in timer if key.endswith("USEC")) > 1_000_000
        (tmp_path / "found-foo").touch()
        assert (await said(tmp_path / "glob")).split() == [
            f"TRIGGER_PATH={tmp_path}/found-foo", "TRIGGER_UNIT=glob.path",
        ]  # fmt: skip
        helped = dict(line.split("=", 1) for line in (await said(tmp_path / "help")).split())
        assert len(helped.pop("MONITOR_INVOCATION_ID")) == 32
        assert helped == {
            "MONITOR_UNIT": "bad.service", "MONITOR_SERVICE_RESULT": "exit-code", "MONITOR_EXIT_CODE": "exited",
            "MONITOR_EXIT_STATUS": "7",
        }  # fmt: skip
        assert "MONITOR_SERVICE_RESULT=success\nMONITOR_UNIT=good.service" in await said(tmp_path / "next")
        await stage.state(units, "my", "stopped")  # or the next start would be that one
        (tmp_path / "my").unlink()
        await units.start("my")  # by hand: nobody triggered it
        assert await said(tmp_path / "my") == "\n"


async def test_57_upheld_ones_come_back_and_unneeded_ones_go(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write(
        stage,
        success_service="[Unit]\nOnSuccess=fail.service\n[Service]\nExecStart=/bin/true\n",
        fail_service="[Unit]\nOnFailure=uphold.service\n[Service]\nExecStart=/bin/false\n",
        uphold_service="[Unit]\nUpholds=short.service\n[Service]\nExecStart=/bin/sleep 1d\n",
        short_service=f"""\
            [Unit]
            StopWhenUnneeded=yes
            [Service]
            RestartSec=10ms
            ExecStart=/bin/sh -c 'echo x >> {tmp_path}/count; test $(wc -l < {tmp_path}/count) -lt 4 || exec sleep 1d'
        """,
        retry_uphold_service="[Unit]\nUpholds=retry-upheld.service\n[Service]\nExecStart=/bin/sleep 1d\n",
        retry_upheld_service="""\
            [Unit]
            Requires=retry-fail.service
            After=retry-fail.service
            [Service]
            Type=oneshot
            RemainAfterExit=yes
            ExecStart=/bin/true
        """,
        retry_fail_service=f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/test -f {gate}\n",
    )
    async with stage.running() as units:
        await stage.until(lambda: (tmp_path / "count").exists() and len((tmp_path / "count").read_text()) == 8)
        await stage.state(units, "short", "ready")
        await units.stop("uphold")
        await stage.state(units, "short", "stopped")
        await stage.state(units, "retry-fail", "failed")
        assert units.picture("retry-upheld").state in ("stopped", "waiting")  # it is tried again and again
        gate.touch()
        await stage.state(units, "retry-upheld", "exited")
        await units.stop("retry-upheld")  # a person's word lasts
        await trio.sleep(0.3)
        assert units.picture("retry-upheld").state == "stopped"


async def test_57_a_stop_is_propagated_and_so_is_a_reload(stage: Stage, tmp_path: Path) -> None:
    write(
        stage,
        one_service=f"""\
            [Unit]
            Wants=two.service
            After=two.service
            StopPropagatedFrom=two.service
            ReloadPropagatedFrom=two.service
            [Service]
            ExecStart=/bin/sleep 1d
            ExecReload=/bin/touch {tmp_path}/reloaded
            ExecStopPost=/bin/touch {tmp_path}/down
        """,
        two_service=f"""\
            [Service]
            ExecStart=/bin/sh -c 'while ! test -e {tmp_path}/end; do sleep 0.01; done'
            ExecReload=/bin/true
        """,
        three_service="[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=/bin/sleep 1d\n",
        four_service="[Unit]\nRefuseManualStart=yes\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
        five_service="[Unit]\nPropagatesStopTo=six.service\n[Service]\nExecStart=/bin/sleep 1d\n",
        six_service="[Service]\nExecStart=/bin/sleep 1d\n",
    )
    async with stage.running() as units:
        for name in ("one", "two", "three", "five", "six"):
            await stage.state(units, name, "ready")
        await units.reload_unit("two")
        await stage.until((tmp_path / "reloaded").exists)
        (tmp_path / "end").touch()
        await stage.state(units, "one", "stopped")
        assert units.picture("one").reason == "it is stopped with two"
        assert (tmp_path / "down").exists()
        await units.start("one", wait=False)  # brings two along, which ends at once, and takes it down again
        await stage.until(lambda: units.picture("one").state == "stopped" and units.picture("two").state == "exited")
        for verb, name in (("stop", "three"), ("restart", "three"), ("start", "four"), ("restart", "four")):
            with pytest.raises(ConflictError, match=rf"cannot {verb} {name}: its file says unit.refuse_manual_st"):
                await getattr(units, verb)(name)
        await units.restart("five")
        assert units.picture("six").state == "ready"  # a restart is no stop
        await units.stop("five")
        await stage.state(units, "six", "stopped")
        assert [step.unit for step in (await units.transact("stop", ["five"], dry_run=True)).steps] == []


async def test_sockets_come_before_the_service_that_they_start(stage: Stage, tmp_path: Path) -> None:
    write(
        stage,
        a_service=f"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo $LISTEN_FDNAMES > {tmp_path}/said'\n",
        a_socket=f"[Socket]\nListenStream={tmp_path}/sock\nFileDescriptorName=first\n[Install]\nWantedBy=sockets.target\n",
        b_target="[Unit]\nWants=a.service a.socket\n",
    )
    async with stage.running() as units:
        plan = await units.transact("restart", ["b.target"], dry_run=True)
        assert [step.unit for step in plan.steps if step.action == "start"][:2] == ["a.socket", "a"]
        assert await said(tmp_path / "said") == "first\n"


async def test_26_and_38_signals_a_break_and_a_restart_if_it_is_up(stage: Stage, tmp_path: Path) -> None:
    write(
        stage,
        a_service=f"""\
            [Service]
            Type=notify
            NotifyAccess=all
            ExecStart=/bin/bash -c 'trap "echo x >> {tmp_path}/usr1" USR1; systemd-notify --ready; \\
                while :; do sleep 0.05; done'
        """,
        b_service="[Service]\nExecStart=/bin/sleep 1d\nExecReload=/bin/true\n",
    )
    async with stage.running() as units:
        await stage.state(units, "a", "ready")
        await units.kill("a", "SIGUSR1", whom="main")
        assert await said(tmp_path / "usr1") == "x\n"
        for signal, whom, wrong in (
            ("SIGFOO", "all", "SIGFOO"),
            ("TERM", "everyone", "everyone"),
            ("TERM", "control", "no control process"),
        ):
            with pytest.raises(InputError, match=wrong):
                await units.kill("a", signal, whom=whom)
        before = units.picture("b").pid
        assert (await units.reload_or_restart("b")).pid == before
        assert (await units.try_restart("b")).pid != before
        assert (await units.reload_or_restart("a")).state == "ready"  # it has no way to reload
        await units.stop("b")
        assert (await units.try_restart("b")).state == "stopped"
        with pytest.raises(InputError, match="no process"):
            await units.kill("b")
        assert (await units.reload_or_restart("b")).state == "ready"
        if units.picture("a").tracking != "cgroup":
            return  # no cgroup v2 here: nothing can be frozen
        assert (await units.freeze("a")).frozen
        await units.kill("a", "SIGUSR1", whom="main")
        await trio.sleep(0.2)
        assert (tmp_path / "usr1").read_text() == "x\n"
        assert not (await units.thaw("a")).frozen
        await stage.until(lambda: (tmp_path / "usr1").read_text() == "x\nx\n")
        await units.freeze("a")
        assert (await units.restart("a")).state == "ready"
        await units.freeze("a")
    async with stage.running() as units:
        assert not units.picture("a").frozen  # it was stopped in order, and did not hang


async def test_38_what_is_frozen_stays_so_over_our_death(stage: Stage) -> None:
    write(stage, a_service="[Service]\nExecStart=/bin/sleep 1d\n")
    async with stage.running(detach=True) as units:
        await stage.state(units, "a", "ready")
        if units.picture("a").tracking != "cgroup":
            await units.stop("a")
            return
        await units.freeze("a")
    async with stage.running() as units:
        assert units.picture("a").frozen
        assert (await units.stop("a")).state == "stopped"


async def test_33_directories_are_cleaned_once_it_is_down(stage: Stage) -> None:
    kinds = {"runtime": "run", "state": "var/lib", "cache": "var/cache", "logs": "var/log", "configuration": "etc"}
    keys = "".join(f"{kind.title()}Directory=test-service\n" for kind in kinds)
    write(stage, a_service=f"[Service]\nType=exec\nRuntimeDirectoryPreserve=yes\nExecStart=/bin/sleep 1d\n{keys}")

    def there() -> set[str]:
        return {kind for kind, above in kinds.items() if (stage.root / above / "test-service").is_dir()}

    async with stage.running() as units:
        await stage.state(units, "a", "ready")
        assert there() == set(kinds)
        with pytest.raises(ConflictError, match="cannot clean a: it is ready; stop it first"):
            await units.clean("a")
        await units.stop("a")
        assert there() == set(kinds)
        await units.clean("a", ["configuration"])
        assert there() == {"runtime", "state", "cache", "logs"}
        assert await units.clean("a") == tuple(
            f"{stage.root}/{kinds[kind]}/test-service" for kind in ("runtime", "cache")
        )
        assert there() == {"state", "logs"}
        with pytest.raises(InputError, match="found 'fdstore'"):
            await units.clean("a", ["fdstore"])
        await units.clean("a", ["all"])
        assert there() == set()


async def test_59_one_that_ends_while_it_reloads_has_failed(stage: Stage) -> None:
    script = "/bin/bash -c 'systemd-notify --ready; systemd-notify RELOADING=1; sleep {seconds}; exit 1'"
    write(
        stage,
        a_service=f"[Service]\nType=notify\nNotifyAccess=all\nExecStart={script.format(seconds=0.1)}\n",
        b_service=f"[Unit]\nStartLimitBurst=1\n[Service]\nType=notify\nNotifyAccess=all\nRestart=on-failure\n"
        f"ExecStart={script.format(seconds=0.1)}\n",
        c_service=f"[Service]\nType=notify\nNotifyAccess=all\nRestart=on-abort\nExecStart={script.format(seconds=99)}\n"
        "[Unit]\nStartLimitBurst=1\n",
    )
    async with stage.running() as units:
        await stage.state(units, "c", "reloading")
        await units.kill("c", "SIGABRT")
        for name in ("a", "b", "c"):
            await stage.state(units, name, "failed")
        assert units.picture("c").exit.result in ("signal", "core-dump")


async def test_23_when_a_start_counts_as_one(stage: Stage, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch(mode=0o755)
    for name, kind, command, user in (
        ("one", "simple", "/bin/sleep 1d", ""), ("three", "simple", str(broken), ""),
        ("four", "exec", "/bin/sleep 1d", ""), ("five", "exec", "/bin/sleep 1d", "User=idontexist"),
        ("six", "exec", str(broken), ""), ("seven", "exec", "/nonexistent", ""),
    ):  # fmt: skip
        text = f"[Service]\nType={kind}\n{user}\nExecStart={command}\n[Install]\nWantedBy=rescue.target\n"
        (stage.directory / f"{name}.service").write_text(text)
    async with stage.running() as units:
        for name in ("one", "four"):
            assert (await units.start(name)).state == "ready"
        with contextlib.suppress(UnavailableError):  # it counts as started, until somebody looks again
            await units.start("three")
        for name in ("five", "six", "seven"):
            with pytest.raises(UnavailableError, match=f"cannot start {name}: "):
                await units.start(name)


async def test_56_up_for_as_long_as_any_of_its_processes_is(stage: Stage, tmp_path: Path) -> None:
    stay = f"(while ! test -e {tmp_path}/end; do sleep 0.02; done) & "
    write(
        stage,
        parentless_service=f"""\
            [Service]
            Type=notify
            NotifyAccess=all
            ExitType=cgroup
            ExecStart=/bin/bash -c '{stay} systemd-notify --ready'
            ExecStopPost=/bin/sh -c 'echo $SERVICE_RESULT > {tmp_path}/over'
        """,
        bad_service=f"[Service]\nExitType=cgroup\nExecStart=/bin/bash -c '{stay} exit 3'\n",
        stopped_service=f"[Service]\nExitType=cgroup\nExecStart=/bin/bash -c '{stay} exit 0'\n",
        killed_service="[Service]\nExitType=cgroup\nExecStart=/bin/bash -c 'sleep 1d & sleep 1d'\n",
    )
    async with stage.running(detach=True) as units:
        await stage.state(units, "parentless", "ready")
        await stage.until(lambda: units.picture("parentless").pid is None)
        await stage.state(units, "bad", "failed")
        await stage.until(lambda: units.picture("stopped").state == "ready" and units.picture("stopped").pid is None)
        assert len(units.processes("stopped")) > 0
        assert (await units.stop("stopped")).state == "stopped"
        await stage.until(lambda: len(units.processes("killed")) > 1)
        await units.kill("killed", "SIGKILL")
        await stage.state(units, "killed", "failed")
    async with stage.running() as units:  # as well after we died
        assert units.picture("parentless").state == "ready"
        (tmp_path / "end").touch()
        assert await said(tmp_path / "over") == "success\n"
        await stage.state(units, "parentless", "exited")


async def test_68_handlers_may_be_templates_and_are_told_only_while_they_start(stage: Stage, tmp_path: Path) -> None:
    check = f"/bin/sh -c 'echo $MONITOR_UNIT $MONITOR_EXIT_STATUS %i >> {tmp_path}/said'"
    write(
        stage,
        bad_service="[Unit]\nOnFailure=handler@%n.service\n[Service]\nType=exec\nExecStart=/bin/sh -c 'exit 1'\n",
    )
    (stage.directory / "handler@.service").write_text(
        f"[Service]\nType=oneshot\nExecStartPre={check}\nExecStart={check}\nExecStart={check}\n"
        "ExecStartPost=/usr/bin/test -z '$MONITOR_SERVICE_RESULT'\n"
    )
    async with stage.running() as units:
        await stage.until(
            lambda: (tmp_path / "said").exists() and len((tmp_path / "said").read_text().splitlines()) == 3
        )
        assert set((tmp_path / "said").read_text().splitlines()) == {"bad.service 1 bad.service"}
        await stage.until(lambda: all(one.name == "bad" for one in units.pictures() if one.state != "stopped"))
        assert not [one for one in units.pictures() if one.name != "bad" and one.state == "failed"]


def test_15_drop_ins(tmp_path: Path) -> None:
    def put(name: str, text: str = "[Service]\nExecStart=/bin/sleep 1d\n") -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def link(name: str, target: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(target)

    for name in ("a", "b", "c", "bar@", "yup@", "a-b-c", "linked-elsewhere"):
        put(f"{name}.service")
    link("b1.service", "b.service")
    link("a.service.wants/b1.service", "../b1.service")  # another name of b
    link("a.service.requires/c.service", "/dev/null")  # taken away
    link("b.service.wants/nonexistent.service", "../nonexistent.service")
    link("bar@.service.requires/c.service", "../c.service")  # of every instance
    link("bar@1.service.requires/b.service", "../b.service")
    link("bar@2.service.requires/c.service", "/dev/null")  # the more specific one counts
    link("c.service.wants/bar@1.service", "../bar@.service")
    link("c.service.wants/bar@2.service", "../bar@.service")
    for place in ("service.d", "a-.service.d", "a-b-.service.d", "a-b-c.service.d"):
        put(f"{place}/{place}.conf", f"[Service]\nEnvironment={place.replace('-', '_').replace('.', '_')}=1\n")
        put(f"{place}/same.conf", f"[Unit]\nDescription={place}\n")
    put("elsewhere.d/zz.conf", "[Unit]\nDescription=hogehoge\n")
    link("b.service.d", "elsewhere.d")
    link("yup@.service.d", "nowhere")
    link("c.service.d", "a.service")  # no directory at all
    found = read_unit_files(str(tmp_path))
    assert not [one for one in found.findings if one.severity == "error"], found.findings
    graph = graph_of(found)
    assert graph.wants["a"] == ("b",)
    assert "a" not in graph.requires
    assert graph.requires["bar@1"] == ("c", "b")
    assert "bar@2" not in graph.requires
    service = found.units["a-b-c"].document.service
    assert service is not None
    assert set(service.environment) == {"service_d", "a__service_d", "a_b__service_d", "a_b_c_service_d"}
    assert found.units["a-b-c"].document.unit.description == "a-b-c.service.d"
    assert found.units["b"].document.unit.description == "hogehoge"


async def test_a_service_is_given_the_sockets_that_it_names(stage: Stage, tmp_path: Path) -> None:
    tell = (
        "import fcntl, os; print(os.environ['LISTEN_FDNAMES'], [bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)"
        f" for fd in (3, 4)], file=open('{tmp_path}/said', 'w'))"
    )
    write(
        stage,
        web_service=f'[Service]\nType=oneshot\nNonBlocking=yes\nSockets=more.socket\nExecStart={PYTHON} -c "{tell}"\n',
        web_socket=f"[Socket]\nListenStream={tmp_path}/one\n",
        more_socket=f"[Socket]\nListenStream={tmp_path}/two\nService=other.service\n",
        other_service="[Service]\nExecStart=/bin/sleep 1d\n",
    )
    async with stage.running() as units:
        plan = await units.transact("start", ["web"], dry_run=True)
        assert "more.socket" in (*(step.unit for step in plan.steps), *plan.unchanged)
        await units.start("web")
        assert await said(tmp_path / "said") == "web.socket:more.socket [True, True]\n"
        assert units.picture("other").state == "stopped"


async def test_48_a_file_written_since_the_last_reload_can_be_started(stage: Stage) -> None:
    write(stage, old_service="[Service]\nExecStart=/bin/sleep 1d\n")
    async with stage.running() as units:
        await stage.state(units, "old", "ready")
        with pytest.raises(InputError, match="cannot find unit new: no file"):
            await units.start("new.service")
        write(stage, new_service="[Service]\nExecStart=/bin/sleep 1d\n", bad_service="[Service]\nExecStart=x/y\n")
        write(stage, old_service="[Service]\nExecStart=/bin/sleep 2d\n")
        before = units.picture("old").pid
        assert (await units.start("new.service")).state == "ready"
        with pytest.raises(InputError, match=r"cannot read unit bad: .*bad.service:2:1: .*relative path"):
            await units.start("bad")
        assert units.picture("old").pid == before  # that was no reload
        (stage.directory / "work@.service").write_text("[Service]\nExecStart=/bin/sleep 1d\n")
        plan = await units.reload(dry_run=True)
        assert (plan.restart, "new" in plan.unchanged) == (("old",), True)
        await units.reload()
        with pytest.raises(InputError, match="cannot use work@: it is a template; name an instance of it"):
            await units.start("work@")
        assert units.picture("new").state == "ready"


def test_what_a_socket_file_sets_is_set(tmp_path: Path) -> None:
    (tmp_path / "a.service").write_text("[Service]\nExecStart=/bin/true\n")
    (tmp_path / "a.socket").write_text(
        f"[Socket]\nListenStream=127.0.0.1:1\nListenStream={tmp_path}/sock\nListenFIFO={tmp_path}/fifo\n"
        "KeepAlive=yes\nKeepAliveTimeSec=2min\nKeepAliveIntervalSec=10\nKeepAliveProbes=4\nDeferAcceptSec=3\n"
        f"Priority=3\nIPTOS=low-delay\nIPTTL=7\nPassCredentials=yes\nPipeSize=128K\nTCPCongestion=reno\n"
    )
    (tmp_path / "b.socket").write_text(
        f"[Socket]\nListenStream={tmp_path}/own\nSymlinks={tmp_path}/link {tmp_path}/in/other\nRemoveOnStop=yes\n"
        "Service=a.service\n"
    )
    found = read_unit_files(str(tmp_path))
    assert not [one for one in found.findings if "fifo" not in str(one)], found.findings
    tcp, unix, fifo = (endpoint_of(one) for one in found.units["a.socket"].document.socket)
    opened = open_endpoint(replace(tcp, listen="127.0.0.1:0")), open_endpoint(unix), open_endpoint(fifo)
    stream, local = socket.socket(fileno=opened[0]), socket.socket(fileno=opened[1])
    with stream, local:
        for level, option, value in (
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 120), (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.SOL_SOCKET, 12, 3), (socket.IPPROTO_IP, socket.IP_TOS, 16), (socket.IPPROTO_IP, 2, 7),
        ):  # fmt: skip
            assert stream.getsockopt(level, option) == value
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 3
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).startswith(b"reno")
        assert local.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 1
        assert fcntl.fcntl(opened[2], 1032) == 128 << 10  # F_GETPIPE_SZ
        os.close(opened[2])
    endpoint = endpoint_of(found.units["b.socket"].document.socket[0])
    os.close(open_endpoint(endpoint))
    assert (tmp_path / "link").readlink() == (tmp_path / "in/other").readlink() == tmp_path / "own"
    remove_endpoint(endpoint)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.service", "a.socket", "b.socket", "fifo", "in", "sock"]
