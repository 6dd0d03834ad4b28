"""An export, made a store again, answers every read and watch as the store did, compacted and range-deleted or not."""

from __future__ import annotations

import random

import pytest
import trio
from sim.disk import SimDisk

from appliance.store import (
    Change,
    CompactedError,
    Delete,
    Put,
    Range,
    Store,
    Txn,
    WatchBatch,
    backup_of,
    restore,
    transaction,
)  # fmt: skip
from store.life import new_store, running


async def work(store: Store, chance: random.Random, steps: int) -> None:
    for step in range(steps):
        key = b"k%02d" % chance.randrange(30)
        match chance.randrange(12):
            case 0:
                await store.delete(key, b"k%02d" % chance.randrange(31))
            case 1:
                await store.delete(key)
            case 2 | 3:
                keys = [b"k%02d" % n for n in chance.sample(range(30), 4)]
                await store.txn((), [Put(keys[0], b"t"), Put(keys[1], b"u"), Delete(keys[2]), Put(keys[3], b"", 5)], ())
            case 4:
                await store.txn((), [Txn(success=(Delete(b"k00", b"k20"),)), Put(b"k25", b"after")], ())
            case 5 if step % 5 == 0 and store.revision > 3:
                revision = store.revision - chance.randrange(12)
                if revision > store.compacted_revision:
                    await store.compact(revision, physical=chance.random() < 0.7)
            case _:
                await store.put(key, chance.randbytes(chance.randrange(300)), lease=chance.choice((0, 0, 9)))


async def exported(store: Store) -> tuple[list[Change], int, int]:
    found: list[Change] = []
    async with store.export() as export:
        for batch in export.changes():
            found += batch
            await trio.lowlevel.checkpoint()
        return found, export.compacted_revision, export.revision


async def watched(store: Store) -> WatchBatch | None:
    events = []
    first = store.compacted_revision or 1
    async with store.watch(b"\0", b"\0", start_revision=first) as watcher:
        if first > store.revision:
            return None
        async for batch in watcher:
            events += batch.events
            if batch.revision == store.revision:
                break
    return WatchBatch(store.revision, tuple(events))


@pytest.mark.parametrize("seed", range(12))
async def test_an_export_made_a_store_again(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "RANGE_TOMBSTONE_KEYS", 3)
    chance = random.Random(seed)
    async with running(new_store(SimDisk())) as store:
        await work(store, chance, 150)
        changes, compacted, revision = await exported(store)
        assert (compacted, revision) == (store.compacted_revision, store.revision)
        assert len({(change.revision, change.sub) for change in changes}) == len(changes)
        assert sorted(changes, key=lambda change: change[:2]) == changes
        disk = SimDisk()
        assert restore(disk, backup_of(changes, compacted)) == revision
        async with running(new_store(disk)) as other:
            assert other.compacted_revision == compacted
            for at in range(max(compacted, 1), revision + 1):
                assert other.read(Range(b"\0", b"\0", at)) == store.read(Range(b"\0", b"\0", at))
            if compacted > 1:
                with pytest.raises(CompactedError):
                    other.read(Range(b"\0", b"\0", compacted - 1))
            assert await watched(other) == await watched(store)
            await work(other, chance, 40)
            again, *_ = await exported(other)
            assert again[-1].revision == other.revision


async def test_scratch_files_leave_nothing_behind() -> None:
    disk = SimDisk()
    async with running(new_store(disk)) as store:
        await store.put(b"a", b"b")
        before = disk.names()
        with store.scratch() as file:
            file.write(b"x", 0)
            assert disk.names() != before
        assert disk.names() == before


async def test_an_empty_store() -> None:
    async with running(new_store(SimDisk())) as store:
        assert await exported(store) == ([], 0, 1)
    disk = SimDisk()
    assert restore(disk, backup_of([])) == 1


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("how", ["export", "backup"])
async def test_a_key_put_again_behind_a_compaction_is_in_what_began_before(
    how: str, compacted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The range tombstone that ended the key is compacted away, but who reads the past still needs its record."""
    monkeypatch.setattr(transaction, "RANGE_TOMBSTONE_KEYS", 3)
    keys = [b"k%d" % n for n in range(6)]
    disk = SimDisk()
    async with running(new_store(disk)) as store:
        for key in keys:
            await store.put(key, b"old")
        if compacted:
            await store.compact(store.revision, physical=True)
        await store.delete(b"k", b"l")
        found: list[bytes] = []
        async with store.export() as export:
            backup = store.backup()
            found.append(await anext(backup))
            await store.put(b"x", b"")
            await store.compact(store.revision)
            await store.put(keys[0], b"new")
            found += [chunk async for chunk in backup]
            if how == "export":
                changes = [change for batch in export.changes() for change in batch]
                gone = [change.key for change in changes if change.deleted]
                assert (gone, [change.key for change in changes if not change.deleted]) == (keys, keys)
                return
    copy = SimDisk()
    restore(copy, found)
    async with running(new_store(copy)) as store:
        assert store.range(b"\0", b"\0").kvs == ()
        assert [kv.key for kv in store.range(b"\0", b"\0", revision=store.revision - 1).kvs] == keys
