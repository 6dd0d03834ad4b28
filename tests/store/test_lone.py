"""A lone writer commits on the spot: with the same promises, and holds others up for no more than a moment."""

from __future__ import annotations

import errno
import threading

import pytest
import trio
from sim.disk import SimDisk

from appliance.errors import UnavailableError
from appliance.host.disk import DiskFile
from appliance.store import Sizes, Store, check
from store.life import new_store, running

SIZES = Sizes(segment_bytes=1 << 20, reserve_bytes=4096, checkpoint_records=1000)


async def test_a_lone_writer_needs_no_thread() -> None:
    disk = SimDisk()
    calls = 0

    async def in_thread(function, *args):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        await trio.lowlevel.checkpoint()
        return function(*args)

    async with running(Store(disk, sizes=SIZES, in_thread=in_thread)) as store:
        for number in range(100):
            assert (await store.put(b"key", b"%d" % number)).revision == number + 2
        assert store.status().batches == 100
        assert calls < 10
    assert check(disk).problems == ()


@pytest.mark.parametrize("kind", ["write", "sync"])
async def test_a_disk_error_on_the_spot_ends_the_store(kind: str) -> None:
    disk = SimDisk()

    async def life() -> None:
        async with running(new_store(disk, SIZES)) as store:
            for _ in range(5):
                await store.put(b"key", b"before")
            disk.fault_of = lambda what, name: errno.EIO if what == kind and name.startswith("segment") else 0
            with pytest.raises(UnavailableError, match="opened anew"):
                await store.put(b"key", b"after")
            assert store.range(b"key").kvs[0].value == b"before"
            with pytest.raises(UnavailableError):
                await store.put(b"other", b"never")
            await trio.sleep_forever()  # the store's task ends all of this

    with pytest.raises(ExceptionGroup) as caught:
        await life()
    assert caught.group_contains(UnavailableError)
    disk.fault_of = lambda what, name: 0
    async with running(new_store(disk.rebooted(), SIZES)) as store:
        assert store.range(b"key").kvs[0].value in (b"before", b"after")
        assert not store.range(b"other").kvs


async def test_no_room_on_the_spot_refuses_and_goes_on() -> None:
    disk = SimDisk()
    async with running(new_store(disk, SIZES)) as store:
        for _ in range(5):
            await store.put(b"key", b"before")
        disk.fault_of = lambda what, name: errno.ENOSPC if what == "write" else 0
        with pytest.raises(UnavailableError, match="reads go on"):
            await store.put(b"key", b"x" * 9000)
        assert store.status().state == "full"
        disk.fault_of = lambda what, name: 0
        assert (await store.put(b"key", b"after")).revision == 7
        assert store.status().state == "open"


async def test_a_sync_that_hangs_holds_nobody_up() -> None:
    class Hanging(SimDisk):
        hang = False
        going = threading.Event()

        def create(self, name: str) -> DiskFile:
            file = super().create(name)
            sync = file.sync

            def slow() -> None:
                if self.hang:
                    self.going.wait(60)
                sync()

            file.sync = slow  # type: ignore[method-assign]
            return file

    disk = Hanging()
    async with running(Store(disk, sizes=SIZES)) as store:
        for _ in range(5):
            await store.put(b"key", b"before")
        disk.hang = True
        results = []
        async with trio.open_nursery() as nursery:

            async def put(key: bytes) -> None:
                results.append((await store.put(key, b"after")).revision)

            nursery.start_soon(put, b"key")
            await trio.sleep(0.1)
            nursery.start_soon(put, b"second")
            await trio.testing.wait_all_tasks_blocked()
            assert results == []  # nothing is acknowledged, and we are here
            assert store.range(b"key").kvs[0].value == b"before"
            disk.going.set()
        assert sorted(results) == [7, 8]
        assert store.range(b"key").kvs[0].value == b"after"
    assert check(disk).problems == ()


async def test_writers_who_come_together_share_a_sync() -> None:
    async with running(new_store(SimDisk(), SIZES)) as store:
        for _ in range(5):
            await store.put(b"key", b"alone")
        before = store.status().batches
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(store.put, b"key%d" % number, b"value")
        assert store.status().batches - before < 10
