"""Out to a real etcd and in from one: key by key at every kept revision, every event, every lease."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from appliance.errors import CorruptError, InputError
from appliance.etcdapi.pb import rpc_pb2
from appliance.host.disk import FileDisk
from appliance.migration import LeaseGrant, Snapshot, restore_any
from appliance.store import Store, restore
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving
from tests.migration.etcd import etcdctl, real_etcd, restored

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd-server and etcd-client of Debian")

KEYS = [b"/registry/%s/%02d" % (kind, number) for kind in (b"pods", b"nodes") for number in range(12)]
LEASES = (7001, 7002, 7003)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Client]:
    client = await Client.connect(address)
    try:
        yield client
    finally:
        await client.aclose()


def put(key: bytes, value: bytes, lease: int = 0) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes, end: bytes = b"") -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key, range_end=end))


async def txn(client: Client, *operations: rpc_pb2.RequestOp) -> int:
    answer = await client.ask("KV/Txn", rpc_pb2.TxnRequest(success=operations), rpc_pb2.TxnResponse)
    return answer.header.revision


async def work(address: str, seed: int, *, compact: bool = True) -> None:
    """A life of a store: the same for the same seed, whoever serves it."""
    chance = random.Random(seed)
    async with connected(address) as client:
        for lease in LEASES:
            grant = rpc_pb2.LeaseGrantRequest(ID=lease, TTL=lease)
            await client.ask("Lease/LeaseGrant", grant, rpc_pb2.LeaseGrantResponse)
        revision = 0
        for step in range(120):
            key = chance.choice(KEYS)
            match chance.randrange(9):
                case 0:
                    revision = await txn(client, delete(b"/registry/pods/", b"/registry/pods0"))
                case 1 | 2:
                    revision = await txn(client, delete(key))
                case 3:
                    some = chance.sample(KEYS, 4)
                    revision = await txn(
                        client, put(some[0], b"a"), delete(some[1]), put(some[2], b""), delete(some[3])
                    )
                case 4:
                    revision = await txn(client, put(key, b"leased", chance.choice(LEASES[:2])))
                case 5:
                    revision = await txn(client, put(key, chance.randbytes(9000)))
                case _:
                    revision = await txn(client, put(key, b"value %d" % step))
            if compact and step in (50, 80):
                request = rpc_pb2.CompactionRequest(revision=revision - 20, physical=True)
                await client.ask("KV/Compact", request, rpc_pb2.CompactionResponse)
        await client.ask("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=LEASES[1]), rpc_pb2.LeaseRevokeResponse)


async def seen(address: str) -> dict[str, object]:
    """All that a client can see."""
    async with connected(address) as client:
        number = await client.open("Watch/Watch")
        create = rpc_pb2.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=1)
        await client.say(number, rpc_pb2.WatchRequest(create_request=create))
        answer = await client.hear(number, rpc_pb2.WatchResponse)
        if answer.created and not answer.canceled and not answer.events:
            now = await client.ask("KV/Range", rpc_pb2.RangeRequest(key=b"x"), rpc_pb2.RangeResponse)
            if now.header.revision > 1:
                answer = await client.hear(number, rpc_pb2.WatchResponse)
        compacted = answer.compact_revision
        everything = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0")
        revision = (await client.ask("KV/Range", everything, rpc_pb2.RangeResponse)).header.revision
        states = []
        for at in range(max(compacted, 1), revision + 1):
            everything.revision = at
            found = await client.ask("KV/Range", everything, rpc_pb2.RangeResponse)
            states.append([kv.SerializeToString(deterministic=True) for kv in found.kvs])
        events: list[bytes] = []
        number = await client.open("Watch/Watch")
        create = rpc_pb2.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=max(compacted, 1), prev_kv=True)
        await client.say(number, rpc_pb2.WatchRequest(create_request=create))
        last = 0
        while last < revision and revision > 1:
            answer = await client.hear(number, rpc_pb2.WatchResponse)
            for event in answer.events:
                events.append(event.SerializeToString(deterministic=True))
                last = event.kv.mod_revision
        leases = {}
        listed = await client.ask("Lease/LeaseLeases", rpc_pb2.LeaseLeasesRequest(), rpc_pb2.LeaseLeasesResponse)
        for lease in sorted(status.ID for status in listed.leases):
            ask = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True)
            left = await client.ask("Lease/LeaseTimeToLive", ask, rpc_pb2.LeaseTimeToLiveResponse)
            leases[lease] = (left.grantedTTL, sorted(left.keys))
        return {
            "revision": revision, "compacted": compacted, "states": states, "events": events, "leases": leases,
        }  # fmt: skip


def assert_same(one: dict[str, object], other: dict[str, object], *but: str) -> None:
    for what in one.keys() - set(but):
        assert one[what] == other[what], what


@pytest.mark.parametrize("seed", range(3))
async def test_a_real_etcd_starts_from_our_snapshot(seed: int, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.db"
    async with serving(tmp_path / "store") as (address, store):
        await work(address, seed, compact=seed != 1)
        ours = await seen(address)
        assert ours["compacted"] == store.compacted_revision
        await etcdctl(address, "snapshot", "save", snapshot)
        status = json.loads(await etcdctl(address, "snapshot", "status", snapshot, "-w", "json"))
        assert status["revision"] == store.revision
        assert status["totalSize"] == snapshot.stat().st_size - 32
        assert (tmp_path / "store").exists()
        assert not [path for path in (tmp_path / "store").iterdir() if path.name.endswith(".new")]
    peer = await restored(snapshot, tmp_path / "etcd")
    async with real_etcd(tmp_path / "etcd", peer) as address:
        assert_same(ours, await seen(address))
        await etcdctl(address, "put", "/after", "written")
        assert await etcdctl(address, "lease", "keep-alive", "--once", f"{LEASES[0]:x}")


async def test_an_empty_store_makes_an_empty_etcd(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as (address, _):
        await etcdctl(address, "snapshot", "save", tmp_path / "snapshot.db")
    peer = await restored(tmp_path / "snapshot.db", tmp_path / "etcd")
    async with real_etcd(tmp_path / "etcd", peer) as address:
        found = await seen(address)
        assert (found["revision"], found["states"]) == (1, [[]])


@pytest.mark.parametrize("seed", range(3))
async def test_our_store_begins_from_an_etcds_snapshot(seed: int, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.db"
    async with real_etcd(tmp_path / "etcd") as address:
        await work(address, seed, compact=seed != 1)
        theirs = await seen(address)
        await etcdctl(address, "snapshot", "save", snapshot)
    data = snapshot.read_bytes()
    opened = Snapshot(lambda size, offset: data[offset : offset + size], len(data), "it")
    assert sorted(opened.leases()) == [LeaseGrant(7001, 7001), LeaseGrant(7003, 7003)]
    assert restore_file(tmp_path / "store", snapshot) == theirs["revision"]
    async with serving(tmp_path / "store") as (address, _):
        assert_same(theirs, await seen(address))
        await etcdctl(address, "put", "/after", "written")
        await etcdctl(address, "snapshot", "save", tmp_path / "again.db")  # and back
        ours = await seen(address)
    peer = await restored(tmp_path / "again.db", tmp_path / "etcd2")
    async with real_etcd(tmp_path / "etcd2", peer) as address:
        assert_same(ours, await seen(address))


def restore_file(directory: Path, file: Path, **options: bool) -> int:
    data = file.read_bytes()
    disk = FileDisk(str(directory))
    done = restore_any(disk, lambda size, offset: data[offset : offset + size], len(data), str(file), **options)
    return done.revision


async def test_a_stopped_etcds_own_file_and_wrong_hashes(tmp_path: Path) -> None:
    async with real_etcd(tmp_path / "etcd") as address:
        await work(address, 5)
        theirs = await seen(address)
        await etcdctl(address, "snapshot", "save", tmp_path / "snapshot.db")
    own = tmp_path / "etcd" / "member" / "snap" / "db"
    with pytest.raises(InputError, match="--skip-hash-check"):
        restore_file(tmp_path / "store", own)
    assert restore_file(tmp_path / "store", own, skip_hash_check=True) == theirs["revision"]
    async with serving(tmp_path / "store") as (address, _):
        assert_same(theirs, await seen(address))
    torn = bytearray((tmp_path / "snapshot.db").read_bytes())
    torn[-1] ^= 1
    (tmp_path / "torn.db").write_bytes(torn)
    before = sorted((tmp_path / "store").iterdir())
    with pytest.raises(CorruptError, match="sha256"):
        restore_file(tmp_path / "store", tmp_path / "torn.db", replace=True)
    (tmp_path / "cut.db").write_bytes(own.read_bytes()[: own.stat().st_size // 4096 // 2 * 4096])
    with pytest.raises(CorruptError, match="cut off"):
        restore_file(tmp_path / "store", tmp_path / "cut.db", replace=True, skip_hash_check=True)
    with pytest.raises(InputError, match="already"):
        restore_file(tmp_path / "store", tmp_path / "snapshot.db")
    assert sorted((tmp_path / "store").iterdir()) == before
    assert restore_file(tmp_path / "store", tmp_path / "torn.db", replace=True, skip_hash_check=True)


async def test_our_own_backup_is_told_from_theirs(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as (_, store):
        await store.put(b"a", b"b")
        chunks = [chunk async for chunk in store.backup()]
        revision = store.revision
    (tmp_path / "backup").write_bytes(b"".join(chunks))
    assert restore_file(tmp_path / "other", tmp_path / "backup") == revision
    assert restore(FileDisk(str(tmp_path / "third")), chunks) == revision
    (tmp_path / "text").write_bytes(b"x" * 100_000)
    with pytest.raises(InputError, match="not a backup"):
        restore_file(tmp_path / "fourth", tmp_path / "text")


async def test_a_client_that_leaves_midway(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as (address, store):
        await fill(store, 40)
        for _ in range(6):
            client = await Client.connect(address)
            number = await client.open("Maintenance/Snapshot")
            await client.say(number, rpc_pb2.SnapshotRequest(), last=True)
            first = await client.hear(number, rpc_pb2.SnapshotResponse)
            assert first.remaining_bytes > 1 << 20
            assert first.version
            await client.aclose()
        with trio.fail_after(30):
            while [name for name in (tmp_path / "store").iterdir() if name.name.endswith(".new")]:
                await trio.testing.wait_all_tasks_blocked(0.01)  # the server hears of it in its own time


async def test_four_at_once_and_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as (address, store):
        await fill(store, 40)
        clients = []
        for _ in range(4):
            client = await Client.connect(address)
            number = await client.open("Maintenance/Snapshot")
            await client.say(number, rpc_pb2.SnapshotRequest(), last=True)
            await client.hear(number, rpc_pb2.SnapshotResponse)
            clients.append((client, number))
        # Compaction does not wait for those who do not read.
        with trio.fail_after(30):
            await store.compact(store.revision, physical=True)
        async with connected(address) as fifth:
            number = await fifth.open("Maintenance/Snapshot")
            await fifth.say(number, rpc_pb2.SnapshotRequest(), last=True)
            with pytest.raises(EOFError, match="too many requests"):
                await fifth.hear(number, rpc_pb2.SnapshotResponse)
        for client, number in clients:
            left = 1
            while left:
                left = (await client.hear(number, rpc_pb2.SnapshotResponse)).remaining_bytes
            assert len((await client.hear(number, rpc_pb2.SnapshotResponse)).blob) == 32
            await client.aclose()


async def fill(store: Store, count: int) -> None:
    for step in range(count):
        await store.put(b"key%d" % (step % 50), b"v" * 100_000)


SECRETS = (
    "user add root:pw; user add alice:secret; user add bob --no-password; role add root; role add r1; role add r2; \
user grant-role root root; user grant-role alice r1; user grant-role alice r2; user grant-role bob r2; \
role grant-permission r1 readwrite /a/ --prefix; role grant-permission r1 read /b; \
role grant-permission r2 write /c --from-key; put /a/x 1; put /b 2; auth enable"
)


async def with_auth(address: str) -> None:
    for command in SECRETS.split("; "):
        await etcdctl(address, *command.split())
    await etcdctl(address, "--user=root:pw", "role", "add", "late")


async def seen_with_auth(address: str) -> list[str]:
    """What users and roles are, and what they may."""
    said = [await etcdctl(address, "get", "/a/x", refused=True)]
    for asked in ("user list", "role list", "user get alice", "user get bob", "role get r1", "role get r2"):
        said.append(await etcdctl(address, "--user=root:pw", *asked.split()))
    for asked in ("get /a/x", "put /a/y 1", "get /b"):
        said.append(await etcdctl(address, "--user=alice:secret", *asked.split()))
    for asked in ("put /b 1", "get /c"):
        said.append(await etcdctl(address, "--user=alice:secret", *asked.split(), refused=True))
    for user in ("alice:wrong", "bob:", "bob:x", "nobody:x"):
        said.append(await etcdctl(address, f"--user={user}", "get", "/a/x", refused=True))
    return said


@pytest.mark.parametrize("way", ["ours to etcd", "etcd to ours"])
async def test_users_and_roles_come_along(way: str, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.db"
    first = serving_address(tmp_path / "first") if way == "ours to etcd" else real_etcd(tmp_path / "first")
    async with first as address:
        await with_auth(address)
        before = await seen_with_auth(address)
        await etcdctl(address, "--user=root:pw", "snapshot", "save", snapshot)
    if way == "ours to etcd":
        second = real_etcd(tmp_path / "second", await restored(snapshot, tmp_path / "second"))
    else:
        restore_file(tmp_path / "second", snapshot)
        second = serving_address(tmp_path / "second")
    async with second as address:
        after = await seen_with_auth(address)
        assert [said.splitlines()[-1:] for said in after] == [said.splitlines()[-1:] for said in before]


async def test_an_alarm_comes_along(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.db"
    async with serving(tmp_path / "first", quota=4 << 20) as (address, store):
        done = trio.Event()
        store.set_alarm(True, lambda fault: done.set())
        await done.wait()
        await etcdctl(address, "snapshot", "save", snapshot)
    peer = await restored(snapshot, tmp_path / "etcd")
    async with real_etcd(tmp_path / "etcd", peer) as address:
        assert "alarm:NOSPACE" in await etcdctl(address, "alarm", "list")
        assert "database space exceeded" in await etcdctl(address, "put", "a", "b", refused=True)
        await etcdctl(address, "snapshot", "save", tmp_path / "again.db")
        await etcdctl(address, "alarm", "disarm")
        await etcdctl(address, "put", "a", "b")
    restore_file(tmp_path / "second", tmp_path / "again.db")
    async with serving(tmp_path / "second", quota=4 << 20) as (address, store):
        assert store.alarmed


@asynccontextmanager
async def serving_address(directory: Path) -> AsyncIterator[str]:
    async with serving(directory) as (address, _):
        yield address
