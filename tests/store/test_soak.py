"""Long lives: writes, reads at old revisions, compactions and restarts against the model, with live watchers."""

from __future__ import annotations

import random

import pytest
import trio
from sim.disk import SimDisk

from appliance.errors import ApplianceError
from appliance.store import (
    Delete,
    Event,
    FutureRevisionError,
    Put,
    Range,
    Sizes,
    Store,
    Txn,
    Watcher,
    check,
    transaction,
)  # fmt: skip
from store.life import new_store, running
from store.model import Model

SIZES = (Sizes(1500, 512, 60), Sizes(6000, 4096, 10_000), Sizes(800, 64, 25))


class Life:
    def __init__(self, seed: int, sizes: Sizes) -> None:
        self.rng = random.Random(seed)
        self.disk = SimDisk(seed)
        self.sizes = sizes
        self.model = Model()
        long = b"/registry/" + b"n" * 40
        self.pool = [b"k%d" % n for n in range(12)] + [long + b"/%03d" % n for n in range(40)]
        self.pool += [long[: self.rng.randint(1, 40)] for _ in range(6)] + [b"\0", b"\xff\xff"]
        self.given_back = 0

    def random_range(self) -> tuple[bytes, bytes | None]:
        key = self.rng.choice(self.pool)
        end = self.rng.choice([None, None, b"\0", self.rng.choice(self.pool), key[:-1] + b"\xff"])
        return key, end

    def operation(self) -> Put | Delete:
        if self.rng.random() < 0.75:
            value = self.rng.randbytes(self.rng.choice([0, 3, 40, 200]))
            return Put(self.rng.choice(self.pool), value, self.rng.choice([0, 5]), self.rng.random() < 0.3)
        if self.rng.random() < 0.6:
            return Delete(self.rng.choice(self.pool), None, self.rng.random() < 0.3)
        return Delete(*self.random_range(), self.rng.random() < 0.3)

    async def live(self, store: Store, steps: int) -> None:
        for _ in range(steps):
            dice = self.rng.random()
            if dice < 0.6:
                operation = self.operation()
                result = await store.txn((), (operation,), ())
                assert result == self.model.apply(Txn(success=(operation,)))
            elif dice < 0.7:
                puts = tuple(Put(key, b"t") for key in self.rng.sample(self.pool, self.rng.randint(1, 6)))
                assert await store.txn((), puts, ()) == self.model.apply(Txn(success=puts))
            elif dice < 0.97:
                self.look(store)
            else:
                await self.compact(store)

    def look(self, store: Store) -> None:
        key, end = self.random_range()
        revision = self.rng.choice([0, 0, self.rng.randint(0, self.model.revision)])
        request = Range(
            key, end, revision, self.rng.choice([0, 0, 1, 5]), self.rng.random() < 0.2, self.rng.random() < 0.2
        )
        try:
            expected = self.model.range(request)
        except ApplianceError as exc:
            with pytest.raises(type(exc)):
                store.read(request)
            return
        assert store.read(request) == expected

    async def compact(self, store: Store) -> None:
        low = self.model.compacted
        if low >= self.model.revision:
            return
        revision = self.rng.randint(low + 1, self.model.revision)
        before = store.status().segments
        self.model.compact(revision)
        await store.compact(revision, physical=True)
        self.given_back += max(0, before - store.status().segments)

    async def follow(self, watcher: Watcher, into: list[Event]) -> None:
        async for batch in watcher:
            assert batch.events[-1].kv.mod_revision == batch.revision
            into += batch.events


@pytest.mark.parametrize("seed", range(6))
async def test_long_life(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "RANGE_TOMBSTONE_KEYS", 3)
    life = Life(seed, SIZES[seed % len(SIZES)])
    for _ in range(4):
        async with running(new_store(life.disk, life.sizes)) as store, trio.open_nursery() as nursery:
            first = life.model.revision + 1
            watches = [(b"\0", b"\0"), (b"/registry/", b"/registry0"), (b"k3", None), life.random_range()]
            found: list[list[Event]] = [[] for _ in watches]
            for (key, end), into in zip(watches, found, strict=True):
                watcher = await nursery.start(open_watch, store, key, end)
                nursery.start_soon(life.follow, watcher, into)
            await life.live(store, 350)
            await trio.testing.wait_all_tasks_blocked()
            for (key, end), into in zip(watches, found, strict=True):
                assert into == life.model.events(key, end, first, prev_kv=False)
            for revision in range(max(life.model.compacted, 1), life.model.revision + 1):
                request = Range(b"\0", b"\0", revision)
                assert store.read(request) == life.model.range(request)
            nursery.cancel_scope.cancel()
        report = check(life.disk)
        assert report.problems == ()
        assert (report.revision, report.keys) == (life.model.revision, len(life.model.states[life.model.revision]))
    assert life.given_back > 3
    with pytest.raises(FutureRevisionError):
        life.model.range(Range(b"a", None, life.model.revision + 1))


async def open_watch(store: Store, key: bytes, end: bytes | None, *, task_status: trio.TaskStatus[Watcher]) -> None:
    async with store.watch(key, end) as watcher:
        task_status.started(watcher)
        await trio.sleep_forever()
