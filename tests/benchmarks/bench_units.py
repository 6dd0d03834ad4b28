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

from tests.benchmarks.bench_start import cpu_seconds, wakeups
from tests.benchmarks.row import Row

FEW, MANY = 100, 1000
ROUNDS = {FEW: 5, MANY: 3}
IDLE_SECONDS = float(os.environ.get("APPLIANCE_BENCH_IDLE_SECONDS", "60"))
KILLS = 10
PATIENCE_SECONDS = 120
# Everybody's files lie in memory, as those of /run do. A disk would rather tell how ext4 passes by the inodes that were
# deleted lately, one by one: each round leaves thousands.
MEMORY = "/dev/shm" if Path("/dev/shm").is_mount() else None
LOOK_SECONDS = 0.005
SETTLE_SECONDS = 5
REST_SECONDS = 1.2  # between kills: s6 holds back a service that ran for less than a second

MOUNTED = Path("/proc/self/mountinfo").read_text().splitlines()
UNIFIED = next((line.split()[4] for line in MOUNTED if " - cgroup2 " in line), None)
GROUP = f"{UNIFIED}/bench-units" if UNIFIED and os.access(f"{UNIFIED}/cgroup.procs", os.W_OK) else None

Prepare = Callable[[str, dict[str, list[str]]], list[str]]


class NotUpError(Exception):
    """Not all units came up in time."""


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
        f"nodaemon=true\nlogfile={root}/log\npidfile={root}/pid\nchildlogdir={root}\nminfds=8192\nidentifier=bench",
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
    return ["s6-svscan", "-c", "2000", f"{root}/services"]


@contextlib.contextmanager
def running(prepare: Prepare, commands: dict[str, list[str]]) -> Iterator[subprocess.Popen[bytes]]:
    root = tempfile.mkdtemp(prefix="appliance-bench-", dir=MEMORY)
    argv = prepare(root, commands)
    words = argv if GROUP is None else ["/bin/sh", "-c", f'echo 0 > {GROUP}/cgroup.procs; exec "$@"', "sh", *argv]
    daemon = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
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
        if time.monotonic() > deadline:
            raise NotUpError(f"only {len(there)} of {count} up after {PATIENCE_SECONDS} s")
        time.sleep(LOOK_SECONDS)
        now = process_names()
        others &= now  # a pid that was another's may be one of ours by now
        new = now - others - there
        if len(new) + len(there) < count:
            continue
        for pid in new:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
                if file.read() == name + "\n":
                    there.add(pid)


def process_names() -> frozenset[str]:
    return frozenset(name for name in os.listdir("/proc") if name.isdigit())


@contextlib.contextmanager
def up(prepare: Prepare, count: int) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """So many units that sleep, and how long that took, in milliseconds."""
    directory = tempfile.mkdtemp(prefix="appliance-bench-")
    name = f"nap-{os.urandom(4).hex()}"  # a copy of sleep, so that its processes are told from everybody else's
    sleeper = shutil.copy(shutil.which("sleep") or "/bin/sleep", f"{directory}/{name}")
    commands = {f"unit-{number}": [sleeper, "infinity"] for number in range(count)}
    not_before = time.perf_counter()
    others = process_names()
    try:
        with running(prepare, commands) as daemon:
            begun = started_at(daemon, not_before)
            wait_up(count, name, others)
            yield daemon, (time.perf_counter() - begun) * 1e3
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def up_ms(prepare: Prepare, count: int, *, is_peer: bool = False) -> float:
    """A peer that is not done when our patience ends has taken at least that long: no reason to show nothing."""
    try:
        with up(prepare, count) as (_, milliseconds):
            return milliseconds
    except NotUpError:
        if not is_peer:
            raise
        return PATIENCE_SECONDS * 1e3


def remove_group(path: str) -> None:
    """With what is below; processes that were killed may take a moment to leave."""
    deadline = time.monotonic() + 10
    while os.path.isdir(path) and time.monotonic() < deadline:
        for directory, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        time.sleep(0.1)


def group_cpu_ms() -> float:
    """CPU time of everything that ran in the group so far: what no load of others changes."""
    return int(Path(f"{GROUP}/cpu.stat").read_text().split()[1]) / 1e3


