"""The store and the model, through any sequence of requests, restarts, crashes and compactions."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sim.disk import SimDisk

from appliance.errors import ApplianceError
from appliance.store import (
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Store,
    Txn,
    check,
    transaction,
)  # fmt: skip
from appliance.store.rules import check_txn
from store.life import new_store
from store.model import Model

KEYS = st.one_of(
    st.sampled_from([b"a", b"b", b"c", b"/r/x", b"/r/x\0", b"/r/xx", b"\xff", b"/r/" + b"p" * 30]),
    st.just(b"/r/" + b"p" * 30 + b"q"),
    st.binary(min_size=1, max_size=3),
    st.integers(0, 60).map(lambda n: b"/registry/pods/%04d" % n),
)  # fmt: skip
ENDS = st.one_of(st.none(), st.just(b"\0"), KEYS)
VALUES = st.one_of(st.binary(max_size=4), st.integers(0, 400).map(bytes))
LEASES = st.sampled_from([0, 0, 7])
puts = st.builds(Put, KEYS, VALUES, LEASES, st.booleans(), st.just(False), st.just(False))
more_puts = st.builds(Put, KEYS, st.just(b""), st.just(0), st.booleans(), st.booleans(), st.booleans())
deletes = st.builds(Delete, KEYS, ENDS, st.booleans())
ranges = st.builds(
    Range, KEYS, ENDS, st.just(0), st.integers(0, 3), st.booleans(), st.booleans(), st.sampled_from(SortTarget),
    st.sampled_from(SortOrder), *[st.sampled_from([0, 0, 0, 3, 9])] * 4,
)  # fmt: skip
int_compares = st.builds(
    Compare, KEYS, st.sampled_from([t for t in CompareTarget if t is not CompareTarget.VALUE]),
    st.sampled_from(CompareResult), st.integers(0, 5), ENDS,
)  # fmt: skip
value_compares = st.builds(
    Compare, KEYS, st.just(CompareTarget.VALUE), st.sampled_from(CompareResult), VALUES, ENDS
)  # fmt: skip
compares = st.lists(st.one_of(int_compares, value_compares), max_size=2).map(tuple)
flat = st.lists(st.one_of(puts, more_puts, deletes, ranges), max_size=4).map(tuple)
inner = st.builds(Txn, compares, flat, flat)
mixed = st.lists(st.one_of(puts, deletes, ranges, inner), max_size=3).map(tuple)
txns = st.builds(Txn, compares, mixed, mixed)


class Machine(RuleBasedStateMachine):
    """One store, driven a request at a time from outside trio."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimDisk(1)
        self.model = Model()
        self.rng = random.Random(3)
        self.store: Store
        self.host = Host()
        self.open()

    def open(self) -> None:
        self.store = self.host.open(new_store(self.disk))

    def teardown(self) -> None:
        self.host.close()
        report = check(self.disk)
        assert report.problems == ()
        assert report.revision == self.model.revision

    def both(self, txn: Txn) -> None:
        assert outcome(lambda: self.host.call(self.store.txn, txn.compares, txn.success, txn.failure)) == outcome(
            lambda: self.model.apply(txn)
        )

    @rule(put=st.one_of(puts, puts, more_puts))
    def put(self, put: Put) -> None:
        if (put.ignore_value and put.value) or (put.ignore_lease and put.lease):
            return
        self.both(Txn(success=(put,)))

    @rule(delete=deletes)
    def delete(self, delete: Delete) -> None:
        self.both(Txn(success=(delete,)))

    @rule(batch=st.lists(puts, min_size=5, max_size=30, unique_by=lambda put: put.key))
    def many(self, batch: list[Put]) -> None:
        answers = self.host.call(together, self.store, batch)
        order = sorted(range(len(batch)), key=lambda n: answers[n].revision)
        for number in order:
            assert self.model.apply(Txn(success=(batch[number],))).responses[0] == answers[number]

    @rule(txn=txns)
    def txn(self, txn: Txn) -> None:
        refused = outcome(lambda: check_txn(txn))
        if refused is None:
            self.both(txn)
        else:
            ours = outcome(lambda: self.host.call(self.store.txn, txn.compares, txn.success, txn.failure))
            assert ours is refused

    @rule(request=ranges, back=st.integers(-2, 30))
    def range(self, request: Range, back: int) -> None:
        request = request._replace(revision=max(self.model.revision - back, 0))
        assert outcome(lambda: self.store.read(request)) == outcome(lambda: self.model.range(request))

    @rule(back=st.integers(-1, 20), physical=st.booleans())
    def compact(self, back: int, physical: bool) -> None:
        revision = max(self.model.revision - back, 0)
        ours = outcome(lambda: self.host.call(compact, self.store, revision, physical))
        assert ours == outcome(lambda: self.model.compact(revision))

    @rule()
    def defragment(self) -> None:
        self.host.call(defragment, self.store)

    @rule(key=KEYS, end=ENDS, back=st.integers(0, 30), prev_kv=st.booleans())
    def watch(self, key: bytes, end: bytes | None, back: int, prev_kv: bool) -> None:
        start = max(self.model.revision - back, self.model.compacted, 1)
        assert self.host.call(seen, self.store, key, end, start, prev_kv) == self.model.events(
            key, end, start, prev_kv=prev_kv
        )

    @rule()
    def restart(self) -> None:
        self.host.close()
        self.open()

    @rule()
    def crash(self) -> None:
        self.host.kill()
        self.disk.cut()
        self.disk = self.disk.rebooted()
        self.open()

    @precondition(lambda self: self.model.compacted)
    @invariant()
    def newest_is_equal(self) -> None:
        everything = Range(b"\0", b"\0")
        assert self.store.read(everything) == self.model.range(everything)


