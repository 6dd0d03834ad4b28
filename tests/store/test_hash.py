"""The hash of a revision: what was there then, whatever was written or compacted since; nobody waits for it."""

from __future__ import annotations

import random
from time import perf_counter

import pytest
import trio
from sim.disk import SimDisk

from appliance.store import CompactedError
from store.life import new_store, running


@pytest.mark.parametrize("seed", range(3))
async def test_only_what_was_there_counts(seed: int) -> None:
    chance = random.Random(seed)
    async with running(new_store(SimDisk())) as store, running(new_store(SimDisk())) as other:
        hashes = {}
        for step in range(200):
            key = b"k%d" % chance.randrange(20)
            for each in (store, other):
                if step % 7:
                    await each.put(key, b"%d" % step)
                else:
                    await each.delete(b"k1", b"k2")
            if step % 20 == 0:
                hashes[store.revision] = await store.hash(store.revision)
        assert len(set(hashes.values())) > len(hashes) - 2
        oldest = sorted(hashes)[4]
        await store.compact(oldest, physical=True)
        for revision, value in hashes.items():
            assert await other.hash(revision) == value
            if revision < oldest:
                with pytest.raises(CompactedError):
                    await store.hash(revision)
            else:
                assert await store.hash(revision) == value


async def test_the_loop_goes_on_meanwhile() -> None:
    async with running(new_store(SimDisk())) as store:
        async with trio.open_nursery() as nursery:
            for start in range(0, 20_000, 500):
                for number in range(start, start + 500):
                    nursery.start_soon(store.put, b"%06d" % number, b"v" * 100)
        revision = store.revision
        longest, values = 0.0, []

        async def hash_it() -> None:
            values.append(await store.hash(revision))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hash_it)
            while not values:
                began = perf_counter()
                await trio.lowlevel.checkpoint()
                longest = max(longest, perf_counter() - began)
                if len(values) == 0:
                    await store.put(b"%06d" % random.randrange(40_000), b"later")
        assert values == [await store.hash(revision)]
        assert longest < 2.0  # a slice takes some milliseconds; the machine may be busy
