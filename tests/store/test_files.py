"""What is on the disk: damage is named by file and byte, newer formats are refused, backups come back whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from sim.disk import SimDisk

from appliance.errors import CorruptError, InputError
from appliance.host.disk import FileDisk
from appliance.store import (
    CompactedError,
    Event,
    Put,
    Range,
    Sizes,
    Store,
    check,
    check_backup,
    frames,
    restore,
    transaction,
)  # fmt: skip
from store.life import SMALL, new_store, running
from store.test_soak import SIZES, Life

EVERYTHING = Range(b"\0", b"\0")


async def filled(disk: SimDisk, *, count: int = 60, sizes: Sizes = SMALL) -> None:
    async with running(new_store(disk, sizes)) as store:
        for n in range(count):
            await store.put(b"key%02d" % (n % 20), b"value %d" % n * 10)


async def open_error(disk: SimDisk) -> str:
    stopping = trio.Event()
    stopping.set()
    with pytest.raises((CorruptError, InputError)) as caught:
        await new_store(disk).run(stopping=stopping)
    return str(caught.value)


def unclean(disk: SimDisk) -> SimDisk:
    """Without a checkpoint, so that opening has to read all of the log."""
    for name in ("checkpoint", "checkpoint.twin"):
        disk.remove(name)
    disk.sync_names()
    return disk


async def test_damage_in_the_middle_is_refused_and_named_and_a_torn_tail_is_cut() -> None:
    disk = SimDisk(1)
    await filled(disk, count=10, sizes=Sizes())
    inode = unclean(disk).names_seen["segment-00000001"]
    whole = bytes(inode.seen).rstrip(b"\0")  # without the room filled ahead
    ends = [at for at in range(len(whole)) if whole.startswith(frames.FRAME_MAGIC, at)]
    assert len(ends) == 10
    for at in range(64, len(whole), 41):
        inode.seen[:] = whole
        inode.seen[at] ^= 0x40
        frame = max(start for start in ends if start <= at)
        if frame == ends[-1]:
            async with running(new_store(disk, Sizes())) as store:
                assert store.revision == 10
                assert "cut a torn tail off /sim/segment-00000001" in store.status().problem
            unclean(disk)
        else:
            message = await open_error(disk)
            assert f"/sim/segment-00000001: byte {frame}: the frame does not hold" in message
            assert check(disk).problems == (message,)


async def test_damage_behind_the_checkpoint_is_met_by_the_reader_and_by_check() -> None:
    disk = SimDisk(1)
    await filled(disk, count=20, sizes=Sizes())
    inode = disk.names_seen["segment-00000001"]
    at = bytes(inode.seen).index(b"value 7value 7")
    inode.seen[at] ^= 1
    async with running(new_store(disk, Sizes())) as store:
        assert store.range(b"key06").kvs[0].value.startswith(b"value 6")
        with pytest.raises(CorruptError, match=r"segment-00000001: byte \d+: the record's checksum does not hold"):
            store.range(b"key07")
        with pytest.raises(CorruptError):
            store.read(EVERYTHING)
        await store.put(b"key07", b"mended")
        assert store.range(b"key07").kvs[0].value == b"mended"
    problems = check(disk).problems
    assert any("the frame's checksum does not hold" in problem for problem in problems)


async def test_check_names_the_damaged_key() -> None:
    disk = SimDisk(1)
    await filled(disk, count=20, sizes=Sizes())
    inode = disk.names_seen["segment-00000001"]
    inode.seen[bytes(inode.seen).index(b"value 13")] ^= 1
    assert any("key b'key13'" in problem for problem in check(disk).problems)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda disk: disk.remove("segment-00000003"), "segment-00000003.*(missing|no such file|needs a checkpoint)"),
        (lambda disk: disk.remove("segment-00000001"), "needs a checkpoint|segment-00000001"),
    ],
)
@pytest.mark.parametrize("keep_checkpoint", [True, False])
async def test_missing_segments_are_named(
    spoil: Callable[[SimDisk], None], message: str, keep_checkpoint: bool
) -> None:
    disk = SimDisk(1)
    await filled(disk)
    if not keep_checkpoint:
        unclean(disk)
    spoil(disk)
    with pytest.raises(Exception, match=message):
        await new_store(disk).run(stopping=trio.Event())


async def test_one_good_copy_of_the_checkpoint_is_enough() -> None:
    for name in ("checkpoint", "checkpoint.twin"):
        disk = SimDisk(1)
        await filled(disk)
        disk.names_seen[name].seen[40] ^= 1
        async with running(new_store(disk)) as store:
            assert store.revision == 61
            assert name in store.status().problem
    disk = SimDisk(1)
    await filled(disk)
    async with running(new_store(disk)) as store:
        await store.compact(50, physical=True)
    assert "segment-00000001" not in disk.names()
    for name in ("checkpoint", "checkpoint.twin"):
        disk.names_seen[name].seen[40] ^= 1
    assert "checksum at byte 12 does not hold" in await open_error(disk)


async def test_a_newer_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimDisk(1)
    with monkeypatch.context() as newer:
        newer.setattr(frames, "FORMAT_VERSION", 2)
        await filled(disk)
    assert "format 2, this appliance knows up to 1" in await open_error(unclean(disk))


async def test_what_opens_is_what_was_written_however_the_tail_is_torn() -> None:
    disk = SimDisk(3)
    await filled(disk, count=30, sizes=Sizes())
    whole = bytes(unclean(disk).names_seen["segment-00000001"].seen)
    rng = random.Random(5)
    for _ in range(60):
        inode = disk.names_seen["segment-00000001"]
        cut = rng.randint(64, len(whole))
        inode.seen[:] = whole[:cut] + (rng.randbytes(rng.randint(0, 300)) if rng.random() < 0.5 else b"")
        async with running(new_store(disk, Sizes())) as store:
            revision = store.revision
            assert sorted(kv.mod_revision for kv in store.read(EVERYTHING).kvs) == list(
                range(max(2, revision - 19), revision + 1)
            )
            assert (await store.put(b"more", b"")).revision == revision + 1
        unclean(disk)


@pytest.mark.parametrize("seed", range(3))
async def test_a_restored_store_answers_as_the_old_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "RANGE_TOMBSTONE_KEYS", 3)
    life = Life(seed, SIZES[seed])
    async with running(new_store(life.disk, life.sizes)) as store:
        await life.live(store, 400)
        chunks = []
        async for chunk in store.backup():
            chunks.append(chunk)
            if len(chunks) % 3 == 0:  # writers go on, and do not matter
                await store.put(b"later", b"")
    assert check_backup(chunks) == life.model.revision
    other = SimDisk(9)
    assert restore(other, chunks) == life.model.revision
    assert check(other).problems == ()
    low = life.model.compacted
    async with running(new_store(other)) as store:
        for revision in range(max(low, 1), life.model.revision + 1):
            request = Range(b"\0", b"\0", revision)
            assert store.read(request) == life.model.range(request)
        assert await events_from(store, max(low, 1)) == life.model.events(b"\0", b"\0", max(low, 1), prev_kv=False)
        if low > 1:
            with pytest.raises(CompactedError):
                store.range(b"a", revision=low - 1)
        await life.live(store, 100)
    with pytest.raises(InputError, match="there is a store in /sim/ already"):
        restore(other, chunks)


async def events_from(store: Store, start: int) -> list[Event]:
    events: list[Event] = []
    async with store.watch(b"\0", b"\0", start_revision=start) as watcher:
        while not events or events[-1].kv.mod_revision < store.revision:
            events += (await anext(watcher)).events
    return events


async def test_a_damaged_or_cut_backup_is_refused() -> None:
    disk = SimDisk(1)
    async with running(new_store(disk)) as store:
        for n in range(30):
            await store.put(b"%d" % n, bytes(50))
        whole = b"".join([chunk async for chunk in store.backup()])
    assert check_backup([whole]) == 31
    for cut in range(1, len(whole), 97):
        with pytest.raises((CorruptError, InputError)):
            check_backup([whole[:cut]])
    for at in range(0, len(whole), 89):
        with pytest.raises((CorruptError, InputError)):
            check_backup([whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]])


CHILD = """
import sys, trio
from functools import partial
from appliance.host.disk import FileDisk
from appliance.store import Sizes, Store