def cpu_ms_until_up(prepare: Prepare, count: int) -> float:
    """Of the supervisor, its programs, and what it runs."""
    before = group_cpu_ms()
    with up(prepare, count):
        return group_cpu_ms() - before


def cpu_rows(everybody: dict[str, Prepare]) -> list[Row]:
    """Supervisord is left out: it takes a minute for each look."""
    if GROUP is None:
        return []
    some = [name for name in everybody if name != "supervisord"]
    spent = {name: [cpu_ms_until_up(everybody[name], MANY) for _ in range(ROUNDS[MANY])] for name in some}
    ours = statistics.median(spent.pop("appliance"))
    text = f"CPU until {MANY} units are up, all processes, median of {ROUNDS[MANY]}"
    peers: dict[str, float | None] = {name: statistics.median(found) for name, found in spent.items()}
    return [
        Row(name=text, unit="ms", ours=ours, peer=name, theirs=theirs, aim="<= 1 x" if name else "")
        for name, theirs in (peers or {"": None}).items()
    ]


def idle(prepare: Prepare) -> list[Row]:
    """What a thousand units cost that do nothing."""
    with up(prepare, FEW) as (daemon, _):
        time.sleep(SETTLE_SECONDS)
        few = memory_kb(daemon.pid)
    with up(prepare, MANY) as (daemon, _):
        time.sleep(SETTLE_SECONDS)
        many = memory_kb(daemon.pid)
        cpu, woken, begun = cpu_seconds(daemon.pid), wakeups(daemon.pid), time.monotonic()
        time.sleep(IDLE_SECONDS)
        seconds = time.monotonic() - begun
        more = sum(number - woken.get(thread, 0) for thread, number in wakeups(daemon.pid).items())
        busy = (cpu_seconds(daemon.pid) - cpu) / seconds * 100
    return [
        Row(name=f"memory per idle unit ({FEW} to {MANY})", unit="kB", ours=(many - few) / (MANY - FEW), aim="< 30 kB"),
        Row(name=f"idle CPU over {seconds:.0f} s, {MANY} units", unit="%", ours=busy, aim="about 0"),
        Row(name=f"wakeups in an idle minute, {MANY} units", unit="", ours=more * 60 / seconds, aim="< 10"),
    ]


def memory_kb(pid: int) -> float:
    """Of the daemon and the two small programs that serve it, shared pages not counted twice."""
    total = 0
    for one in (pid, *(child for child in descendants(pid) if is_ours(child))):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total


def is_ours(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() in ("spawn", "appliance-hold")
    return False


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
    if GROUP is not None:
        os.makedirs(GROUP, exist_ok=True)
    try:
        times: dict[int, dict[str, list[float]]] = {}
        for prepare in everybody.values():
            up_ms(prepare, FEW)  # a binary just built is unpacked at its first start
        for count, rounds in ROUNDS.items():
            times[count] = {name: [] for name in everybody}
            for _ in range(rounds):
                for name, prepare in everybody.items():
                    times[count][name].append(up_ms(prepare, count, is_peer=name != "appliance"))
        rest = [*cpu_rows(everybody), *idle(everybody["appliance"])]
        back = {name: restart_ms(prepare, directory) for name, prepare in everybody.items()}
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if GROUP is not None:
            remove_group(GROUP)
    rows = []
    for count, found in times.items():
        middle = {name: statistics.median(some) for name, some in found.items()}
        fastest = min(peers, key=middle.__getitem__, default="")
        for name in peers or ("",):
            aim = "<= 1 x" if count == MANY else "<= 1.5 x" if name == fastest else ""
            rows.append(
                Row(
                    name=f"{count} units up, from exec, median of {ROUNDS[count]}", unit="ms",
                    ours=middle["appliance"], peer=name, theirs=middle.get(name), aim=aim if name else "",
                )
            )  # fmt: skip
    rows += rest
    for name in peers or ("",):
        rows.append(
            Row(
                name=f"back after kill -9, delay 0, median of {KILLS}", unit="ms", ours=back["appliance"], peer=name,
                theirs=back.get(name), aim="< 20 ms",
            )
        )  # fmt: skip
    return rows
