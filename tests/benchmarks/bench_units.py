"""How fast units come up and come back, against s6 and supervisord in the same run, all seen from outside."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.row import Row

UNITS = 100
ROUNDS = 5
KILLS = 10
PATIENCE_SECONDS = 60
LOOK_SECONDS = 0.005
REST_SECONDS = 1.2  # between kills: s6 holds back a service that ran for less than a second

Prepare = Callable[[str, dict[str, list[str]]], list[str]]


def appliance(binary: str) -> Prepare:
    def prepare(root: str, commands: dict[str, list[str]]) -> list[str]:
        units = Path(root, "etc/appliance/units")
        units.mkdir(parents=True)
        (units.parent / "appliance.toml").write_text('[status]\nlisten = "off"\n')
        for name, argv in commands.items():
            text = f'[service]\ncommand = {argv}\n[restart]\npolicy = "always"\ndelay = "0"\n'
            (units / f"{name}.toml").write_text(text)
        return [binary, "--root", root, "run"]

    return prepare


def supervisord(root: str, commands: dict[str, list[str]]) -> list[str]:
    lines = [
        "[supervisord]",
        f"nodaemon=true\nlogfile={root}/log\npidfile={root}/pid\nchildlogdir={root}\nminfds=1024\nidentifier=bench",
        "user=root" if os.geteuid() == 0 else "",
    ]
    for name, argv in commands.items():
        words = " ".join(f"'{word}'" if " " in word else word for word in argv).replace("%", "%%")
        lines.append(f"[program:{name}]\ncommand={words}\nautorestart=true\nstartsecs=0\nredirect_stderr=true")
    config = Path(root, "supervisord.conf")
    config.write_text("\n".join(lines) + "\n")
    return ["supervisord", "-c", str(config)]


def s6(root: str, commands: dict[str, list[str]]) -> list[str]:
    for name, argv in commands.items():
        service = Path(root, "services", name)
        service.mkdir(parents=True)
        words = " ".join(f"'{word}'" if " " in word else word for word in argv)
        run = service / "run"
        run.write_text(f"#!/bin/sh\nexec {words}\n")
        run.chmod(0o755)
    return ["s6-svscan", f"{root}/services"]


@contextlib.contextmanager
def running(prepare: Prepare, commands: dict[str, list[str]]) -> Iterator[subprocess.Popen[bytes]]:
    root = tempfile.mkdtemp(prefix="appliance-bench-")
    argv = prepare(root, commands)
    daemon = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield daemon
    finally:
        children = descendants(daemon.pid)
        if "--root" in argv:  # ours, which takes its cgroups away with it
            daemon.send_signal(signal.SIGTERM)
        else:  # supervisord takes half a minute to stop 100 programs; parents first, or they come back
            daemon.kill()
        daemon.wait(PATIENCE_SECONDS)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)


def descendants(root: int) -> list[int]:
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def wait_up(count: int, name: str, others: frozenset[str]) -> None:
    """Until that many processes of that program exist. It looks seldom and little: it must not be the load itself."""
    there: set[str] = set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(there) < count:
        assert time.monotonic() < deadline, f"only {len(there)} of {count} up after {PATIENCE_SECONDS} s"
        time.sleep(LOOK_SECONDS)
        new = process_names() - others - there
        if len(new) + len(there) < count:
            continue
        for pid in new:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
                if file.read() == name + "\n":
                    there.add(pid)


def process_names() -> frozenset[str]:
    return frozenset(name for name in os.listdir("/proc") if name.isdigit())


def up_ms(prepare: Prepare) -> float:
    directory = tempfile.mkdtemp(prefix="appliance-bench-")
    name = f"nap-{os.urandom(4).hex()}"  # a copy of sleep, so that its processes are told from everybody else's
    sleeper = shutil.copy(shutil.which("sleep") or "/bin/sleep", f"{directory}/{name}")
    commands = {f"unit-{number}": [sleeper, "infinity"] for number in range(UNITS)}
    not_before = time.perf_counter()
    others = process_names()
    try:
        with running(prepare, commands) as daemon:
            begun = started_at(daemon, not_before)
            wait_up(UNITS, name, others)
            return (time.perf_counter() - begun) * 1e3
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def started_at(daemon: subprocess.Popen[bytes], not_before: float) -> float:
    """When the daemon's process began, on perf_counter's clock: writing 100 service directories is not its time."""
    ticks = int(Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return max(not_before, time.perf_counter() - age)


def restart_ms(prepare: Prepare, directory: str) -> float:
    """From kill -9 until the next life of the unit has spoken: it writes its pid into a pipe that we wait on."""
    pipe = f"{directory}/alive"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(pipe)
    os.mkfifo(pipe)
    fd = os.open(pipe, os.O_RDWR)
    times = []
    try:
        script = f"echo $$ > {pipe}; exec sleep infinity"
        with running(prepare, {"phoenix": ["/bin/sh", "-c", script]}):
            pid = int(os.read(fd, 64))
            for _ in range(KILLS):
                time.sleep(REST_SECONDS)
                begun = time.perf_counter()
                os.kill(pid, signal.SIGKILL)
                pid = int(os.read(fd, 64))
                times.append((time.perf_counter() - begun) * 1e3)
    finally:
        os.close(fd)
    return statistics.median(times)


def run(binary: str) -> list[Row]:
    """Peers that are not installed are left out."""
    peers = {"s6": s6} if shutil.which("s6-svscan") else {}
    peers |= {"supervisord": supervisord} if shutil.which("supervisord") else {}
    directory = tempfile.mkdtemp(prefix="appliance-bench-")
    everybody: dict[str, Prepare] = {"appliance": appliance(binary), **peers}
    try:
        up: dict[str, list[float]] = {name: [] for name in everybody}
        for prepare in everybody.values():
            up_ms(prepare)  # a binary just built is unpacked at its first start
        for _ in range(ROUNDS):
            for name, prepare in everybody.items():
                up[name].append(up_ms(prepare))
        back = {name: restart_ms(prepare, directory) for name, prepare in everybody.items()}
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    ours = statistics.median(up["appliance"])
    rows = []
    fastest = min(peers, key=lambda name: statistics.median(up[name]), default="")
    for name in peers:
        rows.append(
            Row(
                name=f"{UNITS} units up, from exec, median of {ROUNDS}", unit="ms", ours=ours, peer=name,
                theirs=statistics.median(up[name]), aim="<= 1.5 x" if name == fastest else "",
            )
        )  # fmt: skip
    for name in peers or ("",):
        rows.append(
            Row(
                name=f"back after kill -9, delay 0, median of {KILLS}", unit="ms", ours=back["appliance"], peer=name,
                theirs=back.get(name), aim="< 20 ms",
            )
        )  # fmt: skip
    return rows
