"""What a watch promises, one judge for each promise, over what quick, slow, stuck and reconnecting watchers were told.

A history is what was committed, by revision, and what one watcher was told in one or more sessions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from appliance.etcdapi.pb import rpc_pb2 as pb
from appliance.store import Delete, Put, Store
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving

Change = tuple[int, int, bytes]  # revision, kind, key
ANSWER = pb.WatchResponse


@dataclass
class Session:
    """One watch: from where, and message by message; one without changes is a bookmark."""

    start: int
    told: list[tuple[int, list[Change]]] = field(default_factory=list)  # header revision, changes

    def changes(self) -> list[Change]:
        return [change for _, changes in self.told for change in changes]

    def last(self) -> int:
        return max((change[0] for change in self.changes()), default=self.start - 1)


@dataclass
class History:
    """``committed``: what of it concerns the watcher's range."""

    committed: list[Change]
    sessions: list[Session]

    def between(self, first: int, last: int) -> list[Change]:
        return [change for change in self.committed if first <= change[0] <= last]


def ordered(history: History) -> Iterator[str]:
    for session in history.sessions:
        revisions = [change[0] for change in session.changes()]
        yield from (f"{b} after {a}" for a, b in pairwise(revisions) if b < a)


def unique(history: History) -> Iterator[str]:
    for session in history.sessions:
        changes = session.changes()
        yield from (f"twice {change}" for change in set(changes) if changes.count(change) > 1)


def reliable(history: History) -> Iterator[str]:
    for session in history.sessions:
        told = set(session.changes())
        expected = set(history.between(session.start, session.last()))
        yield from (f"missing {change}" for change in expected - told)
        yield from (f"never happened {change}" for change in told - expected)


def atomic(history: History) -> Iterator[str]:
    for session in history.sessions:
        for _, changes in session.told:
            for revision in {change[0] for change in changes}:
                here = {change for change in changes if change[0] == revision}
                if not here.issuperset(history.between(revision, revision)):
                    yield f"a part of revision {revision}: {here}"


def resumable(history: History) -> Iterator[str]:
    first, last = history.sessions[0], history.sessions[-1]
    for before, after in pairwise(history.sessions):
        assert after.start == before.last() + 1
    told = [change for session in history.sessions for change in session.changes()]
    if sorted(told) != sorted(history.between(first.start, last.last())):
        yield f"{len(history.sessions)} sessions do not make the whole"


def bookmarkable(history: History) -> Iterator[str]:
    for session in history.sessions:
        told: set[Change] = set()
        mark = 0
        for revision, changes in session.told:
            yield from (f"{change} after the bookmark {mark}" for change in changes if change[0] <= mark)
            told |= set(changes)
            if not changes:
                mark = revision
                missing = set(history.between(session.start, mark)) - told
                yield from (f"bookmark {mark} before {change}" for change in missing)


PROMISES: list[Callable[[History], Iterator[str]]] = [ordered, unique, reliable, atomic, resumable, bookmarkable]


# Recording


class Recorder:
    """A watcher of a range over a connection of its own."""

    def __init__(self, address: str, key: bytes, end: bytes) -> None:
        self.address, self.key, self.end = address, key, end
        self.sessions: list[Session] = []

    async def begin(self, start: int) -> None:
        self.client = await Client.connect(self.address)
        self.stream = await self.client.open("Watch/Watch")
        create = pb.WatchCreateRequest(key=self.key, range_end=self.end, start_revision=start)
        await self.client.say(self.stream, pb.WatchRequest(create_request=create))
        assert (await self.client.hear(self.stream, ANSWER)).created
        self.sessions.append(Session(start))

    async def hear(self) -> None:
        answer = await self.client.hear(self.stream, ANSWER)
        assert not answer.canceled
        changes = [(event.kv.mod_revision, event.type, event.kv.key) for event in answer.events]
        self.sessions[-1].told.append((answer.header.revision, changes))

    async def until(self, revision: int) -> None:
        """Asks for bookmarks on the way."""
        while self.sessions[-1].last() < revision:
            if len(self.sessions[-1].told) % 10 == 3:
                await self.client.say(self.stream, pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
            await self.hear()

    async def reconnecting(self, revision: int) -> None:
        while True:
            for _ in range(3):
                if self.sessions[-1].last() >= revision:
                    return
                await self.hear()
            await self.client.aclose()
            await self.begin(self.sessions[-1].last() + 1)


async def write(store: Store, count: int, committed: list[Change], size: int) -> None:
    chance = random.Random(count)
    keys = [b"k%02d" % number for number in range(20)]
    there = {kv.key for kv in store.range(b"k", b"l").kvs}

    def note(revision: int, kind: int, key: bytes) -> None:
        committed.append((revision, kind, key))
        (there.discard if kind else there.add)(key)

    for _ in range(count):
        some = chance.sample(keys, 4)
        if chance.random() < 0.4:
            note((await store.put(some[0], bytes(size))).revision, 0, some[0])
        elif chance.random() < 0.7:
            revision = (await store.txn((), [Put(key, bytes(size)) for key in some])).revision
            for key in some:
                note(revision, 0, key)
        else:
            start, end = sorted(some[:2])
            gone = sorted(key for key in there if start <= key < end)
            result = await store.txn((), [Delete(start, end), Put(b"k99", b"x")])
            for key in gone:
                note(result.revision, 1, key)
            note(result.revision, 0, b"k99")
    note((await store.txn((), [Put(key, b"end") for key in keys])).revision, 0, b"")
    committed[-1:] = [(store.revision, 0, key) for key in keys]


@pytest.mark.slow
@pytest.mark.parametrize("size", [10, 20_000])
async def test_promises_hold(size: int, tmp_path: Path) -> None:
    committed: list[Change] = []
    async with serving(tmp_path) as (address, store):
        await write(store, 50, committed, size)
        kinds = ("quick", "narrow", "reconnecting", "stuck", "late")
        watchers = {name: Recorder(address, b"k", b"l") for name in kinds}
        watchers["narrow"] = Recorder(address, b"k05", b"k08")
        for name, watcher in watchers.items():
            await watcher.begin(store.revision + 1 if name in ("stuck", "quick") else 2)
        end = store.revision + 251
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchers["quick"].until, end)
            nursery.start_soon(watchers["narrow"].until, end)
            nursery.start_soon(watchers["reconnecting"].reconnecting, end)
            await write(store, 250, committed, size)  # "stuck" reads nothing meanwhile
            assert store.revision == end
        await watchers["stuck"].until(end)
        await watchers["late"].until(end)
        for watcher in watchers.values():
            await watcher.client.aclose()
    assert len(watchers["reconnecting"].sessions) > 2
    for name, watcher in watchers.items():
        mine = [change for change in committed if watcher.key <= change[2] < watcher.end]
        history = History(mine, watcher.sessions)
        assert watcher.sessions[-1].last() == end
        for promise in PROMISES:
            assert list(promise(history)) == [], (name, promise.__name__)


