"""Law: a store that reached its quota refuses what needs room, says so for good, and is helped without a restart."""

from __future__ import annotations

import pytest
import trio
from sim.disk import SimDisk

from appliance.errors import ApplianceError
from appliance.host.disk import Disk
from appliance.store import NoSpaceError, Put, Range, Sizes, Store, Txn, check
from store.life import inline, running

QUOTA = 60_000


def new_store(disk: Disk, quota: int = QUOTA) -> Store:
    sizes = Sizes(segment_bytes=4000, reserve_bytes=1024, checkpoint_records=1000)
    return Store(disk, sizes=sizes, quota=quota, in_thread=inline)


async def fill(store: Store, *, names: int = 1000) -> int:
    for n in range(1000):
        try:
            await store.put(b"%d" % (n % names), bytes(300))
        except NoSpaceError:
            return n
    raise AssertionError("the quota was not reached")


async def disarm(store: Store) -> None:
    done = trio.Event()
    store.set_alarm(False, lambda error: done.set())
    await done.wait()
    await trio.testing.wait_all_tasks_blocked()


async def test_deletes_compaction_defragment_and_disarm_make_room() -> None:
    disk = SimDisk()
    async with running(new_store(disk)) as store:
        count = await fill(store)
        assert QUOTA * 0.9 < store.status().size_bytes <= QUOTA + 500
        assert store.status().state == "nospace"
        assert store.alarmed
        refusals: list[object] = []
        store.submit(Put(b"x"), refusals.append)
        store.submit(Txn(success=(Txn(failure=(Put(b"x"),)),)), refusals.append)
        store.submit_facts({b"lease/1": b"1"}, refusals.append)
        assert [type(each) for each in refusals] == [NoSpaceError] * 3
        with pytest.raises(NoSpaceError, match="quota of 60000 bytes was reached"):
            await store.txn((), (Put(b"x"),))
        assert (await store.txn((), (Range(b"0"),))).responses
        accepted: list[ApplianceError | None] = []
        store.submit_facts({b"lease/1": b""}, accepted.append)
        await disarm(store)  # nothing was done about it
        assert accepted == [None]
        with pytest.raises(NoSpaceError):
            await store.put(b"x", b"")
    async with running(new_store(disk)) as store:
        assert store.status().state == "nospace"  # also after a restart
        assert (await store.delete(b"1", b":")).deleted > 100
        await store.compact(store.revision, physical=True)
        await store.defragment()
        assert store.status().size_bytes < QUOTA * 0.6
        with pytest.raises(NoSpaceError):
            await store.put(b"x", b"")
        await disarm(store)
        assert store.status().state == "open"
        await store.put(b"x", b"y")
        assert store.range(b"0", b":", count_only=True).count < count
    assert check(disk).problems == ()


async def test_what_is_overwritten_comes_back_by_defragment() -> None:
    disk = SimDisk()
    async with running(new_store(disk)) as store:
        for _ in range(3):
            await fill(store, names=20)
            await store.compact(store.revision, physical=True)
            await store.defragment()
            assert store.status().size_bytes < 20 * 400 + 3 * 4000
            await disarm(store)
        assert store.range(b"\0", b"\0", count_only=True).count == 20
    assert check(disk).problems == ()


async def test_no_quota_no_alarm() -> None:
    disk = SimDisk()
    async with running(new_store(disk)) as store:
        await fill(store)
    async with running(new_store(disk, quota=0)) as store:
        assert not store.alarmed
        await store.put(b"x", b"")
        store.quota = 10 * QUOTA
        await disarm(store)
        await store.put(b"x", b"")
