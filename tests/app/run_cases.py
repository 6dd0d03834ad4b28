"""``appliance run`` seen from outside. One body of tests, run from source here and on the built file in tests/binary.

The module that imports them gives the fixture ``command``: how to start the appliance.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from app.daemon import PATIENCE, SETTINGS, Daemon, children, is_alive, wait_until
from appliance.errors import InputError

Start = Callable[..., Daemon]


class Host:
    """A root directory with settings and units, and the daemons started on it."""

    def __init__(self, command: Sequence[str], root: Path) -> None:
        self.command = command
        self.root = root
        self.started: list[Daemon] = []
        self.settings(SETTINGS)

    def settings(self, text: str) -> Path:
        return self._write("etc/appliance/appliance.toml", text)

    def unit(self, name: str, text: str) -> Path:
        return self._write(f"etc/appliance/units/{name}.toml", text)

    def _write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def start(self, **options: object) -> Daemon:
        daemon = Daemon(self.command, self.root, **options)  # type: ignore[arg-type]
        self.started.append(daemon)
        return daemon


@pytest.fixture
def host(command: Sequence[str], tmp_path: Path) -> Iterator[Host]:
    it = Host(command, tmp_path)
    pids: set[int] = set()
    yield it
    for daemon in it.started:
        with contextlib.suppress(Exception):
            pids |= {unit["pid"] for unit in daemon.status()["units"] if unit["pid"]}
        daemon.clean_up()
    for pid in pids:
        if is_alive(pid) and str(tmp_path) in Path(f"/proc/{pid}/cmdline").read_text() + _environ(pid):
            os.kill(pid, signal.SIGKILL)


def _environ(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    return ""


def shell(script: str, more: str = "") -> str:
    return f"[service]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n{more}"


def last_words(name: str, log: Path) -> str:
    """Says its name when it is asked to stop."""
    return shell(f'trap "echo {name} >> {log}; exit 0" TERM; : > {log}.{name}; while :; do sleep 1; done')


def etcdctl(host: Host, *arguments: str) -> str:
    socket = f"unix://{host.root}/run/appliance/etcd.sock"
    done = subprocess.run(
        ["etcdctl", "--endpoints", socket, *arguments], check=False, capture_output=True, text=True, timeout=60,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if not line.startswith('{"level"')]
    return done.stdout + "\n".join(errors)


def test_it_becomes_ready_and_answers_on_both_doors(host: Host) -> None:
    daemon = host.start().expect_ready()
    assert daemon.get("/readyz")[0] == 200
    assert daemon.get("/healthz")[0] == 200
    picture = daemon.status()
    assert picture["ready"] is True
    assert picture["node"]["pid"] == daemon.process.pid
    assert {service["name"]: service["state"] for service in picture["services"]} == dict.fromkeys(
        (
            "processes", "store", "units", "update", "bundles", "api-control", "api-status", "etcdapi", "settings",
            "parent",
        ),
        "ready",
    )  # fmt: skip
    assert json.loads(daemon.get("/v1/status")[1])["node"]["root"] == str(host.root)
    if shutil.which("etcdctl"):
        assert etcdctl(host, "put", "a", "b") == "OK\n"
        assert etcdctl(host, "get", "a") == "a\nb\n"
        assert "etcdserver: permission denied: keys below /appliance/" in etcdctl(host, "put", "/appliance/x", "b")
    assert daemon.stop() == 0
    assert daemon.lines[-1].endswith(" stopped")


def test_who_asks_as_the_units_begin_waits_in_line(host: Host, tmp_path: Path) -> None:
    """The rooms behind the sockets are loaded later than units begin."""
    asked = host.root / "asked"
    run = host.root / "run/appliance"
    one = "curl -sS -m 60 -o /dev/null -w '%{http_code} ' --unix-socket"
    host.unit("early", shell(f'{one} {run}/control.sock http://x/healthz >>"{asked}" 2>&1; '
                             f'{one} {run}/etcd.sock http://x/health >>"{asked}" 2>&1; exec sleep 1000'))  # fmt: skip
    host.start().expect_ready()
    wait_until(lambda: asked.exists() and len(asked.read_text().split()) >= 2, "two answers")
    assert asked.read_text() == "200 200 "


def test_without_a_settings_file_it_runs_on_defaults_and_says_so(host: Host) -> None:
    (host.root / "etc/appliance/appliance.toml").unlink()
    host._write("etc/appliance/appliance.d/10-port.toml", SETTINGS)
    daemon = host.start().expect_ready()
    assert daemon.stop() == 0
    (host.root / "etc/appliance/appliance.d/10-port.toml").unlink()
    again = host.start()
    again.expect(r"no settings file .*appliance\.toml.*default")
    again.expect(r" ready|not ready")
    assert again.stop() == 0


def test_a_second_run_on_the_root_is_refused_with_the_holders_pid(host: Host) -> None:
    daemon = host.start().expect_ready()
    second = host.start()
    assert second.wait() == 7
    assert f"pid {daemon.process.pid} holds it" in "\n".join(second.lines)
    assert daemon.status()["ready"] is True


def test_bad_settings_at_the_start_are_refused_with_every_finding(host: Host) -> None:
    file = host.settings('[status]\nlisten = 5\n[updaet]\n[update]\nchannel = "stabel"\n')
    daemon = host.start()
    assert daemon.wait() == 2
    said = "\n".join(daemon.lines)
    for place in (f"{file}:2:", f"{file}:3:", f"{file}:5:"):
        assert place in said
    assert "stable" in said


def test_sigterm_stops_units_in_reverse_order_then_services(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "order"
    host.unit("base", last_words("base", log))
    host.unit("middle", '[unit]\nrequires = ["base"]\nafter = ["base"]\n' + last_words("middle", log))
    host.unit("top", '[unit]\nrequires = ["middle"]\nafter = ["middle"]\n' + last_words("top", log))
    daemon = host.start().expect_ready()
    for name in ("base", "middle", "top"):
        wait_until(Path(f"{log}.{name}").exists, f"{name} to listen")
        daemon.expect_unit(name, "ready")
    pids = [daemon.unit(name)["pid"] for name in ("base", "middle", "top")]
    assert daemon.stop() == 0
    assert log.read_text().split() == ["top", "middle", "base"]
    assert not [pid for pid in pids if is_alive(pid)]
    ends = [line.split(" ", 1)[1] for line in daemon.lines if "service" in line and ": stopped" in line]
    assert ends.index("service units: stopped") < ends.index("service store: stopped")
    assert ends.index("service units: stopped") < ends.index("service api-control: stopped")


def test_shutdown_over_the_api_is_the_same(host: Host) -> None:
    host.unit("sleeper", shell("exec sleep 1000"))
    daemon = host.start().expect_ready()
    pid = daemon.expect_unit("sleeper", "ready")["pid"]
    assert daemon.call("POST", "/v1/shutdown") == {"stopping": True}
    assert daemon.wait() == 0
    assert not is_alive(pid)


def test_a_second_sigint_ends_at_once(host: Host) -> None:
    host.unit("deaf", shell('trap "" TERM; while :; do sleep 1; done', 'stop_timeout = "1h"\n'))
    daemon = host.start().expect_ready()
    pid = daemon.expect_unit("deaf", "ready")["pid"]
    daemon.send(signal.SIGINT)
    daemon.expect("stop: SIGINT")
    daemon.send(signal.SIGINT)
    assert daemon.wait() == 1
    wait_until(lambda: not is_alive(pid), "the unit to be killed")


def test_sighup_applies_good_settings_and_new_units(host: Host) -> None:
    daemon = host.start().expect_ready()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host.settings(f'[node]\nname = "renamed"\n[status]\nlisten = "127.0.0.1:{port}"\n[update]\nchannel = "beta"\n')
    host.unit("added", shell("exec sleep 1000"))
    daemon.send(signal.SIGHUP)
    line = daemon.expect("settings .*loaded")
    assert "update.channel: stable -> beta" in line
    daemon.expect_unit("added", "ready")
    daemon.expect_service("api-status", "ready")
    assert daemon.status()["node"]["name"] == "renamed"
    assert daemon.status()["update"]["channel"] == "beta"
    with socket.create_connection(("127.0.0.1", port), PATIENCE):
        pass
    host.settings('[status]\nlisten = "192.0.2.1:7780"\ntoken_file = "/nowhere"\n')  # good to read, bad to use
    outcome = daemon.call("POST", "/v1/reload")["reload"]
    assert "status.listen: " in " ".join(outcome["changed"])
    assert "status endpoint: " in outcome["problems"][0]
    assert daemon.status()["ready"] is True
    assert daemon.stop() == 0


def test_sighup_with_bad_settings_keeps_the_old_and_says_so(host: Host) -> None:
    daemon = host.start().expect_ready()
    file = host.settings('[status]\nlisten = "127.0.0.1:0"\nlitsen = 1\n')
    daemon.send(signal.SIGHUP)
    daemon.expect("settings .*refused")
    picture = daemon.status()
    assert f"{file}:3:" in picture["settings"]["problem"]
    assert picture["findings"]
    assert picture["ready"] is True
    with pytest.raises(InputError, match="litsen"):
        daemon.call("POST", "/v1/reload")
    host.settings(SETTINGS)
    outcome = daemon.call("POST", "/v1/reload")
    assert outcome["settings"]["problem"] == ""
    assert daemon.status()["findings"] == []
    assert daemon.stop() == 0


def test_a_busy_status_port_holds_up_nothing_else(host: Host) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        host.settings(f'[status]\nlisten = "127.0.0.1:{holder.getsockname()[1]}"\n')
        host.unit("sleeper", shell("exec sleep 1000"))
        daemon = host.start().expect_ready()
        service = daemon.expect_service("api-status", "backoff")
        assert str(holder.getsockname()[1]) in service["reason"]
        daemon.expect_unit("sleeper", "ready")
        assert daemon.status()["ready"] is True
    daemon.expect_service("api-status", "ready")
    assert daemon.stop() == 0


def test_killed_and_run_again_it_adopts_its_units(host: Host) -> None:
    host.unit("sleeper", shell("exec sleep 1000"))
    daemon = host.start().expect_ready()
    pid = daemon.expect_unit("sleeper", "ready")["pid"]
    daemon.send(signal.SIGKILL)
    assert daemon.wait() == -signal.SIGKILL
    assert is_alive(pid)
    again = host.start().expect_ready()
    assert again.expect_unit("sleeper", "ready")["pid"] == pid
    assert again.stop() == 0
    assert not is_alive(pid)


def test_what_a_person_stopped_stays_stopped(host: Host) -> None:
    host.unit("sleeper", shell("exec sleep 1000"))
    daemon = host.start().expect_ready()
    daemon.expect_unit("sleeper", "ready")
    daemon.call("POST", "/v1/units/sleeper/stop")
    assert daemon.stop() == 0
    again = host.start().expect_ready()
    assert again.expect_unit("sleeper", "stopped")["desired"] == "down"
    again.call("POST", "/v1/units/sleeper/start")
    again.expect_unit("sleeper", "ready")
    assert again.stop() == 0


def test_a_flood_of_orphans_is_reaped_and_no_status_is_lost(host: Host) -> None:
    flood = "i=0; while [ $i -lt 400 ]; do (sleep 0.01 & ) ; i=$((i+1)); done; exit 7"
    host.unit("flood", shell(flood, 'type = "oneshot"\n[restart]\npolicy = "no"\n'))
    daemon = host.start().expect_ready()
    assert "7" in daemon.expect_unit("flood", "failed")["last_exit"]
    wait_until(lambda: not [pid for pid in children(daemon.process.pid) if not is_alive(pid)], "all to be reaped")
    assert daemon.stop() == 0


def test_a_parent_that_listens_is_told(host: Host, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(PATIENCE)
        told: list[list[str]] = []

        def expect(word: str) -> list[str]:
            while True:
                if found := [message for message in told if word in message]:
                    return found[0]
                told.append(listener.recv(4096).decode().split("\n"))

        host.unit("curious", shell(f"env > {tmp_path}/environment; exec sleep 1000"))
        daemon = host.start(environ={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": ""})
        assert f"MAINPID={daemon.process.pid}" in expect("READY=1")
        for _ in range(3):
            told.clear()
            expect("WATCHDOG=1")
        told.clear()
        daemon.send(signal.SIGHUP)
        assert any(line.startswith("MONOTONIC_USEC=") for line in expect("RELOADING=1"))
        told[:] = told[told.index(expect("RELOADING=1")) + 1 :]
        expect("READY=1")
        environment = tmp_path / "environment"
        wait_until(lambda: environment.exists() and environment.read_text(), "the unit to write its environment")
        assert "WATCHDOG" not in environment.read_text()
        assert address not in environment.read_text()
        daemon.send(signal.SIGTERM)
        expect("STOPPING=1")
        assert daemon.wait() == 0


def test_a_reader_of_its_words_who_sleeps_holds_nobody_up(host: Host) -> None:
    host.unit("crasher", shell("exit 1", '[restart]\ndelay = "1ms"\ndelay_max = "1ms"\n'))
    daemon = host.start(listening=False)
    wait_until(lambda: Path(daemon.layout.control_socket).exists(), "the control socket")
    seen = wait_until(lambda: daemon.unit("crasher"), "the unit")["restarts"]
    wait_until(lambda: daemon.unit("crasher")["restarts"] > seen + 700, "700 restarts that nobody reads of")
    daemon.listen()
    assert daemon.stop() == 0
    daemon.expect("lines were not read")


def test_a_corrupt_store_is_told_and_holds_up_nothing_else(host: Host) -> None:
    host.unit("sleeper", shell("exec sleep 1000"))
    daemon = host.start().expect_ready()
    daemon.expect_unit("sleeper", "ready")
    daemon.call("POST", "/v1/store/put", {"key": "a2V5", "value": "dmFsdWU="})
    assert daemon.stop() == 0
    logs = sorted((host.root / "var/lib/appliance/store").iterdir())
    assert logs
    for log in logs:
        data = bytearray(log.read_bytes())
        data[: min(len(data), 64)] = b"\xff" * min(len(data), 64)
        log.write_bytes(data)
    again = host.start()
    again.expect("not ready: store")
    again.expect_unit("sleeper", "ready")
    picture = again.status()
    assert picture["ready"] is False
    assert "store" in " ".join(picture["reasons"])
    assert again.get("/readyz")[0] == 503
    assert again.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a PID namespace")
def test_as_pid_1_it_reaps_orphans_ignores_strays_and_stops_in_order(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "order"
    host.unit("base", last_words("base", log))
    host.unit("top", '[unit]\nrequires = ["base"]\nafter = ["base"]\n' + last_words("top", log))
    daemon = host.start(prefix=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]).expect_ready()
    daemon.expect(", pid 1, ")
    for name in ("base", "top"):
        wait_until(Path(f"{log}.{name}").exists, f"{name} to listen")
        daemon.expect_unit(name, "ready")
    (init,) = children(daemon.process.pid)
    # Orphans of a process that is no descendant of ours fall to PID 1 too.
    inside = ["nsenter", f"--target={init}", "--pid", "--mount", "/bin/sh", "-c", "sleep 0.1 & sleep 0.1 & exit 0"]
    for _ in range(5):
        subprocess.run(inside, check=True, timeout=PATIENCE)
    wait_until(lambda: not [pid for pid in children(init) if not is_alive(pid)], "the strays to be reaped")
    os.kill(init, signal.SIGUSR1)  # no handler: as PID 1 it never arrives
    assert daemon.status()["node"]["pid"] == 1
    os.kill(init, signal.SIGTERM)
    assert daemon.wait() == 0
    assert log.read_text().split() == ["top", "base"]
