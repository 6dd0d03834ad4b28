"""Law: whenever the power goes, every acknowledged write is there, and what is there is a prefix of what was sent."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from sim.disk import PowerLost, SimDisk

from appliance.errors import ApplianceError, UnavailableError
from appliance.store import (
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    Operation,
    Put,
    Range,
    Sizes,
    Store,
    Txn,
    check,
    restore,
    transaction,
)  # fmt: skip
from store.life import new_store, running

TINY = Sizes(segment_bytes=900, reserve_bytes=300, checkpoint_records=9)
EVERYTHING = Range(b"\0", b"\0")
Content = dict[bytes, bytes]
SCRIPT: list[tuple[Operation, ...]] = [
    (Put(b"a", b"1"),),
    (Put(b"b", b"x" * 300), Put(b"c", b"y" * 40)),
    (Put(b"a", b"2"), Delete(b"c")),
    *[(Put(b"k%d" % n, b"v" * n * 9), Put(b"twin%d" % n, b"v" * n * 9)) for n in range(6)],
    (Delete(b"k", b"l"),),
    (Put(b"k1", b"again"), Put(b"k2", b"again")),
    (Put(b"a", b"3"),),
    (Delete(b"b"),),
    (Put(b"z", b"z" * 700),),
    (Put(b"a", b"4"), Put(b"b", b"back")),
]
COMPACT_AFTER = {6: 5, 11: 11, 14: 15}  # number of transaction -> revision


def contents() -> list[Content]:
    """What is there after the first n transactions."""
    now: Content = {}
    found = [dict(now)]
    for operations in SCRIPT:
        for operation in operations:
            if isinstance(operation, Put):
                now[operation.key] = operation.value
            elif isinstance(operation, Delete):
                for key in [k for k in now if k == operation.key or (operation.range_end or b"") > k >= operation.key]:
                    del now[key]
        found.append(dict(now))
    return found


async def facts_hold(store: Store) -> None:
    """As ``Writer.send`` keeps them."""
    number = store.revision - 1
    expected = {b"done": b"%d" % number, b"of/%d" % (number - 1): b"x"} if number else {}
    assert store.facts(b"") == expected


def content(store: Store) -> Content:
    return {kv.key: kv.value for kv in store.read(EVERYTHING).kvs}


class Writer:
    """Sends the script, three transactions at a time, and remembers what was acknowledged and what was seen."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.seen = 0

    async def write(self, store: Store) -> None:
        for first in range(0, len(SCRIPT), 3):
            async with trio.open_nursery() as nursery:
                for number in range(first, min(first + 3, len(SCRIPT))):
                    await nursery.start(self.one, store, number)
            for number in range(first, min(first + 3, len(SCRIPT))):
                if number in COMPACT_AFTER:
                    await store.compact(COMPACT_AFTER[number], physical=True)

    async def one(self, store: Store, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.send, store, number)
            task_status.started()

    async def send(self, store: Store, number: int) -> None:
        """With facts in the same go: they must not be told apart from the keys by any cut."""
        outcomes: list[object] = []
        both = trio.Event()

        def done(outcome: object) -> None:
            outcomes.append(outcome)
            if len(outcomes) == 2:
                both.set()

        store.submit(Txn(success=SCRIPT[number]), done)
        store.submit_facts({b"done": b"%d" % (number + 1), b"of/%d" % number: b"x", b"of/%d" % (number - 1): b""}, done)
        await both.wait()
        for outcome in outcomes:
            if isinstance(outcome, ApplianceError):
                raise outcome
        self.acknowledged = max(self.acknowledged, number + 1)

    async def watch(self, store: Store, *, task_status: trio.TaskStatus[None]) -> None:
        async with store.watch(b"\0", b"\0") as watcher:
            task_status.started()
            async for batch in watcher:
                self.seen = max(self.seen, batch.revision - 1)


def live(disk: SimDisk, writer: Writer, *, sizes: Sizes = TINY) -> None:
    async def main() -> None:
        async with running(new_store(disk, sizes)) as store, trio.open_nursery() as nursery:
            await nursery.start(writer.watch, store)
            await writer.write(store)
            await store.defragment()
            nursery.cancel_scope.cancel()

    trio.run(main)


def reopened(disk: SimDisk, act: Callable[[Store], Awaitable[None]] | None = None) -> tuple[Content, int]:
    found: list[tuple[Content, int]] = []

    async def main() -> None:
        async with running(new_store(disk, TINY)) as store:
            found.append((content(store), store.revision))
            if act is not None:
                await act(store)

    trio.run(main)
    return found[0]


@pytest.fixture(autouse=True)
def small_tombstones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "RANGE_TOMBSTONE_KEYS", 2)


