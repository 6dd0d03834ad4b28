"""How a life ends other than by a stop: another version takes over, a service is given up; a signal at a bad time."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.daemon import HOUSE, PATIENCE, Daemon, is_alive
from app.run_cases import Host, shell

PATHS = {"PYTHONPATH": f"{HOUSE}:{HOUSE / 'tests'}"}
SOURCE = [sys.executable, "-m", "appliance"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    it = Host([], tmp_path)
    it.unit("sleeper", shell("exec sleep 1000"))
    yield it
    for daemon in it.started:
        daemon.clean_up()


def start(host: Host, how: str, **environ: str) -> tuple[Daemon, int]:
    host.command = [sys.executable, "-m", "app.driven", how]
    daemon = host.start(environ={**PATHS, **environ}).expect_ready()
    return daemon, daemon.expect_unit("sleeper", "ready")["pid"]


def test_another_version_takes_over_in_the_same_pid_and_units_run_on(host: Host, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(PATIENCE)
        daemon, unit = start(host, "switch", NOTIFY_SOCKET=address)
        begun = len(daemon.lines)
        started = daemon.status()["node"]["started"]
        daemon.send(signal.SIGHUP)
        daemon.expect(" ready; status page", after=begun)
        told = ""
        while told.count("READY=1") < 2:  # who we became talks to the same parent
            told += listener.recv(4096).decode() + "\n"
    assert "STOPPING=1" not in told
    picture = daemon.status()
    assert picture["node"]["pid"] == daemon.process.pid
    assert picture["node"]["started"] > started
    assert daemon.expect_unit("sleeper", "ready")["pid"] == unit
    assert daemon.stop() == 0
    assert not is_alive(unit)


def test_a_stop_during_the_switch_stops_the_units_too(host: Host) -> None:
    daemon, unit = start(host, "switch-and-term")
    daemon.send(signal.SIGHUP)
    assert daemon.wait() == 0
    assert not is_alive(unit), "\n".join(daemon.lines)


def test_when_nothing_can_take_over_it_goes_on_as_it_is(host: Host) -> None:
    daemon, unit = start(host, "switch-in-vain")
    begun = len(daemon.lines)
    daemon.send(signal.SIGHUP)
    daemon.expect("cannot start the launcher: gone; going on")
    daemon.expect(" ready; status page", after=begun)
    assert daemon.expect_unit("sleeper", "ready")["pid"] == unit
    assert daemon.stop() == 0
    assert not is_alive(unit)


def test_a_bug_in_what_units_need_stops_no_unit(host: Host) -> None:
    daemon, unit = start(host, "lose-processes")
    begun = len(daemon.lines)
    daemon.send(signal.SIGHUP)
    daemon.expect("processes: backoff .*a bug in the reaper", after=begun)
    daemon.expect("service processes: .*Traceback", after=begun)
    daemon.expect("service units: ready", after=begun)
    assert daemon.expect_unit("sleeper", "ready")["pid"] == unit
    assert daemon.stop() == 0
    assert not is_alive(unit)


def test_a_bug_in_the_reload_ends_only_the_reload(host: Host) -> None:
    daemon, unit = start(host, "bug")
    for _ in range(2):
        begun = len(daemon.lines)
        daemon.send(signal.SIGHUP)
        daemon.expect("service settings: backoff .*a bug in the reload", after=begun)
        daemon.expect("service settings: ready", after=begun)
    assert daemon.status()["ready"] is True
    assert daemon.expect_unit("sleeper", "ready")["pid"] == unit
    assert daemon.stop() == 0


def test_giving_up_an_essential_service_has_its_own_exit_code_and_leaves_units(host: Host) -> None:
    daemon, unit = start(host, "give-up")
    daemon.send(signal.SIGHUP)
    assert daemon.wait() == 8
    daemon.expect("given up: processes: .*a bug in the reaper; units keep running")
    assert is_alive(unit)
    os.kill(unit, signal.SIGKILL)


def test_a_read_only_disk_is_told_and_units_run(host: Host) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs to mount")
    state = host.root / "var/lib/appliance"
    state.mkdir(parents=True)
    script = f'mount --bind {state} {state} && mount -o remount,bind,ro {state} && exec "$@"'
    host.command = SOURCE
    daemon = host.start(prefix=["unshare", "--mount", "/bin/sh", "-c", script, "sh"])
    line = daemon.expect(" ready; status page|not ready: ")
    daemon.expect_unit("sleeper", "ready")
    picture = daemon.status()
    assert picture["ready"] is False, line
    assert "Read-only file system" in " ".join(picture["reasons"])
    assert daemon.stop() == 0


@pytest.mark.slow
def test_a_stop_at_any_moment_of_the_start_ends_it(host: Host) -> None:
    host.command = SOURCE
    for step in range(12):
        daemon = host.start()
        time.sleep(step * 0.04)  # the sweep itself, not a wait for anything
        code = daemon.stop()
        assert code in (0, -signal.SIGTERM), daemon.lines
        if code == 0:
            assert daemon.lines[-1].endswith(" stopped")
