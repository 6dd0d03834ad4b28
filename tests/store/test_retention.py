"""Law: nothing that is written over and over makes the store grow for ever; what is promised to be kept is kept."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from sim.disk import SimDisk

from appliance.host.disk import Disk
from appliance.store import CompactedError, Put, Retention, Sizes, Store, Txn, check, tree
from store.life import inline, running

SIZES = Sizes(segment_bytes=20_000, reserve_bytes=1024, checkpoint_records=1000)


def new_store(disk: Disk, retention: Retention) -> Store:
    return Store(disk, sizes=SIZES, retention=retention, in_thread=inline)


async def fill(store: Store, count: int, *, size: int = 100) -> None:
    for n in range(count):
        await store.put(b"key", b"%d" % n * (size // len(b"%d" % n)))
    await trio.testing.wait_all_tasks_blocked()


async def test_one_key_overwritten_for_ever_needs_a_few_segments() -> None:
    disk = SimDisk()
    for _ in range(3):
        async with running(new_store(disk, Retention(revisions=100))) as store:
            await store.put(b"other", b"stays")
            for _ in range(5):
                await fill(store, 300)
                assert store.status().segments <= 4
                kept = store.revision - 100
                assert store.range(b"key", revision=kept).kvs[0].mod_revision == kept
                assert store.compacted_revision >= store.revision - 151
            assert store.range(b"other").kvs[0].value == b"stays"
    assert check(disk).problems == ()


async def test_large_values_are_bounded_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_MARK_EVERY", 500)
    async with running(new_store(SimDisk(), Retention(revisions=10_000, size_bytes=40_000))) as store:
        for _ in range(10):
            await fill(store, 40, size=2000)
            assert store.status().size_bytes < 120_000
        kept = store.revision - 40_000 // 2500
        assert store.range(b"key", revision=kept).kvs[0].mod_revision == kept
        assert store.compacted_revision > store.revision - 40


async def test_history_is_kept_for_a_time(autojump_clock: trio.testing.MockClock) -> None:
    async with running(new_store(SimDisk(), Retention(seconds=100))) as store:
        for _ in range(100):
            await store.put(b"key", b"")
            await trio.sleep(7)
        await trio.testing.wait_all_tasks_blocked()
        assert store.revision - 100 // 7 - 4 <= store.compacted_revision <= store.revision - 100 // 7


async def test_facts_that_come_and_go_for_ever_need_a_few_segments() -> None:
    disk = SimDisk()
    async with running(new_store(disk, Retention())) as store:
        await store.put(b"key", b"value")
        for n in range(3000):
            store.submit_facts({b"lease/%d" % n: b"60", b"lease/%d" % (n - 3): b""}, lambda error: None)
            await store.txn((), (), ())
        await trio.testing.wait_all_tasks_blocked()
        assert store.status().segments <= 4
        assert store.compacted_revision == 0
        expected = store.facts(b"")
    async with running(new_store(disk, Retention())) as store:
        assert store.facts(b"") == expected == {b"lease/%d" % n: b"60" for n in (2997, 2998, 2999)}
        assert store.range(b"key", revision=2).kvs[0].value == b"value"


async def test_retention_can_change_while_the_store_runs() -> None:
    async with running(new_store(SimDisk(), Retention())) as store:
        await fill(store, 500)
        assert store.compacted_revision == 0
        store.retain(Retention(revisions=10))
        await fill(store, 1)
        assert store.compacted_revision == store.revision - 10
        with pytest.raises(CompactedError):
            store.range(b"key", revision=3)
        done: list[object] = []
        store.submit(Txn(success=(Put(b"key"),)), done.append)
        await store.put(b"key", b"")
        assert len(done) == 1
