"""What was made of a record is kept, within bounds; never of what may still be taken back."""

from __future__ import annotations

import errno

import pytest
from sim.disk import SimDisk

from appliance.errors import UnavailableError
from appliance.store import Range
from appliance.store.cache import RecordCache
from store.life import new_store, running


def make(key: bytes, value: bytes, create: int, mod: int, version: int, lease: int) -> bytes:
    return b"%s=%s@%d" % (key, value, mod)


def test_the_oldest_goes_first() -> None:
    cache = RecordCache(10_000)
    for at in range(1000):
        cache.add(at, b"x" * 100)
        assert cache.size <= 10_000
    assert list(cache.entries) == list(range(960, 1000))
    cache.add(1000, b"x" * 400)
    assert 1000 not in cache.entries


async def test_reads_are_kept_and_stay_true() -> None:
    disk = SimDisk()
    async with running(new_store(disk)) as store:
        for number in range(20):
            await store.put(b"key%02d" % number, b"old")
        everything = Range(b"key", b"kez")
        first = store.read_plain(everything, make)
        assert store.read_plain(everything, make) == first
        await store.put(b"key07", b"new")
        found = store.read_plain(everything, make)
        assert found is not None
        assert found[0][7] == b"key07=new@22"
        at = store.read_plain(Range(b"key07", revision=21), make)
        assert at == ([b"key07=old@9"], False, 1, 22)
        disk.fault_of = lambda what, name: errno.ENOSPC if what == "write" else 0
        with pytest.raises(UnavailableError):
            await store.put(b"key07", b"nev")
        disk.fault_of = lambda what, name: 0
        await store.put(b"key07", b"two")  # lies where "nev" was to lie
        assert store.read_plain(Range(b"key07"), make) == ([b"key07=two@23"], False, 1, 23)
        for number in range(20):
            await store.put(b"key%02d" % number, b"newer")
        await store.compact(store.revision, physical=True)
        await store.defragment()
        found = store.read_plain(everything, make)
        assert found is not None
        assert found[0] == [b"key%02d=newer@%d" % (number, 24 + number) for number in range(20)]
