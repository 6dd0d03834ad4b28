"""Durable puts per second in process, beside SQLite (WAL, synchronous=FULL, one commit per write) on the same disk.

SQLite's figure is its best: one thread, no waiting writers to wake, one commit after another.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import trio

from appliance.host.disk import FileDisk
from appliance.store import Store
from tests.benchmarks.row import Row

ROUNDS = 3
SECONDS = 1.5
VALUE = random.Random(1).randbytes(1024)
SQLITE = "SQLite, 1 commit/write"


def sqlite_puts(directory: str) -> float:
    """Puts per second."""
    database = sqlite3.connect(f"{directory}/sqlite", isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")
    database.execute("create table if not exists kv(key blob primary key, value blob) without rowid")
    rng = random.Random(2)
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        database.execute("insert or replace into kv values(?, ?)", (key(rng), VALUE))
        count += 1
    rate = count / (time.perf_counter() - begin)
    database.close()
    return rate


def key(rng: random.Random) -> bytes:
    return b"/bench/" + rng.randbytes(8).hex().encode()


async def store_puts(directory: str, writers: int) -> tuple[float, float]:
    """Puts per second, and the 99th percentile of a put in milliseconds."""
    store, stopping = Store(FileDisk(directory)), trio.Event()
    took: list[float] = []

    async def write(number: int) -> None:
        rng = random.Random(number)
        while (start := time.perf_counter()) < end:
            await store.put(key(rng), VALUE)
            took.append(time.perf_counter() - start)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(store.run, stopping=stopping))
        begin = time.perf_counter()
        end = begin + SECONDS
        async with trio.open_nursery() as writing:
            for number in range(writers):
                writing.start_soon(write, number)
        rate = len(took) / (time.perf_counter() - begin)
        stopping.set()
    return rate, sorted(took)[int(len(took) * 0.99)] * 1000


async def opening(directory: str, keys: int) -> float:
    """Seconds to open a store of that many keys from its checkpoint."""

    async def life(act: bool) -> float:
        store, stopping = Store(FileDisk(directory)), trio.Event()
        begin = time.perf_counter()
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(store.run, stopping=stopping))
            took = time.perf_counter() - begin
            if act:
                rng = random.Random(3)
                for _ in range(0, keys, 20_000):
                    async with trio.open_nursery() as writing:
                        for _ in range(20_000):
                            writing.start_soon(store.put, key(rng), b"v" * 100)
            stopping.set()
        return took

    await life(True)
    return await life(False)


def run(binary: str) -> list[Row]:
    """Interleaved, medians of three rounds. The binary is not needed: the store is measured in process."""
    ours: dict[int, list[tuple[float, float]]] = {1: [], 100: [], 1000: []}
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(dir=Path(__file__).parents[2] / ".build") as scratch:
        for number in range(ROUNDS):
            for writers, found in ours.items():
                found.append(trio.run(store_puts, f"{scratch}/store-{writers}-{number}", writers))
                place = Path(f"{scratch}/sqlite-{writers}-{number}")
                place.mkdir()
                theirs.append(sqlite_puts(str(place)))
        open_seconds = trio.run(opening, f"{scratch}/many", 200_000)
    sqlite = statistics.median(theirs)
    rows = []
    for writers, found in ours.items():
        words = f"store: durable 1 KB puts/s, {writers} waiting writer{'s' * (writers > 1)}"
        rate = statistics.median(rate for rate, _ in found)
        rows.append(Row(name=words, ours=rate, unit="/s", peer=SQLITE, theirs=sqlite))
        rows.append(Row(name="  99th percentile of a put", ours=statistics.median(p for _, p in found), unit="ms"))
    rows.append(Row(name="store: open with 200,000 keys", ours=open_seconds * 1000, unit="ms"))
    return rows