async def main():
    store, stopping = Store(FileDisk(sys.argv[1]), sizes=Sizes(200_000, 65536, 300)), trio.Event()
    async def write(n):
        while True:
            result = await store.put(b"key%d" % n, b"x" * 500)
            print(n, result.revision, flush=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(store.run, stopping=stopping))
        for n in range(8):
            nursery.start_soon(write, n)
trio.run(main)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    directory = str(tmp_path / "store")
    acknowledged: dict[int, int] = {}
    for life in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, directory], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        ) as child:
            assert child.stdout is not None
            for _ in range(250 * (life + 1)):
                n, revision = map(int, child.stdout.readline().split())
                acknowledged[n] = revision
            child.send_signal(signal.SIGKILL)
            for line in child.stdout.read().splitlines():
                if len(line.split()) == 2 and line:
                    n, revision = map(int, line.split())
                    acknowledged[n] = revision
        report = check(FileDisk(directory))
        assert report.problems == ()
        assert report.revision >= max(acknowledged.values())

        async def look() -> None:
            async with running(Store(FileDisk(directory))) as store:
                for n, revision in acknowledged.items():
                    assert store.range(b"key%d" % n).kvs[0].mod_revision >= revision

        trio.run(look)


@pytest.mark.parametrize("place", ["store-before-write", "store-before-sync", "store-after-sync"])
def test_kill_9_at_each_step_of_a_commit(tmp_path: Path, place: str) -> None:
    """With one writer per key: what was acknowledged is there, and at most one write a key more."""
    directory = str(tmp_path / "store")
    acknowledged: dict[int, int] = {}
    for count in (1, 7, 40):
        child = subprocess.run(
            [sys.executable, "-c", CHILD, directory], capture_output=True, text=True, cwd=Path(__file__).parents[2],
            env={**os.environ, "APPLIANCE_FAILPOINT": f"{place}:{count}"}, timeout=120, check=False,
        )  # fmt: skip
        assert child.returncode == -signal.SIGKILL, child.stderr
        for line in child.stdout.splitlines():
            n, revision = map(int, line.split())
            acknowledged[n] = revision
        report = check(FileDisk(directory))
        assert report.problems == ()
        assert report.revision >= max(acknowledged.values(), default=1)
        assert report.revision <= max(acknowledged.values(), default=1) + 8


def test_a_hundred_thousand_keys_open_from_the_checkpoint(tmp_path: Path) -> None:
    disk = FileDisk(str(tmp_path))

    async def fill() -> None:
        async with running(Store(disk)) as store:
            for first in range(0, 100_000, 20_000):
                async with trio.open_nursery() as nursery:
                    for n in range(first, first + 20_000, 100):
                        puts = tuple(Put(b"/registry/pods/%06d" % k, b"v" * 50) for k in range(n, n + 100))
                        nursery.start_soon(store.txn, (), puts)

    async def look() -> None:
        async with running(Store(disk)) as store:
            status = store.status()
            assert (status.keys, status.revision, status.checkpoint_revision) == (100_000, 1001, 1001)
            found = store.range(b"/registry/pods/05", b"/registry/pods/06", limit=3)
            assert (found.count, [kv.key[-6:] for kv in found.kvs]) == (10_000, [b"050000", b"050001", b"050002"])

    trio.run(fill)
    trio.run(look)