def until_dark(act: Callable[[], object]) -> bool:
    """Whether the power went."""
    try:
        act()
    except BaseExceptionGroup as exc:
        power, _ = exc.split(PowerLost)
        if power is None:
            raise
        return True
    except PowerLost:
        return True
    return False


def all_operations() -> int:
    disk = SimDisk()
    live(disk, Writer())
    assert check(disk).problems == ()
    return disk.operations


def test_the_script_does_what_the_sweep_is_to_cut() -> None:
    disk = SimDisk()
    kinds: set[tuple[str, str]] = set()
    disk.fault_of = lambda kind, name: bool(kinds.add((kind, name.split("-")[0]))) and 0
    writer = Writer()
    live(disk, writer)
    assert writer.acknowledged == writer.seen == len(SCRIPT)
    assert {
        ("create", "segment"), ("create", "checkpoint.new"), ("rename", "checkpoint.twin.new"), ("remove", "segment"),
        ("sync", "segment"),
    } <= kinds  # fmt: skip
    assert reopened(disk)[0] == contents()[-1]


@pytest.mark.parametrize("seed", range(10))
def test_power_cut_at_every_operation(seed: int) -> None:
    states = contents()
    total, dark = all_operations(), 0  # trio shuffles tasks: a run may have an operation more or less
    for cut in range(1, total + 1):
        disk, writer = SimDisk(seed * 1000 + cut, cut_at=cut), Writer()
        dark += until_dark(lambda disk=disk, writer=writer: live(disk, writer))  # type: ignore[misc]
        disk.cut()
        after = disk.rebooted()
        assert check(after).problems == (), f"cut at {cut}"
        found, revision = reopened(after, facts_hold)
        transactions = revision - 1
        assert transactions >= max(writer.acknowledged, writer.seen), f"lost a write, cut at {cut}"
        assert found == states[transactions], f"not a prefix, cut at {cut}"
        assert reopened(after) == (found, revision)
    assert dark > total * 0.75  # how much upkeep there is to do, and so how long a run is, differs too


@pytest.mark.parametrize("seed", range(2))
def test_power_cut_while_opening_after_a_power_cut(seed: int) -> None:
    states = contents()
    for cut in range(5, all_operations(), 7):
        first = SimDisk(seed * 1000 + cut, cut_at=cut)
        until_dark(lambda disk=first: live(disk, Writer()))  # type: ignore[misc]
        for second_cut in range(1, 6):
            disk = first.rebooted()
            disk.cut_at = second_cut
            until_dark(lambda disk=disk: reopened(disk))  # type: ignore[misc]
            disk.cut()
            found, revision = reopened(disk.rebooted(), facts_hold)
            assert found == states[revision - 1]


async def _more(store: Store) -> None:
    assert (await store.put(b"more", b"room")).revision == store.revision


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_an_error_at_every_operation_once(number: int) -> None:
    """Writes are refused or done; what is read is right; opened again, every acknowledged write is there."""
    for at in range(1, 160):
        disk = SimDisk(at)
        disk.faults = {at: number}
        bearer = Bearer()
        trio.run(bearer.bear, disk)
        disk.faults.clear()
        found, _ = reopened(disk, _more)
        bearer.compare(found)


class Bearer:
    """One writer, one key after another; a store that ended is run again. A write that failed is there, or not."""

    def __init__(self) -> None:
        self.acknowledged: Content = {}
        self.failed: set[tuple[bytes, bytes]] = set()

    def compare(self, found: Content) -> None:
        for key in {*found, *self.acknowledged}:
            if (key, found.get(key, b"")) not in self.failed:
                assert found.get(key) == self.acknowledged.get(key), f"key {key!r}"

    async def bear(self, disk: SimDisk) -> None:
        store = new_store(disk, TINY)
        for life in range(2):
            try:
                async with running(store):
                    for n in range(12):
                        await self.write(store, b"key%d" % n, b"%d/" % life * 20)
                    await store.compact(store.revision, physical=True)
            except* ApplianceError:
                pass
            with pytest.raises(UnavailableError, match="cannot write to the store"):
                await store.put(b"refused", b"")

    async def write(self, store: Store, key: bytes, value: bytes) -> None:
        before = content(store)
        try:
            await store.put(key, value)
        except UnavailableError:
            self.failed.add((key, value))
            assert content(store) == before
            return
        self.acknowledged[key] = value
        self.compare(content(store))


