"""Leases outlive the process: with their keys, and they still end."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from appliance.etcdapi.pb import rpc_pb2
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving
from tests.sim.disk import SimDisk


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Client]:
    client = await Client.connect(address)
    try:
        yield client
    finally:
        await client.aclose()


async def grant(client: Client, lease: int, ttl: int) -> None:
    await client.ask("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=lease, TTL=ttl), rpc_pb2.LeaseGrantResponse)


async def put(client: Client, key: bytes, lease: int) -> None:
    await client.ask("KV/Put", rpc_pb2.PutRequest(key=key, value=b"v", lease=lease), rpc_pb2.PutResponse)


async def keys(client: Client, lease: int) -> tuple[int, list[bytes]]:
    ask = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True)
    answer = await client.ask("Lease/LeaseTimeToLive", ask, rpc_pb2.LeaseTimeToLiveResponse)
    return answer.grantedTTL, list(answer.keys)


async def test_leases_come_back_with_their_keys(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, store), connected(address) as client:
        revision = store.revision
        for lease in (11, 12, 13):
            await grant(client, lease, lease * 100)
        assert store.revision == revision
        for number in range(3):
            await put(client, b"a%d" % number, 11)
        await put(client, b"a1", 12)
        await client.ask("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=13), rpc_pb2.LeaseRevokeResponse)
        with pytest.raises(EOFError, match="lease already exists"):
            await grant(client, 11, 5)
    async with serving(tmp_path) as (address, store), connected(address) as client:
        assert await keys(client, 11) == (1100, [b"a0", b"a2"])
        assert await keys(client, 12) == (1200, [b"a1"])
        assert await keys(client, 13) == (0, [])
        await client.ask("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=11), rpc_pb2.LeaseRevokeResponse)
        assert [kv.key for kv in store.range(b"\0", b"\0").kvs] == [b"a1"]
    async with serving(tmp_path) as (address, store), connected(address) as client:
        listed = await client.ask("Lease/LeaseLeases", rpc_pb2.LeaseLeasesRequest(), rpc_pb2.LeaseLeasesResponse)
        assert [status.ID for status in listed.leases] == [12]


async def test_a_revocation_that_could_not_be_written_did_not_happen(tmp_path: Path) -> None:
    disk = SimDisk()
    async with serving(tmp_path, disk=disk) as (address, store), connected(address) as client:
        await grant(client, 7, 100)
        await put(client, b"a", 7)
        disk.fault_of = lambda kind, name: errno.ENOSPC if kind == "write" else 0
        with pytest.raises(EOFError, match="No space left"):
            await client.ask("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=7), rpc_pb2.LeaseRevokeResponse)
        assert await keys(client, 7) == (100, [b"a"])
        disk.fault_of = lambda kind, name: 0
        await client.ask("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=7), rpc_pb2.LeaseRevokeResponse)
        assert await keys(client, 7) == (0, [])
        assert store.range(b"a").count == 0


async def test_a_lease_from_before_ends_though_nobody_connects(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, store), connected(address) as client:
        await grant(client, 7, 2)
        await put(client, b"short", 7)
        revision = store.revision
    async with serving(tmp_path) as (_, store):
        with trio.fail_after(60):
            async with store.watch(b"short", start_revision=revision + 1) as watcher:
                async for batch in watcher:
                    assert batch.events[0].kv.key == b"short"
                    break
        assert store.range(b"short").count == 0
    async with serving(tmp_path) as (_, store):
        assert not store.facts(b"lease/")


async def test_keys_whose_puts_are_not_durable_yet_are_not_forgotten(tmp_path: Path) -> None:
    """A lease looks now and then which of very many keys still are its own: also at those that are being written."""
    async with serving(tmp_path) as (address, store), connected(address) as client:
        await grant(client, 11, 1000)
        streams = []
        for number in range(2600):
            streams.append(await client.open("KV/Put"))
            await client.say(streams[-1], rpc_pb2.PutRequest(key=b"%05d" % number, lease=11), last=True)
            if number % 50 == 49:
                for stream in streams:
                    await client.hear(stream, rpc_pb2.PutResponse)
                streams = []
        assert len((await keys(client, 11))[1]) == 2600
        operations = [rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"%05d" % n)) for n in range(100)]
        await client.ask("KV/Txn", rpc_pb2.TxnRequest(success=operations), rpc_pb2.TxnResponse)
        await client.ask("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=11), rpc_pb2.LeaseRevokeResponse)
        assert store.range(b"\0", b"\0", count_only=True).count == 100
