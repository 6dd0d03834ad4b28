"""Facts: kept beside the keys, without revisions, as durable as they are."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
from sim.disk import SimDisk

from appliance.errors import ApplianceError, UnavailableError
from appliance.store import Store, backup_of, restore
from store.life import new_store, running


async def keep(store: Store, facts: Mapping[bytes, bytes]) -> None:
    done = trio.Event()
    errors: list[ApplianceError | None] = []

    def finished(error: ApplianceError | None) -> None:
        errors.append(error)
        done.set()

    store.submit_facts(facts, finished)
    await done.wait()
    if errors[0] is not None:
        raise errors[0]


async def test_facts_outlive_restarts_checkpoints_and_compaction() -> None:
    disk = SimDisk()
    for life in range(4):
        async with running(new_store(disk)) as store:
            expected = {b"lease/%d" % n: b"%d" % n for n in range(life)}
            assert store.facts(b"lease/") == expected
            assert store.facts(b"auth/") == ({b"auth/a": b"enabled"} if life else {})
            revision = store.revision
            await keep(store, {b"lease/%d" % life: b"%d" % life, b"auth/a": b"enabled", b"auth/b": b"x"})
            await keep(store, {b"auth/b": b""})
            assert store.revision == revision
            for step in range(100):
                await store.put(b"key", b"%d" % step * 50)
            await store.compact(store.revision, physical=True)
    assert len([name for name in disk.names() if name.startswith("segment")]) < 8


async def test_facts_are_in_backups_and_exports() -> None:
    disk = SimDisk()
    async with running(new_store(SimDisk())) as store:
        await keep(store, {b"a": b"1", b"b": b"2"})
        await store.put(b"key", b"value")
        chunks = [chunk async for chunk in store.backup()]
        async with store.export() as export:
            assert export.facts == {b"a": b"1", b"b": b"2"}
            changes = [change for batch in export.changes() for change in batch]
    for source in (chunks, backup_of(changes, 0, {b"a": b"1", b"b": b"2"})):
        disk = SimDisk()
        assert restore(disk, source) == 2
        async with running(new_store(disk)) as store:
            assert store.facts(b"") == {b"a": b"1", b"b": b"2"}
            assert store.range(b"key").kvs[0].value == b"value"


async def test_a_crash_keeps_what_was_told_durable() -> None:
    disk = SimDisk()
    with trio.CancelScope() as crash:
        async with running(new_store(disk)) as store:
            await keep(store, {b"a": b"1"})
            await keep(store, {b"a": b"2", b"b": b"3"})
            crash.cancel()
    async with running(new_store(disk)) as store:
        assert store.facts(b"") == {b"a": b"2", b"b": b"3"}


async def test_refused_facts_are_as_before() -> None:
    disk = SimDisk()
    async with running(new_store(disk)) as store:
        await keep(store, {b"a": b"1", b"gone": b"x"})
        disk.room = 0
        with pytest.raises(UnavailableError):
            await keep(store, {b"a": b"2" * 5000, b"b": b"3", b"gone": b""})
        assert store.facts(b"") == {b"a": b"1", b"gone": b"x"}
        disk.room = None
        await keep(store, {b"b": b"3"})
        assert store.facts(b"") == {b"a": b"1", b"b": b"3", b"gone": b"x"}
