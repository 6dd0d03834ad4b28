"""Concurrent clients while the server is killed at its failpoints and started again; then the whole history is judged.

Every value is written once, so a key is a register whose writes are told apart, and revisions give their order: the
check is linear in the history. What was acknowledged is there, at the revision that was said; what was not is there
whole or not at all; and no answer contradicts real time.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from appliance.etcdapi.pb import rpc_pb2 as pb
from tests.etcdapi.client import Client
from tests.etcdapi.test_transcript import free_port

HOUSE = Path(__file__).parents[2]
CLIENTS = 8
KEYS = [b"k0", b"k1", b"k2", b"k3"]
ENDLESS = float("inf")


@dataclass(frozen=True)
class Did:
    """One operation of a client. A write has ``keys``, a read found ``found``; ``revision`` 0: no answer came."""

    begun: float
    ended: float = ENDLESS
    revision: int = 0
    value: bytes = b""
    keys: tuple[bytes, ...] = ()
    key: bytes = b""
    found: tuple[bytes, int] = (b"", 0)  # value and mod_revision; 0: not there


Log = dict[int, tuple[bytes, frozenset[bytes]]]  # by revision: what was written there, to which keys


def faults(history: list[Did], log: Log) -> list[str]:
    """What is wrong with a history, judged by the log that the store tells in the end."""
    wrong: list[str] = []
    at_value = {value: revision for revision, (value, _) in log.items()}
    of_key: dict[bytes, list[int]] = defaultdict(list)
    for revision in sorted(log):
        for key in log[revision][1]:
            of_key[key].append(revision)
    order: list[tuple[float, float, int, str]] = []
    for did in history:
        if did.keys:
            where = at_value.get(did.value, 0)
            if did.revision and did.revision != where:
                wrong.append(f"lost: {did} was acknowledged, but stands at {where}")
            if where and log[where][1] != frozenset(did.keys):
                wrong.append(f"torn: {did} left {sorted(log[where][1])}")
            if where:
                order.append((did.begun, did.ended, where, f"write {did}"))
        elif did.revision:
            before = [revision for revision in of_key[did.key] if revision <= did.revision]
            newest = before[-1] if before else 0
            value = log[newest][0] if newest else b""
            if did.found != (value, newest):
                wrong.append(f"misread: {did} should have found {value!r} of {newest}")
            order.append((did.begun, did.ended, did.revision, f"read {did}"))
    written = {did.value for did in history if did.keys}
    wrong += [f"invented: {value!r} at {revision}" for revision, (value, _) in log.items() if value not in written]
    return wrong + out_of_time(order)


def out_of_time(order: list[tuple[float, float, int, str]]) -> list[str]:
    """What began after another had ended must not be at an earlier revision."""
    wrong = []
    by_end = sorted(order, key=lambda each: each[1])
    newest, at = (0, ""), 0
    for begun, _, revision, what in sorted(order):
        while at < len(by_end) and by_end[at][1] < begun:
            newest = max(newest, by_end[at][2:])
            at += 1
        if revision < newest[0]:
            wrong.append(f"back in time: {what} at {revision} after {newest}")
    return wrong


@contextmanager
def server(directory: Path, port: int, failpoint: str = "") -> Iterator[subprocess.Popen]:
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance", "etcd", "--data-dir", directory, "--listen-client-urls", url],
        stderr=subprocess.PIPE, cwd=HOUSE, text=True,
        env={**os.environ, "PYTHONPATH": str(HOUSE), "APPLIANCE_FAILPOINT": failpoint},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if "ready to serve client requests" in line:
                break
        else:
            raise AssertionError("".join(lines))
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


class Clients:
    """They write and read until the server is gone, and write all down."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.history: list[Did] = []
        self.values = 0

    async def all(self, operations: int) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(self.one, random.Random(f"{number} {self.values}"), operations)

    async def one(self, chance: random.Random, operations: int) -> None:
        try:
            client = await Client.connect(self.address)
        except OSError:
            return
        try:
            for _ in range(operations):
                at = len(self.history)
                did = self.begin(chance)
                self.history.append(did)
                self.history[at] = await self.do(client, did)
        except (trio.BrokenResourceError, AssertionError):  # the server hung up
            return
        finally:
            await client.aclose()

    def begin(self, chance: random.Random) -> Did:
        kind = chance.random()
        if kind < 0.4:
            return Did(trio.current_time(), key=chance.choice(KEYS))
        self.values += 1
        keys = tuple(sorted(chance.sample(KEYS, 1 if kind < 0.7 else 3)))
        return Did(trio.current_time(), value=b"%d " % self.values + bytes(chance.randrange(3000)), keys=keys)

    @staticmethod
    async def do(client: Client, did: Did) -> Did:
        found = (b"", 0)
        if not did.keys:
            read = await client.ask("KV/Range", pb.RangeRequest(key=did.key), pb.RangeResponse)
            revision = read.header.revision
            if read.kvs:
                found = (read.kvs[0].value, read.kvs[0].mod_revision)
        elif len(did.keys) == 1:
            put = pb.PutRequest(key=did.keys[0], value=did.value)
            revision = (await client.ask("KV/Put", put, pb.PutResponse)).header.revision
        else:
            puts = [pb.RequestOp(request_put=pb.PutRequest(key=key, value=did.value)) for key in did.keys]
            revision = (await client.ask("KV/Txn", pb.TxnRequest(success=puts), pb.TxnResponse)).header.revision
        return replace(did, ended=trio.current_time(), revision=revision, found=found)


