"""What clients see: the built ``appliance etcd`` and a real etcd, through etcd's own client, interleaved, medians.

Puts as in the issue (256 B keys, 1 KB values), reads, watch fan-out, compare-and-swap, leases, opening with many keys.
With ``--long`` more rounds, a million keys, and ``etcdctl check perf`` of all four sizes (a minute each, of both).
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.benchmarks import etcd_servers as servers
from tests.benchmarks.etcd_servers import Server
from tests.benchmarks.row import Row

LONG = bool(os.environ.get("APPLIANCE_BENCH_LONG"))
ROUNDS, SECONDS = (5, 4.0) if LONG else (3, 1.5)
KEYS = 1_000_000 if LONG else 100_000


@dataclass(frozen=True)
class Load:
    """One line or two of the table."""

    name: str
    mode: str
    connections: int
    clients: int
    aim: str = ">= 1 x"
    aim_p99: str = ""
    more: dict[str, int] = field(default_factory=dict)


PUTS = [
    Load("put", "put", 1, 1),
    Load("put", "put", 1, 100, ">= 1.5 x", "<= 0.6 x"),
    Load("put", "put", 100, 100, ">= 1.5 x", "<= 0.6 x"),
    Load("put", "put", 1000, 1000, ">= 1.5 x", "<= 0.6 x"),
]
OTHERS = [
    Load("get", "get", 1, 1),
    Load("get", "get", 10, 100),
    Load("get of a 100-key prefix", "prefix", 1, 1),
    Load("get of a 100-key prefix", "prefix", 10, 100),
    Load("compare and swap", "cas", 1, 1),
    Load("compare and swap", "cas", 10, 100),
    Load("lease grant, put, revoke", "lease", 1, 1),
    Load("lease grant, put, revoke", "lease", 10, 100),
    Load("put seen by 1,000 watchers", "watch", 1, 1, more={"value_size": 100}),
    Load("put seen by 1,000 watchers", "watch", 10, 1, more={"value_size": 100}),
]


def run(binary: str) -> list[Row]:
    """Needs Debian's etcd-server, etcd-client, golang-go and golang-etcd-server-dev."""
    servers.kvbench()
    directory = Path(tempfile.mkdtemp(prefix="appliance-bench-etcd-", dir=servers.TOP / ".build"))
    try:
        return [*_loads(binary, directory), *_opening(binary, directory)]
    finally:
        shutil.rmtree(directory)


def _loads(binary: str, directory: Path) -> list[Row]:
    rows = []
    with servers.ours(binary, directory / "ours") as we, servers.etcd(directory / "etcd") as they:
        for load in PUTS:
            rows += _compare(load, we, they)
        rows.append(_row("memory after the puts", we.memory_mb(), "MB", they.memory_mb(), "<= 0.1 x"))
    with servers.ours(binary, directory / "ours2") as we, servers.etcd(directory / "etcd2") as they:
        for load in OTHERS:
            rows += _compare(load, we, they)
        rows.append(_row("memory after these", we.memory_mb(), "MB", they.memory_mb(), ""))
        for size in ("s", "m", "l", "xl") if LONG else ():
            our, their = servers.check_perf(we, size), servers.check_perf(they, size)
            aim, slowest = (">= 1.3 x", "<= 0.5 x") if size == "xl" else (">= 1 x", "")
            rows.append(_row(f"check perf {size}", our["rate"], "writes/s", their["rate"], aim))
            rows.append(_row("  slowest", our["slowest_ms"], "ms", their["slowest_ms"], slowest))
    return rows


def _compare(load: Load, we: Server, they: Server) -> list[Row]:
    found: list[list[dict[str, float]]] = [[], []]
    for _ in range(ROUNDS):
        for which, server in enumerate((we, they)):
            args = (server, load.mode, load.connections, load.clients, SECONDS)
            found[which].append(servers.load(*args, **load.more))
    rows = []
    for figure, unit, name, aim in (
        ("rate", "/s", f"{load.name}, {load.connections} x {load.clients}", load.aim),
        ("p99_ms", "ms", "  99th percentile", load.aim_p99),
    ):
        our, their = (statistics.median(one[figure] for one in side) for side in found)
        rows.append(_row(name, our, unit, their, aim))
    return rows


def _opening(binary: str, directory: Path) -> list[Row]:
    """Fill both, stop them, start them again."""
    took, memory = [], []
    starts = partial(servers.ours, binary, directory / "many"), partial(servers.etcd, directory / "many-etcd")
    for start in starts:
        with start() as server:
            servers.load(server, "fill", 10, 1, 0, keys=KEYS, key_size=32, value_size=100)
        with start() as server:
            took.append(server.ready_seconds * 1000)
            memory.append(server.memory_mb())
    words = f"open with {KEYS:,} keys"
    return [
        _row(words, took[0], "ms", took[1], "< 2,000 ms"),
        _row("  memory then", memory[0], "MB", memory[1], ""),
    ]


def _row(name: str, our: float, unit: str, their: float, aim: str) -> Row:
    name = name if name.startswith(" ") else f"etcd: {name}"
    return Row(name=name, ours=our, unit=unit, peer="etcd", theirs=their, aim=aim)
