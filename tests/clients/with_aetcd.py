"""What PyPI's aetcd (gRPC, by grpcio) sees of the store at HOST PORT, as JSON. Runs in .build/clients."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys

import aetcd


async def main(host: str, port: str) -> None:
    async with aetcd.Client(host=host, port=int(port), timeout=30) as client:
        seen: dict[str, object] = {}
        put = [await client.put(b"k%d" % each, b"v%d" % each, prev_kv=True) for each in range(5)]
        seen["put"] = [each.header.revision for each in put]
        again = await client.put(b"k0", b"\x00\xff", prev_kv=True)
        seen["again"] = [again.prev_kv.value, again.prev_kv.mod_revision]
        seen["get"] = [pair(await client.get(b"k0")), await client.get(b"none")]
        seen["prefix"] = pairs(await client.get_prefix(b"k", sort_order="descend", sort_target="mod"))
        seen["range"] = pairs(await client.get_range(b"k1", b"k3"))
        seen["keys"] = [each.key for each in await client.get_all(keys_only=True)]
        seen["replace"] = [await client.replace(b"k1", b"v1", b"w1"), await client.replace(b"k1", b"v1", b"x1")]
        deleted = await client.delete(b"k1", prev_kv=True)
        seen["delete"] = [pair(deleted.prev_kv) if deleted else None, await client.delete(b"k1")]
        many = await client.delete_prefix(b"k", prev_kv=True)
        seen["delete prefix"] = [many.deleted, pairs(many.prev_kvs), (await client.delete_range(b"a", b"z")).deleted]
        seen["transaction"] = await transactions(client)
        seen["lease"] = await leases(client)
        seen["lock"] = await locks(client)
        seen["watch"] = await watches(client)
        seen["maintenance"] = await maintenance(client)
        seen["refused"] = await refusals(client)
        print(json.dumps(seen, default=lambda each: each.decode("latin-1"), indent=1))


def pair(each) -> list[object]:
    return [each.key, each.value, each.create_revision, each.mod_revision, each.version]


def pairs(found) -> list[object]:
    return [pair(each) for each in found]


async def transactions(client: aetcd.Client) -> list[object]:
    of = client.transactions
    done, answers = await client.transaction(
        compare=[of.version(b"t") == 0, of.value(b"u") != b"x"],
        success=[of.put(b"t", b"1"), of.get(b"t"), of.txn([of.mod(b"t") > 0], [of.delete(b"v")], [of.put(b"no", b"")])],
        failure=[of.get(b"none")],
    )
    failed, rest = await client.transaction(compare=[of.create(b"t") > 0], success=[], failure=[of.get(b"t")])
    return [done, len(answers), [pair(each) for _, each in answers[1]] if len(answers) > 1 else [], failed, rest]


async def leases(client: aetcd.Client) -> list[object]:
    lease = await client.lease(300, 7777)
    await client.put(b"leased", b"x", lease)
    found: list[object] = [lease.id, lease.ttl, await lease.granted_ttl(), 290 < await lease.remaining_ttl() <= 300]
    found += [list(await lease.keys()), (await lease.refresh()).TTL]
    await lease.revoke()
    found.append(await client.get(b"leased"))
    short = await client.lease(1)
    put = await client.put(b"short", b"x", short)
    event = await client.watch_once(b"short", timeout=30, start_revision=put.header.revision + 1)
    return [*found, short.ttl, event.kind, await client.get(b"short")]


async def locks(client: aetcd.Client) -> list[object]:
    other = client.lock(b"one", ttl=100)
    async with client.lock(b"one", ttl=100) as held:
        found: list[object] = [await held.is_acquired(), await other.acquire(timeout=0), await other.is_acquired()]
        waits = asyncio.create_task(other.acquire(timeout=30))
        await asyncio.sleep(0.1)
    return [*found, await waits, await held.is_acquired(), await other.release()]


async def watches(client: aetcd.Client) -> list[object]:
    first = await client.put(b"w0", b"before")
    watch = await client.watch_prefix(b"w", start_revision=first.header.revision, prev_kv=True)
    await client.put(b"w1", b"a")
    await client.put(b"w1", b"b")
    await client.delete(b"w1")
    found: list[object] = []
    async for event in watch:
        found.append([event.kind, event.kv.key, event.kv.value, event.prev_kv.value, event.kv.mod_revision])
        if len(found) == 4:
            break
    await watch.cancel()
    many = await asyncio.gather(*(client.watch(b"many%d" % each) for each in range(50)))  # on one stream
    await asyncio.gather(*(client.put(b"many%d" % each, b"x") for each in range(50)))
    got = []
    for each in many:
        async for event in each:
            got.append(event.kv.key)
            break
        await each.cancel()
    return [found, got]


async def maintenance(client: aetcd.Client) -> list[object]:
    status = await client.status()
    members = [member async for member in client.members()]
    await client.compact((await client.get(b"w0")).mod_revision)
    await client.defragment()
    alarms = [alarm async for alarm in client.list_alarms()]
    snapshot = io.BytesIO()
    await client.snapshot(snapshot)
    content = snapshot.getvalue()
    sums = hashlib.sha256(content[:-32]).digest() == content[-32:]
    return [status.leader is not None, len(members), len(alarms), sums, await client.hash() > 0]


async def refusals(client: aetcd.Client) -> list[object]:
    found: list[object] = []
    for attempt in (
        client.put(b"", b"x"),
        client.put(b"k", b"x", 123456),
        client.compact(1),
        client.compact(99999),
        client.revoke_lease(123456),
        client.lease(9_000_000_001),
        client.put(b"huge", b"x" * (1 << 21)),
        client.remove_member(1),
    ):
        try:
            found.append(repr(await attempt))
        except Exception as error:
            found.append([type(error).__name__, str(error)])
    return found


asyncio.run(main(*sys.argv[1:]))
