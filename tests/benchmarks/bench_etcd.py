"""Puts through etcd's own client: our store's API and a real etcd beside it, interleaved, medians.

Needs Debian's etcd-server, golang-go and golang-etcd-server-dev. ``APPLIANCE_BENCH_ROUNDS`` (3), ``.._SECONDS`` (4).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.row import Row

ROUNDS = int(os.environ.get("APPLIANCE_BENCH_ROUNDS", "3"))
SECONDS = os.environ.get("APPLIANCE_BENCH_SECONDS", "4")
LOADS = ((1, 1, ">= 1 x"), (1, 100, ">= 1.5 x"), (100, 100, ">= 1.5 x"), (1000, 1000, ">= 1.5 x"))
TOP = Path(__file__).parents[2]


def build() -> str:
    """The load generator's path."""
    target = TOP / ".build" / "kvbench"
    source = Path(__file__).parent / "kvbench" / "main.go"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
        subprocess.run(["go", "build", "-o", str(target), str(source)], check=True, env=env)
    return str(target)


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as it:
            if it.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing answers on port {port}")


@contextmanager
def server(argv: list[str], port: int) -> Iterator[int]:
    """Runs it; yields its pid."""
    process = subprocess.Popen(argv, cwd=TOP, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def load(kvbench: str, port: int, connections: int, clients: int) -> dict[str, float]:
    argv = [kvbench, "-endpoint", f"127.0.0.1:{port}", "-seconds", SECONDS]
    argv += ["-connections", str(connections), "-clients", str(clients)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run(binary: str) -> list[Row]:
    """From source until the binary has ``appliance etcd``."""
    kvbench = build()
    directory = Path(tempfile.mkdtemp(prefix="appliance-bench-etcd-"))
    ours, theirs, peers = free_port(), free_port(), f"http://127.0.0.1:{free_port()}"
    our_argv = [sys.executable, "-m", "tests.etcdapi.serving", str(directory / "ours"), str(ours)]
    url = f"http://127.0.0.1:{theirs}"
    etcd_argv = [
        "etcd", "--data-dir", str(directory / "etcd"), "--listen-client-urls", url, "--advertise-client-urls", url,
        "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}",
    ]  # fmt: skip
    rows = []
    (directory / "ours").mkdir()
    try:
        with server(our_argv, ours) as our_pid, server(etcd_argv, theirs) as their_pid:
            for connections, clients, aim in LOADS:
                pairs = [
                    (load(kvbench, ours, connections, clients), load(kvbench, theirs, connections, clients))
                    for _ in range(ROUNDS)
                ]
                for figure, unit, wanted in (("rate", "puts/s", aim), ("p99_ms", "ms p99", "<= 0.6 x")):
                    our, their = (statistics.median(pair[side][figure] for pair in pairs) for side in (0, 1))
                    name = f"etcd put {connections} x {clients}"
                    rows.append(Row(name=name, ours=our, unit=unit, peer="etcd", theirs=their, aim=wanted))
            our, their = memory_mb(our_pid), memory_mb(their_pid)
            rows.append(Row(name="etcd memory after", ours=our, unit="MB", peer="etcd", theirs=their, aim="<= 0.1 x"))
    finally:
        shutil.rmtree(directory)
    return rows
