"""One contract, three stores: the embedded one, a real etcd, and our own API asked as if it were one."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.errors import ConflictError, InputError, UnavailableError, UntrustedError
from appliance.external import Credentials, Embedded, ExternalStore, Keys, migrate
from appliance.store import (
    CompactedError,
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    DuplicateKeyError,
    EmptyKeyError,
    EventKind,
    FutureRevisionError,
    KeyNotFoundError,
    Put,
    Range,
    SortOrder,
    SortTarget,
    TooManyOperationsError,
    Txn,
    WatchBatch,
)  # fmt: skip
from tests.etcdapi.serving import serving
from tests.migration.etcd import etcdctl, free_port, real_etcd

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd-server and etcd-client of Debian")


@asynccontextmanager
async def connected(*addresses: str, **credentials: str) -> AsyncIterator[ExternalStore]:
    store = ExternalStore([f"http://{address}" for address in addresses], Credentials(**credentials))
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[Keys]:
    async with serving(directory / "store") as (_, store):
        yield Embedded(store)


@asynccontextmanager
async def ours_as_external(directory: Path) -> AsyncIterator[Keys]:
    async with serving(directory / "store") as (address, _), connected(address) as keys:
        yield keys


@asynccontextmanager
async def etcd(directory: Path) -> AsyncIterator[Keys]:
    async with real_etcd(directory / "etcd") as address, connected(address) as keys:
        yield keys


@pytest.fixture(params=[embedded, ours_as_external, etcd], ids=lambda make: make.__name__)
async def keys(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keys]:
    async with request.param(tmp_path) as store:
        yield store


ALL = Range(b"\0", b"\0")


async def test_reading_and_writing(keys: Keys) -> None:
    first = await keys.put(Put(b"a", b"\xff\0 1"))
    assert first.prev is None
    second = await keys.put(Put(b"a", b"2", prev_kv=True))
    assert second.revision == first.revision + 1
    assert second.prev is not None
    assert (second.prev.value, second.prev.version) == (b"\xff\0 1", 1)
    await keys.put(Put(b"b"))
    found = await keys.read(ALL)
    assert [(kv.key, kv.value, kv.version) for kv in found.kvs] == [(b"a", b"2", 2), (b"b", b"", 1)]
    assert (found.count, found.more, found.revision) == (2, False, second.revision + 1)
    assert (await keys.read(Range(b"a", revision=first.revision))).kvs[0].value == b"\xff\0 1"
    limited = await keys.read(Range(b"\0", b"\0", limit=1, keys_only=True))
    assert (limited.kvs[0].key, limited.kvs[0].value, limited.more, limited.count) == (b"a", b"", True, 2)
    last = Range(b"\0", b"\0", sort_target=SortTarget.MOD, sort_order=SortOrder.DESCEND, limit=1)
    assert (await keys.read(last)).kvs[0].key == b"b"
    assert (await keys.read(Range(b"\0", b"\0", count_only=True))).count == 2
    assert (await keys.read(Range(b"nope"))).kvs == ()
    kept = await keys.put(Put(b"a", ignore_value=True, prev_kv=True))
    assert kept.prev is not None
    assert (await keys.read(Range(b"a"))).kvs[0].value == b"2"
    gone = await keys.delete(Delete(b"a", b"c", prev_kv=True))
    assert (gone.deleted, [kv.key for kv in gone.prev]) == (2, [b"a", b"b"])
    assert (await keys.delete(Delete(b"a"))).deleted == 0
    assert (await keys.read(ALL)).kvs == ()


async def test_transactions(keys: Keys) -> None:
    absent = Compare(b"lock", CompareTarget.CREATE, CompareResult.EQUAL, 0)
    take = (Put(b"lock", b"me"), Range(b"lock"))
    won = await keys.txn((absent,), take, (Range(b"lock"),))
    lost = await keys.txn((absent,), take, (Range(b"lock"),))
    assert (won.succeeded, lost.succeeded) == (True, False)
    assert won.responses[1] == lost.responses[0]
    value = Compare(b"lock", CompareTarget.VALUE, CompareResult.NOT_EQUAL, b"you")
    many = Compare(b"a", CompareTarget.VERSION, CompareResult.LESS, 2, b"z")
    inner = Txn((), (Put(b"n"), Delete(b"lock", prev_kv=True)))
    nested = await keys.txn((value, many), (inner,), ())
    assert nested.succeeded
    assert [kv.key for kv in (await keys.read(ALL)).kvs] == [b"n"]


async def test_errors(keys: Keys) -> None:
    revision = (await keys.put(Put(b"a", b"1"))).revision
    await keys.put(Put(b"a", b"2"))
    await keys.compact(revision + 1)
    for kind, act in (
        (EmptyKeyError, partial(keys.put, Put(b""))),
        (KeyNotFoundError, partial(keys.put, Put(b"x", ignore_value=True))),
        (FutureRevisionError, partial(keys.read, Range(b"a", revision=99999))),
        (FutureRevisionError, partial(keys.compact, 99999)),
        (CompactedError, partial(keys.compact, revision)),
        (DuplicateKeyError, partial(keys.txn, (), (Put(b"a"), Put(b"a")), ())),
        (TooManyOperationsError, partial(keys.txn, (), [Put(b"%d" % n) for n in range(129)], ())),
    ):
        with pytest.raises(kind):
            await act()
    with pytest.raises(CompactedError) as caught:
        await keys.read(Range(b"a", revision=revision))
    assert caught.value.compacted_revision == revision + 1
    with pytest.raises(CompactedError) as caught:
        await first_of(keys, 1)
    assert caught.value.compacted_revision == revision + 1


async def first_of(keys: Keys, revision: int) -> WatchBatch:
    async with keys.watch(b"a", start_revision=revision) as watch:
        return await watch.__anext__()


async def take(watch: Any, until: int) -> list[WatchBatch]:
    found = []
    with trio.fail_after(60):
        async for batch in watch:
            found.append(batch)
            if batch.revision >= until:
                return found
    raise AssertionError("the watch ended")


async def test_watching(keys: Keys) -> None:
    start = (await keys.put(Put(b"w/0", b"before"))).revision
    async with keys.watch(b"w/", b"w0", prev_kv=True) as watch, keys.watch(b"w/0", start_revision=start) as old:
        assert watch.next_revision == start + 1
        await keys.put(Put(b"w/0", b"1"))
        await keys.put(Put(b"other"))
        last = await keys.txn((), (Put(b"w/1"), Delete(b"w/0")), ())
        batches = await take(watch, last.revision)
        events = [event for batch in batches for event in batch.events]
        assert [(event.kind, event.kv.key) for event in events] == [
            (EventKind.PUT, b"w/0"), (EventKind.PUT, b"w/1"), (EventKind.DELETE, b"w/0"),
        ]  # fmt: skip
        assert events[0].prev is not None
        assert events[0].prev.value == b"before"
        assert watch.next_revision == last.revision + 1
        seen = [event.kv.value for batch in await take(old, last.revision) for event in batch.events]
        assert seen == [b"before", b"1", b""]


async def test_moving_keys(keys: Keys, tmp_path: Path) -> None:
    for number in range(230):
        await keys.put(Put(b"/appliance/%03d" % number, b"%d" % number))
    await keys.put(Put(b"/mine", b"stays"))
    async with serving(tmp_path / "other") as (_, store):
        target = Embedded(store)
        assert await migrate(keys, target, b"/appliance/") == 230
        assert await migrate(keys, target, b"/appliance/") == 230
        assert store.range(b"\0", b"\0").count == 230
        await store.put(b"/appliance/007", b"changed")
        with pytest.raises(ConflictError, match="/appliance/007"):
            await migrate(keys, target, b"/appliance/")
        await migrate(keys, target, b"/appliance/", replace=True)
        assert store.range(b"/appliance/007").kvs[0].value == b"7"
        assert await migrate(target, keys, b"", replace=True) == 230


# What only a distant store does


async def test_the_next_endpoint_is_asked_when_one_is_gone(tmp_path: Path) -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with real_etcd(tmp_path / "etcd") as address, connected(dead, address) as keys:
        await keys.put(Put(b"a", b"1"))
        async with keys.watch(b"a", start_revision=1) as watch:
            assert (await take(watch, 2))[0].events[0].kv.value == b"1"
    async with connected(dead, f"127.0.0.1:{free_port()}") as keys:
        with pytest.raises(UnavailableError, match="cannot reach"):
            await keys.put(Put(b"a", b"1"))
    for wrong in ([], ["127.0.0.1:2379"], ["ftp://x"], ["http://user@host"], ["http://a:b"]):
        with pytest.raises(InputError):
            ExternalStore(wrong)
    assert ExternalStore(["http://a", "https://[::1]:2379/"])


async def test_a_watch_goes_on_elsewhere_where_it_was(tmp_path: Path) -> None:
    """One store behind two doors, of which one closes."""
    async with serving(tmp_path / "one") as (second, store):
        proxy = await trio.open_tcp_listeners(0, host="127.0.0.1")
        first = f"127.0.0.1:{proxy[0].socket.getsockname()[1]}"
        host, _, port = second.rpartition(":")

        async def pass_on(client: trio.SocketStream) -> None:
            server = await trio.open_tcp_stream(host, int(port))
            async with server, trio.open_nursery() as both:
                both.start_soon(copy, client, server)
                both.start_soon(copy, server, client)

        async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
            async for piece in source:
                await target.send_all(piece)

        async with trio.open_nursery() as nursery, connected(first, second) as keys:
            door = await nursery.start(in_scope, partial(trio.serve_listeners, pass_on, proxy))
            async with keys.watch(b"k") as watch:
                await store.put(b"k", b"1")
                assert (await take(watch, store.revision))[0].events[0].kv.value == b"1"
                door.cancel()
                for value in (b"2", b"3"):
                    await store.put(b"k", value)
                batches = await take(watch, store.revision)
                assert [event.kv.value for batch in batches for event in batch.events] == [b"2", b"3"]
            assert (await keys.read(Range(b"k"))).kvs[0].value == b"3"


async def in_scope(main: Any, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await main()


async def test_a_lease_is_kept_and_given_back(tmp_path: Path) -> None:
    async with real_etcd(tmp_path / "etcd") as address, connected(address) as keys:
        async with keys.lease(2) as lease:
            await keys.put(Put(b"held", b"", lease.id))
            with trio.move_on_after(lease.ttl * 2.5):  # longer than it lives by itself
                await lease.lost.wait()
            assert not lease.lost.is_set()
            assert (await keys.read(Range(b"held"))).count == 1
        assert (await keys.read(Range(b"held"))).count == 0
        async with keys.lease(2) as lease:
            await etcdctl(address, "lease", "revoke", f"{lease.id:x}")
            with trio.fail_after(30):
                await lease.lost.wait()


async def test_who_we_are(tmp_path: Path) -> None:
    async with real_etcd(tmp_path / "etcd") as address:
        async with connected(address, user="root", password="pw") as keys:
            await keys.put(Put(b"a", b"without authentication"))
            for command in ("user add root:pw", "role add root", "user grant-role root root", "auth enable"):
                await etcdctl(address, *command.split())
            await keys.put(Put(b"a", b"with"))
            async with keys.watch(b"a", start_revision=2) as watch:
                assert await take(watch, 3)
        async with connected(address) as keys:
            with pytest.raises(InputError, match="user name is empty"):
                await keys.read(Range(b"a"))
        async with connected(address, user="root", password="wrong") as keys:
            with pytest.raises((InputError, UntrustedError), match="authentication failed"):
                await keys.read(Range(b"a"))
