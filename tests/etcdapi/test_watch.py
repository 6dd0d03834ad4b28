"""Watches over a real socket: created, told, filtered, caught up, fragmented, cancelled; slow readers hurt nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from appliance.etcdapi.pb import rpc_pb2
from appliance.store import Store
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving

CREATE = rpc_pb2.WatchCreateRequest
ANSWER = rpc_pb2.WatchResponse


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[tuple[Client, int, Store, str]]:
    async with serving(path) as (address, store):
        client = await Client.connect(address)
        try:
            yield client, await client.open("Watch/Watch"), store, address
        finally:
            await client.aclose()


async def create(client: Client, stream: int, **fields: object) -> rpc_pb2.WatchResponse:
    await client.say(stream, rpc_pb2.WatchRequest(create_request=CREATE(**fields)))  # type: ignore[arg-type]
    return await client.hear(stream, ANSWER)


def told(answer: rpc_pb2.WatchResponse) -> list[tuple[int, bytes, bytes, int]]:
    return [(event.type, event.kv.key, event.kv.value, event.kv.mod_revision) for event in answer.events]


async def test_live_and_from_the_past(tmp_path: Path) -> None:
    async with watching(tmp_path) as (client, stream, store, _):
        await store.put(b"a", b"1")
        created = await create(client, stream, key=b"a", range_end=b"c", prev_kv=True)
        assert (created.created, created.watch_id, created.header.revision) == (True, 0, 2)
        await store.put(b"b", b"2")
        answer = await client.hear(stream, ANSWER)
        assert told(answer) == [(0, b"b", b"2", 3)]
        assert answer.header.revision == 3
        await store.delete(b"a")
        answer = await client.hear(stream, ANSWER)
        assert told(answer) == [(1, b"a", b"", 4)]
        assert answer.events[0].prev_kv.value == b"1"
        assert (await create(client, stream, key=b"a", start_revision=2)).watch_id == 1
        past = [await client.hear(stream, ANSWER)]
        if len(past[0].events) < 2:
            past.append(await client.hear(stream, ANSWER))
        assert [each for answer in past for each in told(answer)] == [(0, b"a", b"1", 2), (1, b"a", b"", 4)]
        assert {answer.watch_id for answer in past} == {1}


async def test_filters_ids_cancel_progress(tmp_path: Path) -> None:
    async with watching(tmp_path) as (client, stream, store, _):
        assert (await create(client, stream, key=b"k", watch_id=7, filters=[CREATE.NOPUT])).watch_id == 7
        again = await create(client, stream, key=b"k", watch_id=7)
        assert (again.watch_id, again.canceled) == (-1, True)
        assert again.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"
        empty = await create(client, stream, key=b"k", range_end=b"a")
        assert (empty.watch_id, empty.cancel_reason) == (-1, "mvcc: watcher range is empty")
        await store.put(b"k", b"1")
        await store.delete(b"k")
        assert told(await client.hear(stream, ANSWER)) == [(1, b"k", b"", 3)]
        await store.put(b"other", b"1")
        await client.say(stream, rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
        progress = await client.hear(stream, ANSWER)
        assert (progress.watch_id, progress.header.revision, list(progress.events)) == (-1, 4, [])
        await client.say(stream, rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=7)))
        gone = await client.hear(stream, ANSWER)
        assert (gone.watch_id, gone.canceled, gone.created) == (7, True, False)
        await store.put(b"k", b"2")
        await create(client, stream, key=b"k", watch_id=8)
        await client.say(stream, rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()), last=True)
        assert (await client.hear(stream, ANSWER)).watch_id == -1
        await store.put(b"k", b"3")  # watches go on after the last request, as an etcd's
        assert told(await client.hear(stream, ANSWER)) == [(0, b"k", b"3", 6)]


async def test_compacted(tmp_path: Path) -> None:
    async with watching(tmp_path) as (client, stream, store, _):
        for value in b"123":
            await store.put(b"k", bytes([value]))
        await store.compact(3)
        assert (await create(client, stream, key=b"k", start_revision=2)).created
        over = await client.hear(stream, ANSWER)
        assert (over.canceled, over.compact_revision, over.watch_id) == (True, 3, 0)


async def test_fragments(tmp_path: Path) -> None:
    async with watching(tmp_path) as (client, stream, store, _):
        await create(client, stream, key=b"a", range_end=b"z", fragment=True)
        await create(client, stream, key=b"a", range_end=b"z")
        value = b"v" * 1_400_000
        for key in (b"a", b"b"):
            await store.put(key, value)
        await store.delete(b"a", b"z", prev_kv=True)
        pieces: dict[int, list[rpc_pb2.WatchResponse]] = {0: [], 1: []}
        while sum(len(answer.events) for answers in pieces.values() for answer in answers) < 8:
            answer = await client.hear(stream, ANSWER)
            pieces[answer.watch_id].append(answer)
        assert not any(answer.fragment for answer in pieces[1])
        assert [each for answer in pieces[0] for each in told(answer)] == [e for a in pieces[1] for e in told(a)]


async def test_many_watch_one_key(tmp_path: Path) -> None:
    async with watching(tmp_path) as (client, stream, store, _):
        for number in range(1000):
            assert (await create(client, stream, key=b"k")).watch_id == number
        assert store.status().watchers == 1
        await store.put(b"k", b"1")
        assert {(await client.hear(stream, ANSWER)).watch_id for _ in range(1000)} == set(range(1000))


@pytest.mark.slow
async def test_a_slow_reader_is_caught_up_and_holds_nobody(tmp_path: Path) -> None:
    async with watching(tmp_path) as (slow, stream, store, address):
        await create(slow, stream, key=b"k")
        quick = await Client.connect(address)
        other = await quick.open("Watch/Watch")
        await create(quick, other, key=b"k")
        value = b"v" * 100_000
        for number in range(100):  # 10 MB: more than all buffers between us and the one who does not read
            await store.put(b"k", value)
            assert told(await quick.hear(other, ANSWER)) == [(0, b"k", value, number + 2)]
        seen: list[int] = []
        while len(seen) < 100:
            seen += [event.kv.mod_revision for event in (await slow.hear(stream, ANSWER)).events]
        assert seen == list(range(2, 102))
        await quick.aclose()


async def test_leases_expire_and_take_their_keys(tmp_path: Path) -> None:
    async with watching(tmp_path) as (client, stream, store, _):
        grant = await client.ask("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=1), rpc_pb2.LeaseGrantResponse)
        assert grant.TTL == 2
        for key in (b"a", b"b", b"c"):
            put = rpc_pb2.PutRequest(key=key, value=b"1", lease=grant.ID)
            await client.ask("KV/Put", put, rpc_pb2.PutResponse)
        await client.ask("KV/Put", rpc_pb2.PutRequest(key=b"c", value=b"free"), rpc_pb2.PutResponse)
        await create(client, stream, key=b"a", range_end=b"z")
        answer = await client.hear(stream, ANSWER)
        assert told(answer) == [(1, b"a", b"", 6), (1, b"b", b"", 6)]
        assert [kv.key for kv in store.range(b"a", b"z").kvs] == [b"c"]
        with pytest.raises(EOFError) as refused:
            await client.ask("KV/Put", put, rpc_pb2.PutResponse)
        assert refused.value.args == (5, "etcdserver: requested lease not found")
        assert trio.current_time() > 0


@pytest.mark.slow
async def test_thousands_that_lag_behind_one_client_are_woken_as_it_reads(tmp_path: Path) -> None:
    """As many as there is room for, not all of them each time: else each reading costs thousands of wake-ups."""
    async with watching(tmp_path) as (client, stream, store, _):
        value = b"v" * 50_000
        for number in range(3):
            await store.put(b"k%d" % number, value)
        count = 600  # different ranges, each from the past: 90 MB in all, by a window of 64 KB
        for number in range(count):
            await client.say(
                stream,
                rpc_pb2.WatchRequest(
                    create_request=CREATE(key=b"k", range_end=b"l%d" % number, start_revision=1, watch_id=number + 1)
                ),
            )
        waits = 0
        park = trio.lowlevel.ParkingLot.park

        async def counted(lot: trio.lowlevel.ParkingLot) -> None:
            nonlocal waits
            waits += 1
            await park(lot)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trio.lowlevel.ParkingLot, "park", counted)
            left = {number + 1: 3 for number in range(count)}
            while any(left.values()):
                answer = await client.hear(stream, ANSWER)
                left[answer.watch_id] -= len(answer.events)
        assert set(left.values()) == {0}
        assert waits < 3 * count, waits