async def log_of(port: int) -> tuple[Log, int]:
    """All that a watch from the beginning tells, and the newest revision."""
    client = await Client.connect(f"127.0.0.1:{port}")
    now = (await client.ask("KV/Range", pb.RangeRequest(key=b"k"), pb.RangeResponse)).header.revision
    stream = await client.open("Watch/Watch")
    create = pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=1)
    await client.say(stream, pb.WatchRequest(create_request=create))
    await client.hear(stream, pb.WatchResponse)
    log: Log = {}
    while max(log, default=1) < now:
        for event in (await client.hear(stream, pb.WatchResponse)).events:
            value, keys = log.get(event.kv.mod_revision, (event.kv.value, frozenset()))
            assert value == event.kv.value
            log[event.kv.mod_revision] = value, keys | {event.kv.key}
    kvs = (await client.ask("KV/Range", pb.RangeRequest(key=b"\0", range_end=b"\0"), pb.RangeResponse)).kvs
    newest = {key: (log[at][0], at) for at in sorted(log) for key in log[at][1]}
    assert {kv.key: (kv.value, kv.mod_revision) for kv in kvs} == newest
    assert sorted(log) == list(range(2, now + 1))
    await client.aclose()
    return log, now


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", ["store-before-write", "store-before-sync", "store-after-sync"])
async def test_killed_at(failpoint: str, tmp_path: Path) -> None:
    port = free_port()
    clients = Clients(port)
    unanswered = 0
    for count in (1, 2, 17, 60):
        with server(tmp_path / "data", port, f"{failpoint}:{count}") as process:
            await clients.all(10_000)
            assert process.wait(30) == -signal.SIGKILL
        unanswered = max(unanswered, sum(did.ended == ENDLESS for did in clients.history))
    with server(tmp_path / "data", port):
        await clients.all(10)
        log, _ = await log_of(port)
    assert faults(clients.history, log) == []
    assert unanswered
    assert sum(bool(did.revision) for did in clients.history) > 100


def test_the_judge_sees_what_is_wrong() -> None:
    log: Log = {2: (b"1", frozenset({b"a"})), 3: (b"2", frozenset({b"a", b"b"}))}
    good = [
        Did(0, 1, 2, b"1", (b"a",)), Did(2, 3, 3, b"2", (b"a", b"b")), Did(4, 5, 3, key=b"a", found=(b"2", 3)),
        Did(0, 1, 1, key=b"b"), Did(6, value=b"3", keys=(b"a",)),
    ]  # fmt: skip
    assert faults(good, log) == []

    def kinds(*more: Did, without: int | None = None) -> set[str]:
        history = [did for at, did in enumerate(good) if at != without]
        return {fault.partition(":")[0] for fault in faults([*history, *more], log)}

    assert kinds(Did(6, 7, 4, b"4", (b"a",))) == {"lost"}
    assert kinds(Did(2, 3, 3, b"2", (b"a", b"b", b"c")), without=1) == {"torn"}
    assert kinds(Did(4, 5, 3, key=b"b")) == {"misread"}
    assert kinds(Did(4, 5, 2, key=b"a", found=(b"1", 2))) == {"back in time"}
    assert kinds(without=1) == {"invented"}
