"""Law: a defragmentation gives back all room that no kept revision needs, and cut off anywhere loses nothing."""

from __future__ import annotations

import pytest
import trio
from sim.disk import SimDisk

from appliance.store import Delete, Event, Range, Sizes, Store, Txn, check, restore
from store.life import new_store, running
from store.test_power import content, until_dark

ROOMY = Sizes(segment_bytes=1 << 20, reserve_bytes=1024, checkpoint_records=1000)
TINY = Sizes(segment_bytes=900, reserve_bytes=300, checkpoint_records=9)
KEYS, ROUNDS = 10, 30


async def fill(store: Store) -> None:
    for number in range(ROUNDS):
        for key in range(KEYS):
            await store.put(b"k%d" % key, b"%d." % number * 200)
        await store.delete(b"k3")


async def history(store: Store, start: int) -> list[Event]:
    events: list[Event] = []
    async with store.watch(b"\0", b"\0", start_revision=start) as watcher:
        while not watcher.synced:
            batch = watcher._catch_up(store._reading())
            events += batch.events if batch else ()
    return events


@pytest.mark.parametrize("behind", [0, 1, 7])
async def test_the_only_segment_gives_its_room_back(behind: int) -> None:
    disk = SimDisk()
    async with running(new_store(disk, ROOMY)) as store:
        await fill(store)
        before, was, oldest = store.status().size_bytes, content(store), store.revision - behind
        await store.compact(oldest, physical=True)
        told = await history(store, oldest)
        then = store.read(Range(b"\0", b"\0", revision=oldest))
        assert store.status().size_bytes > 0.99 * before  # it is the newest: only a defragmentation leaves it
        await store.defragment()
        assert store.status().size_bytes < (KEYS + behind) * 800
        assert content(store) == was
        assert await history(store, oldest) == told
        assert [event.kv.mod_revision for event in told] == list(range(oldest, store.revision + 1))
        assert store.read(Range(b"\0", b"\0", revision=oldest)).kvs == then.kvs
        size = store.status().size_bytes
        for _ in range(3):
            await store.defragment()
        assert store.status().size_bytes < size + 400
        await store.put(b"k3", b"again")
        assert (await history(store, store.revision))[0].kv.value == b"again"
    assert check(disk).problems == ()
    async with running(new_store(disk, ROOMY)) as store:
        assert content(store) == was | {b"k3": b"again"}
        assert await history(store, oldest) == told + await history(store, store.revision)


async def test_who_watches_is_told_nothing_twice() -> None:
    async with running(new_store(SimDisk(), ROOMY)) as store:
        heard: list[int] = []
        async with trio.open_nursery() as nursery:

            async def listen(*, task_status: trio.TaskStatus[None]) -> None:
                async with store.watch(b"k", b"l", prev_kv=True) as watcher:
                    task_status.started()
                    async for batch in watcher:
                        heard.extend(event.kv.mod_revision for event in batch.events)

            await nursery.start(listen)
            await fill(store)
            await store.compact(store.revision - 5, physical=True)
            await store.defragment()
            await store.put(b"k1", b"last")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert heard == list(range(2, store.revision + 1))


async def test_under_writers_it_still_ends() -> None:
    async with running(new_store(SimDisk(), ROOMY)) as store, trio.open_nursery() as nursery:
        await fill(store)
        await store.compact(store.revision, physical=True)

        async def write(number: int) -> None:
            for n in range(10_000):
                await store.put(b"w%d" % number, b"%d" % n)

        for number in range(3):
            nursery.start_soon(write, number)
        with trio.fail_after(60):
            await store.defragment()
        nursery.cancel_scope.cancel()


async def script(store: Store) -> None:
    for number in range(4):
        for key in (b"a", b"b", b"c"):
            await store.put(key, key * number * 40)
    await store.txn((), (Delete(b"a"), Txn(success=(Delete(b"b"),))))
    await store.put(b"b", b"back")
    await store.compact(store.revision - 3, physical=True)
    await store.defragment()
    await store.put(b"d", b"after")
    await store.compact(store.revision, physical=True)
    await store.defragment()


@pytest.mark.parametrize("sizes", [TINY, ROOMY], ids=["tiny", "roomy"])
async def test_cut_at_every_operation(sizes: Sizes) -> None:
    def live(disk: SimDisk) -> None:
        async def main() -> None:
            async with running(new_store(disk, sizes)) as store:
                await script(store)

        trio.run(main)

    await trio.to_thread.run_sync(sweep, live, sizes)


def sweep(live, sizes: Sizes) -> None:  # type: ignore[no-untyped-def]
    whole = SimDisk()
    live(whole)
    left: list[int] = []
    for cut in range(1, whole.operations + 1):
        disk = SimDisk(cut, cut_at=cut)
        until_dark(lambda disk=disk: live(disk))  # type: ignore[misc]
        disk.cut()
        after = disk.rebooted()
        assert check(after).problems == (), f"cut at {cut}"

        async def look(after: SimDisk = after, cut: int = cut) -> None:
            async with running(new_store(after, sizes)) as store:
                oldest = max(store.compacted_revision, 2)
                told = await history(store, oldest)
                revisions = sorted({event.kv.mod_revision for event in told})
                assert revisions == list(range(oldest, store.revision + 1)), f"cut at {cut}"
                assert len({(e.kv.mod_revision, e.kv.key) for e in told}) == len(told), f"told twice, cut at {cut}"
                now = content(store)
                for event in told:  # the history leads to what is there
                    assert now.get(event.kv.key, b"") == event.kv.value or event.kv.mod_revision < store.revision
                backup = [chunk async for chunk in store.backup()]
                copy = SimDisk()
                restore(copy, backup)
                async with running(new_store(copy, sizes)) as other:
                    assert content(other) == now
                    assert await history(other, oldest) == told
                async with store.export() as export:
                    changes = [(c.revision, c.sub) for batch in export.changes() for c in batch]
                assert changes == sorted(set(changes)), f"exported twice, cut at {cut}"
                await store.defragment()
                assert content(store) == now
                assert await history(store, oldest) == told
                left.append(store.revision)

        trio.run(look)
    assert len(left) == whole.operations
    assert max(left) == left[-1]