# The judges


def recorded(*sessions: Session) -> History:
    return History([(2, 0, b"a"), (3, 0, b"a"), (3, 0, b"b"), (4, 1, b"a"), (5, 0, b"c")], list(sessions))


def good() -> list[Session]:
    return [
        Session(2, [(2, [(2, 0, b"a")]), (3, [(3, 0, b"a"), (3, 0, b"b")]), (3, [])]),
        Session(4, [(5, [(4, 1, b"a"), (5, 0, b"c")]), (5, [])]),
    ]


def swap(history: History) -> None:
    history.sessions[1].told[0][1].reverse()


def repeat(history: History) -> None:
    history.sessions[0].told[0][1].append((2, 0, b"a"))


def drop(history: History) -> None:
    del history.sessions[0].told[0]


def invent(history: History) -> None:
    history.sessions[1].told[0][1].append((5, 0, b"z"))


def split(history: History) -> None:
    told = history.sessions[0].told
    told[1:2] = [(3, [(3, 0, b"a")]), (3, [(3, 0, b"b")])]


def skip(history: History) -> None:
    del history.sessions[1].told[0][1][0]


def mark_early(history: History) -> None:
    history.sessions[0].told.insert(0, (3, []))


@pytest.mark.parametrize(
    ("promise", "harm"),
    [(ordered, swap), (unique, repeat), (reliable, drop), (reliable, invent), (atomic, split), (resumable, skip),
     (bookmarkable, mark_early)],
)  # fmt: skip
def test_each_judge_sees_its_harm(promise: Callable[[History], Iterator[str]], harm: Callable[[History], None]) -> None:
    history = recorded(*good())
    assert [each.__name__ for each in PROMISES if list(each(history))] == []
    harm(history)
    assert list(promise(history))


# Many


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


async def watch_many(client: Client, keys: list[tuple[bytes, bytes]]) -> int:
    stream = await client.open("Watch/Watch")
    for key, end in keys:
        create = pb.WatchCreateRequest(key=key, range_end=end)
        await client.say(stream, pb.WatchRequest(create_request=create))
    for _ in keys:
        assert (await client.hear(stream, ANSWER)).created
    return stream


@pytest.mark.slow
async def test_ten_thousand_watchers_and_one_who_never_reads(tmp_path: Path) -> None:
    """7,500 are told of their key, and what 2,500 others leave unread costs bounded memory and nobody's time."""
    async with serving(tmp_path) as (address, store):
        clients = [await Client.connect(address) for _ in range(4)]
        ranges = [(b"w/%05d" % number, b"") for number in range(7500)]
        streams = [await watch_many(clients[n], ranges[n * 2500 : n * 2500 + 2500]) for n in range(3)]
        await watch_many(clients[3], [(b"w/", b"w0")] * 2500)
        before = resident_bytes()
        changed = random.Random(1).sample(range(7500), 300)
        with trio.fail_after(60):
            for number in changed:
                await store.put(b"w/%05d" % number, bytes(10_000))
        for n in range(3):
            mine = [number for number in changed if number // 2500 == n]
            for number in mine:
                (event,) = (await clients[n].hear(streams[n], ANSWER)).events
                assert event.kv.key == b"w/%05d" % number
        assert resident_bytes() - before < 150 << 20
        for client in clients:
            with suppress(trio.BrokenResourceError):
                await client.aclose()
