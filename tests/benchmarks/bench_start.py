"""How fast it answers, how fast it is ready, and what it costs when nothing happens."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.row import Row

IDLE_SECONDS = float(os.environ.get("APPLIANCE_BENCH_IDLE_SECONDS", "60"))
UNITS = 20


def wall_ms(argv: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1e3


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


def ready(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False


def memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_ms_exactly(pid: int) -> float:
    """Of all its threads, to the nanosecond: a start is a dozen ticks long."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e6


def wakeups(pid: int) -> dict[str, int]:
    """Per thread, so that one which ends meanwhile does not count backwards."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                found[task.name] = int(line.split()[1])
    return found


def make_root(port: int, *, units: int) -> str:
    root = tempfile.mkdtemp(prefix="appliance-bench-")
    etc = Path(root, "etc/appliance")
    (etc / "units").mkdir(parents=True)
    (etc / "appliance.toml").write_text(f'[status]\nlisten = "127.0.0.1:{port}"\n')
    for number in range(units):
        (etc / "units" / f"idle-{number}.toml").write_text('[service]\ncommand = ["/bin/sleep", "infinity"]\n')
    return root


def run(binary: str) -> list[Row]:
    python = shutil.which("python3") or sys.executable
    if Path("/usr/bin/python3").exists():
        python = "/usr/bin/python3"
    pairs = [(wall_ms([binary, "--version"]), wall_ms([python, "-c", "pass"])) for _ in range(31)][1:]
    rows = [
        Row(
            name="appliance --version, warm, median of 30", unit="ms", peer="python3 -c pass", aim="<= 2.5 x",
            ours=statistics.median(ours for ours, _ in pairs), theirs=statistics.median(theirs for _, theirs in pairs),
        )
    ]  # fmt: skip
    times, spent = [], []
    for attempt in range(6):
        port = free_port()
        root = make_root(port, units=0 if attempt < 5 else UNITS)
        begun = time.perf_counter()
        daemon = subprocess.Popen([binary, "--root", root, "run"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while not ready(port):
                assert daemon.poll() is None, f"the daemon ended with {daemon.returncode}"
                assert time.monotonic() < deadline, "not ready in 60 s"
                time.sleep(0.002)
            times.append((time.perf_counter() - begun) * 1e3)
            spent.append(cpu_ms_exactly(daemon.pid))
            if attempt == 5:
                rows += idle(daemon.pid)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)
            shutil.rmtree(root, ignore_errors=True)
    rows.insert(
        1,
        Row(
            name="exec to /readyz 200, warm, median of 4",
            unit="ms",
            ours=statistics.median(times[1:5]),
            aim="<= 500 ms",
        ),
    )
    rows.insert(2, Row(name="CPU to /readyz 200, warm, median of 4", unit="ms", ours=statistics.median(spent[1:5])))
    return rows


def idle(pid: int) -> list[Row]:
    time.sleep(3)  # what it does after it is ready (seeding the slots, the journal's first lines) is not idling
    cpu, woken, begun = cpu_seconds(pid), wakeups(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - begun
    woken_since = sum(count - woken.get(thread, 0) for thread, count in wakeups(pid).items())
    return [
        Row(name=f"idle memory, {UNITS} units", unit="MB", ours=memory_mb(pid), aim="< 60 MB"),
        Row(
            name=f"idle CPU over {seconds:.0f} s, {UNITS} units",
            unit="%",
            ours=(cpu_seconds(pid) - cpu) / seconds * 100,
            aim="< 0.1 %",
        ),
        Row(name="idle wakeups per minute", unit="", ours=woken_since * 60 / seconds),
    ]
