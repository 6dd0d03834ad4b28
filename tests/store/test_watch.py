"""Ordered, unique, reliable, atomic, resumable; and nobody waits for a slow watcher."""

from __future__ import annotations

import pytest
import trio
from sim.disk import SimDisk

from appliance.errors import InputError, UnavailableError
from appliance.store import CompactedError, Delete, Event, EventKind, Put, Store, watching
from store.life import new_store, running


def brief(events: list[Event]) -> list[tuple[str, bytes, int]]:
    return [(event.kind.name, event.kv.key, event.kv.mod_revision) for event in events]


async def take(store: Store, key: bytes, end: bytes | None, start: int, count: int, **options: bool) -> list[Event]:
    events: list[Event] = []
    async with store.watch(key, end, start_revision=start, **options) as watcher:
        while len(events) < count:
            events += (await anext(watcher)).events
    return events


async def test_history_and_then_the_present_without_a_gap_or_a_double() -> None:
    async with running(new_store(SimDisk())) as store:
        for n in range(20):
            await store.put(b"k", b"%d" % n)
        async with store.watch(b"k", start_revision=5) as watcher:
            found: list[Event] = []
            for n in range(20, 60):
                await store.put(b"k", b"%d" % n)
                if n % 7 == 0:
                    found += (await anext(watcher)).events
            while not found or found[-1].kv.mod_revision < 61:
                found += (await anext(watcher)).events
            assert [event.kv.mod_revision for event in found] == list(range(5, 62))
            assert watcher.synced


async def test_a_slow_watcher_holds_nobody_and_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "QUEUE_EVENTS_MAX", 4)
    async with running(new_store(SimDisk())) as store, store.watch(b"\0", b"\0") as slow:
        for n in range(100):
            await store.put(b"%d" % n, bytes(30))
        assert not slow.synced
        assert len(slow._queue) <= 5
        found: list[Event] = []
        while len(found) < 100:
            found += (await anext(slow)).events
        assert [event.kv.mod_revision for event in found] == list(range(2, 102))


async def test_a_slow_watcher_hears_that_its_past_was_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "QUEUE_EVENTS_MAX", 2)
    async with running(new_store(SimDisk())) as store, store.watch(b"\0", b"\0") as slow:
        for n in range(50):
            await store.put(b"%d" % (n % 3), b"")
        await store.compact(40, physical=True)
        with pytest.raises(CompactedError) as caught:  # noqa: PT012
            while True:
                await anext(slow)
        assert caught.value.compacted_revision == 40


async def test_an_idle_watcher_does_not_mind_a_compaction() -> None:
    async with running(new_store(SimDisk())) as store, store.watch(b"quiet") as idle:
        for n in range(50):
            await store.put(b"%d" % (n % 3), b"")
        await store.compact(50, physical=True)
        await store.put(b"quiet", b"1")
        assert brief(list((await anext(idle)).events)) == [("PUT", b"quiet", 52)]


async def test_one_revision_comes_whole_and_in_order() -> None:
    async with running(new_store(SimDisk())) as store, store.watch(b"\0", b"\0") as watcher:
        await store.txn((), (Put(b"b"), Put(b"a")))
        await store.txn((), (Delete(b"a", b"z"), Put(b"zz")))
        found = [*(await anext(watcher)).events, *(await anext(watcher)).events]
        assert brief(found) == [
            ("PUT", b"b", 2), ("PUT", b"a", 2), ("DELETE", b"a", 3), ("DELETE", b"b", 3), ("PUT", b"zz", 3),
        ]  # fmt: skip


async def test_prev_kv_as_long_as_it_is_kept() -> None:
    async with running(new_store(SimDisk())) as store:
        async with store.watch(b"a", prev_kv=True) as live:
            for value in (b"1", b"2", b"3"):
                await store.put(b"a", value)
            await store.delete(b"a")
            seen = [event for _ in range(4) for event in (await anext(live)).events]
        assert [event.prev.value if event.prev else None for event in seen] == [None, b"1", b"2", b"3"]
        await store.compact(3, physical=True)
        again = await take(store, b"a", None, 3, 3, prev_kv=True)
        assert [event.prev.value if event.prev else None for event in again] == [None, b"2", b"3"]
        assert again[-1].kind is EventKind.DELETE


async def test_a_huge_delete_is_one_record_and_every_watcher_hears_of_its_keys() -> None:
    async with running(new_store(SimDisk())) as store:
        for first in range(0, 2000, 100):
            await store.txn((), tuple(Put(b"/k/%05d" % n) for n in range(first, first + 100)))
        async with store.watch(b"/k/", b"/k0") as watcher, store.watch(b"/k/00007") as one, store.watch(b"x") as other:
            writes = store.status().writes
            assert (await store.delete(b"/k/", b"/k0")).deleted == 2000
            assert store.status().writes == writes + 1
            found = list((await anext(watcher)).events)
            assert [event.kv.key for event in found] == [b"/k/%05d" % n for n in range(2000)]
            assert {event.kind for event in found} == {EventKind.DELETE}
            assert brief(list((await anext(one)).events)) == [("DELETE", b"/k/00007", 22)]
            await store.put(b"x", b"")
            assert brief(list((await anext(other)).events)) == [("PUT", b"x", 23)]


async def test_from_the_future_and_from_nowhere() -> None:
    async with running(new_store(SimDisk())) as store:
        async with store.watch(b"a", start_revision=4) as watcher:
            for _ in range(4):
                await store.put(b"a", b"")
            assert (await anext(watcher)).revision == 4
        with pytest.raises(InputError, match="negative"):
            async with store.watch(b"a", start_revision=-1):
                pass
        await store.compact(4)
        with pytest.raises(CompactedError):
            async with store.watch(b"a", start_revision=3):
                pass
        assert [event.kv.mod_revision for event in await take(store, b"a", None, 4, 2)] == [4, 5]


async def test_watchers_hear_that_the_store_closed() -> None:
    store = new_store(SimDisk())
    async with trio.open_nursery() as nursery:

        async def follow(*, task_status: trio.TaskStatus[None]) -> None:
            async with store.watch(b"a") as watcher:
                task_status.started()
                with pytest.raises(UnavailableError, match="the store is closed"):
                    await anext(watcher)

        async with running(store):
            await nursery.start(follow)


async def test_nothing_is_seen_before_it_is_durable() -> None:
    """The disk hangs in a sync: neither reads nor watchers may know of the write."""
    disk = SimDisk()
    release = trio.Event()
    hanging = False

    async def in_thread(function, *args):  # type: ignore[no-untyped-def]
        if hanging:
            await release.wait()
        return function(*args)

    store = Store(disk, in_thread=in_thread)
    async with running(store), store.watch(b"a") as watcher, trio.open_nursery() as nursery:
        await store.put(b"a", b"old")
        await anext(watcher)
        hanging = True
        nursery.start_soon(store.put, b"a", b"new")
        nursery.start_soon(store.put, b"b", b"new")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(store.delete, b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert store.status().waiting_writers == 3
        assert store.revision == 2
        assert store.range(b"a").kvs[0].value == b"old"
        assert store.range(b"a", b"z", count_only=True).count == 1
        assert [kv.value for kv in store.range(b"a", b"z").kvs] == [b"old"]
        assert not watcher._queue
        hanging = False
        release.set()
        found = [event for _ in range(2) for event in (await anext(watcher)).events]
        assert brief(found) == [("PUT", b"a", 3), ("DELETE", b"a", 5)] or brief(found) == [
            ("PUT", b"a", 4), ("DELETE", b"a", 5),
        ]  # fmt: skip
    assert store.status().state == "closed"