class Host:
    """A trio thread that owns the running store."""

    def __init__(self) -> None:
        self._portal: Any = None

    def open(self, store: Store) -> Store:
        ready = threading.Event()

        async def main() -> None:
            self._token = trio.lowlevel.current_trio_token()
            self._stopping = trio.Event()
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(lambda task_status: store.run(stopping=self._stopping, task_status=task_status))
                    ready.set()

        self._thread = threading.Thread(target=trio.run, args=(main,))
        self._thread.start()
        assert ready.wait(30)
        return store

    def call(self, function: Any, *args: Any) -> Any:
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(lambda: self._stopping.set(), trio_token=self._token)
        self._thread.join()

    def kill(self) -> None:
        trio.from_thread.run_sync(lambda: self._scope.cancel(), trio_token=self._token)
        self._thread.join()


async def together(store: Store, batch: list[Put]) -> list[Any]:
    answers: dict[int, Any] = {}

    async def one(number: int, put: Put) -> None:
        answers[number] = await store.put(put.key, put.value, lease=put.lease, prev_kv=put.prev_kv)

    async with trio.open_nursery() as nursery:
        for number, put in enumerate(batch):
            nursery.start_soon(one, number, put)
    return [answers[number] for number in range(len(batch))]


async def compact(store: Store, revision: int, physical: bool) -> None:
    await store.compact(revision, physical=physical)


async def defragment(store: Store) -> None:
    await store.defragment()


async def seen(store: Store, key: bytes, end: bytes | None, start: int, prev_kv: bool) -> list[Any]:
    events: list[Any] = []
    async with store.watch(key, end, start_revision=start, prev_kv=prev_kv) as watcher:
        while not watcher.synced:
            batch = watcher._catch_up(store._reading())
            events += batch.events if batch else ()
    return events


def outcome(act: Any) -> Any:
    try:
        return act()
    except ApplianceError as exc:
        return type(exc)


@pytest.fixture(autouse=True)
def small_tombstones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "RANGE_TOMBSTONE_KEYS", 2)


Machine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=50, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)  # fmt: skip
TestMachine = Machine.TestCase
