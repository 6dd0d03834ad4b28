"""Our store's API and a real etcd side by side, and what asks them: kvbench, through etcd's own client, and etcdctl."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """One that runs. ``ready_seconds``: from its start to its first answer."""

    endpoint: str
    pid: int
    ready_seconds: float

    def memory_mb(self) -> float:
        """Resident now."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def kvbench() -> str:
    """The load generator's path."""
    target = TOP / ".build" / "kvbench"
    source = Path(__file__).parent / "kvbench" / "main.go"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
        subprocess.run(["go", "build", "-o", str(target), str(source)], check=True, env=env)
    return str(target)


def free_port() -> int:
    """At the moment."""
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


@contextmanager
def ours(binary: str, directory: Path) -> Iterator[Server]:
    """``appliance etcd``."""
    url = f"http://127.0.0.1:{free_port()}"
    argv = [binary, "etcd", "--data-dir", str(directory), "--listen-client-urls", url, "--advertise-client-urls", url]
    with _running(argv, url) as server:
        yield server


@contextmanager
def etcd(directory: Path) -> Iterator[Server]:
    """Debian's."""
    url, peers = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    argv = [
        "etcd", "--data-dir", str(directory), "--listen-client-urls", url, "--advertise-client-urls", url,
        "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}",
        "--quota-backend-bytes", str(8 << 30),
    ]  # fmt: skip
    with _running(argv, url) as server:
        yield server


@contextmanager
def _running(argv: list[str], url: str) -> Iterator[Server]:
    endpoint = url.removeprefix("http://")
    begin = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _healthy(endpoint):
            if process.poll() is not None or time.monotonic() - begin > 120:
                raise RuntimeError(f"{argv[0]} does not serve")
            time.sleep(0.01)
        yield Server(endpoint, process.pid, time.monotonic() - begin)
    finally:
        process.terminate()
        process.wait(60)


def _healthy(endpoint: str) -> bool:
    host, port = endpoint.split(":")
    try:
        with socket.create_connection((host, int(port)), 5) as it:
            it.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b'"true"' in it.makefile("rb").read()
    except OSError:
        return False


def load(server: Server, mode: str, connections: int, clients: int, seconds: float, **more: int) -> dict[str, float]:
    """What kvbench found: rate, p50_ms, p99_ms."""
    argv = [kvbench(), "-endpoint", server.endpoint, "-mode", mode, "-seconds", str(seconds), "-warm", "0.5"]
    argv += ["-connections", str(connections), "-clients", str(clients)]
    for name, value in more.items():
        argv += ["-" + name.replace("_", "-"), str(value)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout) if done.stdout else {}
    return found


def check_perf(server: Server, size: str) -> dict[str, float]:
    """``etcdctl check perf`` (a minute): writes/s, and the slowest in milliseconds."""
    argv = ["etcdctl", "--endpoints", server.endpoint, "check", "perf", "--load", size, "--auto-compact=true"]
    said = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "ETCDCTL_API": "3"}).stdout
    rate, slowest = re.search(r"hroughput.*?(\d+) writes/s", said), re.search(r"lowest.*?([\d.]+)s", said)
    assert rate, said
    assert slowest, said
    return {"rate": float(rate[1]), "slowest_ms": float(slowest[1]) * 1000}
