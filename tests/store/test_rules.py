"""etcd's rules, one by one: what a transaction may hold, what a request must name, how the log is shared."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from sim.disk import SimDisk

from appliance.errors import ApplianceError, InputError, UnavailableError
from appliance.store import (
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    DuplicateKeyError,
    EmptyKeyError,
    KeyNotFoundError,
    Operation,
    Put,
    Range,
    RangeResult,
    Retention,
    Sizes,
    Store,
    TooLargeError,
    TooManyOperationsError,
    Txn,
    TxnResult,
    prefix_end,
)  # fmt: skip
from appliance.store.frames import DEAD
from appliance.store.index import Index
from appliance.store.rules import check_txn
from store.life import inline, new_store, running

A, B = Put(b"a", b"1"), Put(b"b", b"1")


@pytest.mark.parametrize(
    "operations",
    [
        (A, A),
        (A, Delete(b"a")),
        (Delete(b"a"), A),
        (Delete(b"\0", b"\0"), A),
        (A, Delete(b"A", b"b")),
        (A, Txn(success=(A,))),
        (Txn(failure=(A,)), A),
        (Txn(success=(A,)), Txn(success=(A,))),
        (Delete(b"a"), Txn(success=(A,))),
        (A, Txn(success=(Delete(b"a"),))),
        (Txn(success=(Delete(b"a", b"c"),)), B),
    ],
)
def test_a_key_changed_twice_is_refused(operations: tuple[Operation, ...]) -> None:
    for txn in (Txn(success=operations), Txn(failure=operations)):
        with pytest.raises(DuplicateKeyError, match="is changed twice"):
            check_txn(txn)


@pytest.mark.parametrize(
    "operations",
    [
        (A, B),
        (A, Delete(b"b")),
        (Delete(b"a"), Delete(b"a")),
        (Delete(b"a", b"c"), Delete(b"b", b"d")),
        (Txn(success=(A,), failure=(A,)),),
        (A, Range(b"a")),
        (Delete(b"b", b"d"), A),
    ],
)
def test_what_etcd_allows(operations: tuple[Operation, ...]) -> None:
    check_txn(Txn(success=operations))


def test_limits() -> None:
    check_txn(Txn(success=(Range(b"a"),) * 128))
    with pytest.raises(TooManyOperationsError, match="129 entries in success, at most 128"):
        check_txn(Txn(success=(Range(b"a"),) * 129))
    compare = Compare(b"a", CompareTarget.MOD, CompareResult.EQUAL, 0)
    with pytest.raises(TooManyOperationsError):
        check_txn(Txn(compares=(compare,) * 129))
    with pytest.raises(TooLargeError, match="at most 1572864"):
        check_txn(Txn(success=(Put(b"a", bytes(1_572_864)),)))
    with pytest.raises(InputError, match="MOD is compared with bytes"):
        check_txn(Txn(compares=(Compare(b"a", CompareTarget.MOD, CompareResult.EQUAL, b"0"),)))


async def test_requests_that_name_no_key_or_contradict_themselves() -> None:
    async with running(new_store(SimDisk())) as store:
        with pytest.raises(EmptyKeyError):
            await store.put(b"", b"")
        with pytest.raises(EmptyKeyError):
            await store.delete(b"", b"\0")
        with pytest.raises(EmptyKeyError):
            store.range(b"")
        with pytest.raises(KeyNotFoundError):
            await store.put(b"a", b"", ignore_value=True)
        with pytest.raises(InputError, match="ignore_value too"):
            await store.put(b"a", b"1", ignore_value=True)
        assert store.revision == 1


async def test_what_changes_nothing_takes_no_revision() -> None:
    async with running(new_store(SimDisk())) as store:
        assert (await store.delete(b"nope")).revision == 1
        assert (await store.txn((), (Range(b"a"), Delete(b"a", b"z")))).revision == 1
        assert (await store.put(b"a", b"")).revision == 2
        answer = await store.txn((), (Range(b"a"), Put(b"b"), Range(b"\0", b"\0"), Delete(b"a")))
        assert answer.revision == 3
        assert [each.count for each in answer.responses if isinstance(each, RangeResult)] == [1, 2]


async def test_a_transaction_whose_reads_fail_leaves_nothing_behind() -> None:
    disk = SimDisk()
    async with running(new_store(disk, Sizes())) as store:
        await store.put(b"a", b"a" * 100)
        await store.put(b"b", b"b" * 100)
        inode = disk.names_seen["segment-00000001"]
        inode.seen[bytes(inode.seen).index(b"b" * 50) + 60] ^= 1
        for _ in range(2):
            with pytest.raises(ApplianceError, match="checksum"):
                await store.txn((), (Put(b"a", b"half"), Put(b"new"), Delete(b"b", prev_kv=True)))
        assert store.range(b"a").kvs[0].value == b"a" * 100
        assert store.range(b"a", b"z", keys_only=True).count == 2
        assert (await store.put(b"c", b"")).revision == 4
        assert store.range(b"new").count == 0


async def test_writers_that_wait_share_a_sync() -> None:
    disk = SimDisk()
    syncs: list[str] = []
    disk.fault_of = lambda kind, name: 0 if kind != "sync" else int(bool(syncs.append(name)))
    async with running(Store(disk, in_thread=inline)) as store:
        await store.put(b"first", b"")
        syncs.clear()
        async with trio.open_nursery() as nursery:
            for n in range(500):
                nursery.start_soon(store.put, b"%d" % n, bytes(100))
        assert len(syncs) <= 3
        assert store.status().batches <= 4
        assert store.revision == 502


async def test_submit_answers_without_a_task() -> None:
    disk = SimDisk()
    store = new_store(disk)
    answers: list[TxnResult | ApplianceError] = []
    store.submit(A, answers.append)
    assert isinstance(answers.pop(), UnavailableError)
    async with running(store):
        store.submit(A, answers.append)
        store.submit(Txn((), (Range(b"a"),)), answers.append)
        store.submit(Put(b""), answers.append)
        assert [type(answer) for answer in answers] == [EmptyKeyError]
        await store.put(b"z", b"")
        first, second = answers[1:]
        assert isinstance(first, TxnResult)
        assert isinstance(second, TxnResult)
        assert (first.revision, second.responses[0].revision) == (2, 2)
        store.submit(Txn((), (Range(b"a"),)), answers.append)
        assert isinstance(answers[-1], TxnResult)


async def test_checkpoints_are_written_one_at_a_time_the_last_one_too() -> None:
    active: list[int] = [0, 0]

    async def slowly(function: Any, *args: Any) -> Any:
        writes_checkpoint = function.__name__ == "_write"
        active[0] += writes_checkpoint
        active[1] = max(active)
        with trio.CancelScope(shield=True):  # as a thread, it cannot be stopped
            for _ in range(20 * writes_checkpoint):
                await trio.lowlevel.checkpoint()
        active[0] -= writes_checkpoint
        return function(*args)

    for steps in range(30):
        store = Store(SimDisk(), sizes=Sizes(checkpoint_records=3), in_thread=slowly)
        async with running(store):
            for n in range(6):
                await store.put(b"%d" % n, b"")
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
    assert active == [0, 1]


async def test_history_is_bounded_when_asked() -> None:
    told: list[tuple[Any, ...]] = []
    sizes = Sizes(segment_bytes=2000, reserve_bytes=512, checkpoint_records=100)
    async with running(
        new_store(
            SimDisk(),
            sizes,
            retention=Retention(revisions=20),
            publish=lambda kind, subject, **data: told.append((kind, subject, data)),
        )
    ) as store:
        for n in range(400):
            await store.put(b"%d" % (n % 5), bytes(100))
        await trio.testing.wait_all_tasks_blocked()
        assert store.revision - 41 <= store.compacted_revision
        assert store.status().segments < 10
    assert {subject for _, subject, _ in told} >= {"opened", "compacted"}


@given(st.binary(max_size=4))
def test_prefix_end_is_the_first_key_that_does_not_begin_so(prefix: bytes) -> None:
    end = prefix_end(prefix)
    if end == b"\0":
        assert not prefix.strip(b"\xff")
    else:
        assert prefix < prefix + b"\xff" * 9 < end
        assert not end.startswith(prefix)


keys = st.one_of(st.binary(min_size=1, max_size=3), st.integers(0, 3000).map(lambda n: b"/long/prefix/%06d" % n))


@given(st.lists(st.tuples(keys, st.sampled_from("ssssrm"), keys), max_size=60), st.integers(0, 1500))
def test_index_is_an_ordered_map(changes: list[tuple[bytes, str, bytes]], bulk: int) -> None:
    names = [b""]
    index = Index(lambda at: names[at])
    model: dict[bytes, int] = {}

    def put(key: bytes) -> None:
        names.append(key)
        assert index.set(key, len(names) - 1) == model.get(key, 0)
        model[key] = len(names) - 1

    for n in range(bulk):
        put(b"/long/prefix/%06d" % (n * 7 % 3000))
    for key, what, end in changes:
        if what == "s":
            put(key)
        elif what == "r":
            assert index.remove(key) == model.pop(key, 0)
        else:
            marked = sorted(entry for part in index.mark_dead(key, end) for entry in part)
            inside = [k for k in model if key <= k and (end == b"\0" or k < end)]
            assert marked == sorted(model[k] for k in inside if model[k] < DEAD)
            model |= {k: model[k] | DEAD for k in inside}
        assert index.count_live(key, end) == sum(
            model[k] < DEAD for k in model if key <= k and (end == b"\0" or k < end)
        )
    assert list(index.scan(b"\0", b"\0")) == [model[k] for k in sorted(model) if k >= b"\0"]
    assert (index.size, index.dead) == (len(model), sum(entry >= DEAD for entry in model.values()))
    assert all(index.find(key) == entry for key, entry in model.items())