async def test_a_failed_sync_poisons_reads_go_on_and_a_new_open_heals() -> None:
    disk = SimDisk(1)
    store = new_store(disk)
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with running(store):
            await store.put(b"a", b"1")
            disk.fault_of = lambda kind, name: errno.EIO if kind == "sync" else 0
            with pytest.raises(UnavailableError, match="cannot sync segment-00000001"):
                await store.put(b"a", b"2")
            disk.fault_of = lambda kind, name: 0
            with pytest.raises(UnavailableError, match="cannot sync"):
                await store.put(b"a", b"3")  # the disk is well again, the handle is not trusted
            assert content(store) == {b"a": b"1"}
    assert caught.group_contains(UnavailableError)
    assert store.status().state == "failed"
    assert "cannot sync" in store.status().problem
    assert content(store) == {b"a": b"1"}
    with trio.CancelScope() as life:
        async with running(store):
            seen = content(store)  # the second value was never acknowledged: it may be there, and then for good
            assert seen[b"a"] in (b"1", b"2")
            life.cancel()
            await trio.sleep_forever()
    disk.cut()
    found, _ = await trio.to_thread.run_sync(reopened, disk.rebooted())
    assert found == seen


async def test_no_room_refuses_clearly_and_room_heals_without_a_restart() -> None:
    disk = SimDisk(1, room=4000)
    store = new_store(disk)
    async with running(store):
        written = {}
        refused = ""
        for n in range(60):
            try:
                await store.put(b"%d" % n, bytes(100))
            except UnavailableError as exc:
                refused = exc.message
                break
            written[b"%d" % n] = bytes(100)
        assert "No space left on device" in refused
        assert "reads go on" in refused
        assert store.status().state == "full"
        assert content(store) == written
        with pytest.raises(UnavailableError, match="No space left"):
            await store.txn((), (Put(b"x", bytes(2000)), Delete(b"0")), ())
        assert content(store) == written
        disk.room = None
        assert (await store.put(b"after", b"")).revision == len(written) + 2
        assert store.status().state == "open"
    found, _ = await trio.to_thread.run_sync(reopened, disk)
    assert found == written | {b"after": b""}


async def test_writers_that_saw_a_refused_write_are_refused_too() -> None:
    disk = SimDisk(1)
    store = new_store(disk)
    exists = Compare(b"first", CompareTarget.VERSION, CompareResult.GREATER, 0)
    outcomes: list[str] = []

    async def write(operation: Operation, *compares: Compare) -> None:
        try:
            result = await store.txn(compares, (operation,), ())
        except UnavailableError:
            outcomes.append("refused")
        else:
            outcomes.append(f"{result.succeeded}")

    async with running(store), trio.open_nursery() as nursery:
        await store.put(b"ground", b"")
        disk.fault_of = lambda kind, name: errno.ENOSPC if kind == "write" else 0
        nursery.start_soon(write, Put(b"first"))
        await trio.lowlevel.checkpoint()
        nursery.start_soon(write, Put(b"second"), exists)
        nursery.start_soon(write, Range(b"ground"), exists)
        await trio.testing.wait_all_tasks_blocked()
        disk.fault_of = lambda kind, name: 0
        assert content(store) == {b"ground": b""}
        await store.put(b"third", b"")
        assert store.range(b"third").kvs[0].mod_revision == 3
    assert sorted(outcomes) in (["False", "refused", "refused"], ["refused", "refused", "refused"])


@pytest.mark.parametrize("replace", [False, True])
def test_power_cut_at_every_operation_of_a_restore(replace: bool) -> None:
    source = SimDisk(0)
    live(source, Writer())
    chunks = trio.run(backed_up, source)
    wanted = contents()[-1]

    def before(seed: int) -> SimDisk:
        disk = SimDisk(seed)
        if replace:
            trio.run(_old_store, disk)
        return disk

    cut = 0
    finished = False
    while not finished:
        cut += 1
        disk = before(cut)
        disk.cut_at = disk.operations + cut
        finished = not until_dark(lambda disk=disk: restore(disk, chunks, replace=replace))  # type: ignore[misc]
        disk.cut()
        after = disk.rebooted()
        report = check(after)
        if report.problems:
            assert "a restore was cut off" in report.problems[0]
            restore(after, chunks, replace=replace)
        found, _ = reopened(after)
        assert found in ([wanted] if finished else [wanted, {b"old": b"store"} if replace else {}]), f"cut at {cut}"
    assert cut > 10


async def _old_store(disk: SimDisk) -> None:
    async with running(new_store(disk)) as store:
        await store.put(b"old", b"store")


async def backed_up(disk: SimDisk) -> list[bytes]:
    async with running(new_store(disk, TINY)) as store:
        return [chunk async for chunk in _chunks(store)]


async def _chunks(store: Store) -> AsyncIterator[bytes]:
    async for chunk in store.backup():
        yield chunk
