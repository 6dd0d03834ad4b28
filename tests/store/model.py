"""The store as it should be: every revision as a whole dict. Slow, obvious, and never wrong."""

from __future__ import annotations

from appliance.store import (
    CompactedError,
    Compare,
    Delete,
    DeleteResult,
    Event,
    EventKind,
    FutureRevisionError,
    KeyNotFoundError,
    KeyValue,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    SortOrder,
    SortTarget,
    Txn,
    TxnResult,
)  # fmt: skip

State = dict[bytes, KeyValue]


def matches(key: bytes, start: bytes, end: bytes | None) -> bool:
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


class Model:
    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.states: dict[int, State] = {1: {}}
        self.changes: dict[int, list[Event]] = {}

    def apply(self, txn: Txn) -> TxnResult:
        work = dict(self.states[self.revision])
        changes: list[Event] = []
        result = self._txn(txn, work, changes, dict(work))
        if changes:
            self.revision += 1
            self.states[self.revision] = work
            self.changes[self.revision] = changes
        return result

    def _txn(self, txn: Txn, work: State, changes: list[Event], before: State) -> TxnResult:
        ok = all(self._compare(c, before) for c in txn.compares)
        operations = txn.success if ok else txn.failure
        self._refuse(operations, before)
        responses: list[RangeResult | PutResult | DeleteResult | TxnResult] = []
        for operation in operations:
            responses.append(self._operation(operation, work, changes, before))
        return TxnResult(self.revision + bool(changes), ok, tuple(responses))

    def _refuse(self, operations: tuple[Operation, ...], before: State) -> None:
        for o in operations:
            if isinstance(o, Put) and (o.ignore_value or o.ignore_lease) and o.key not in before:
                raise KeyNotFoundError("key not found")
            if isinstance(o, Range):
                self._revision_of(o)
            if isinstance(o, Txn):
                self._refuse(o.success if all(self._compare(c, before) for c in o.compares) else o.failure, before)

    def _operation(
        self, o: Operation, work: State, changes: list[Event], before: State
    ) -> RangeResult | PutResult | DeleteResult | TxnResult:
        revision = self.revision + 1
        match o:
            case Put():
                old = work.get(o.key)
                kv = KeyValue(
                    o.key, old.value if old and o.ignore_value else o.value, old.create_revision if old else revision,
                    revision, old.version + 1 if old else 1, old.lease if old and o.ignore_lease else o.lease,
                )  # fmt: skip
                work[o.key] = kv
                changes.append(Event(EventKind.PUT, kv, old))
                return PutResult(revision, old if o.prev_kv else None)
            case Delete():
                gone = [work.pop(k) for k in sorted(work) if matches(k, o.key, o.range_end)]
                changes += [Event(EventKind.DELETE, KeyValue(kv.key, b"", 0, revision, 0), kv) for kv in gone]
                return DeleteResult(self.revision + bool(changes), len(gone), tuple(gone) if o.prev_kv else ())
            case Range():
                return self.range(o, work, self.revision + bool(changes))
            case Txn():
                return self._txn(o, work, changes, before)

    def _compare(self, c: Compare, state: State) -> bool:
        found = [state[k] for k in sorted(state) if matches(k, c.key, c.range_end)]
        name = {"CREATE": "create_revision", "MOD": "mod_revision"}.get(c.target.name, c.target.name.lower())
        values = [getattr(kv, name) for kv in found]
        if not found:
            if name == "value":
                return False
            values = [0]
        tests = {
            "EQUAL": lambda v: v == c.operand, "NOT_EQUAL": lambda v: v != c.operand,
            "GREATER": lambda v: v > c.operand, "LESS": lambda v: v < c.operand,
        }  # fmt: skip
        return all(map(tests[c.result.name], values))

    def _revision_of(self, r: Range) -> int:
        if r.revision > self.revision:
            raise FutureRevisionError("future")
        if 0 < r.revision < self.compacted:
            raise CompactedError("compacted", self.compacted)
        return r.revision

    def range(self, r: Range, work: State | None = None, now: int = 0) -> RangeResult:
        at = self._revision_of(r)
        state = self.states[at] if at and (work is None or at <= self.revision) else work
        state = self.states[self.revision] if state is None else state
        found = [state[k] for k in sorted(state) if matches(k, r.key, r.range_end)]
        kvs = [
            kv for kv in found
            if (not r.min_mod_revision or kv.mod_revision >= r.min_mod_revision)
            and (not r.max_mod_revision or kv.mod_revision <= r.max_mod_revision)
            and (not r.min_create_revision or kv.create_revision >= r.min_create_revision)
            and (not r.max_create_revision or kv.create_revision <= r.max_create_revision)
        ]  # fmt: skip
        filtered = r.min_mod_revision or r.max_mod_revision or r.min_create_revision or r.max_create_revision
        if r.limit and r.sort_order is SortOrder.NONE and not filtered:
            kvs = kvs[: r.limit + 1]
        field = {
            SortTarget.KEY: "key", SortTarget.VERSION: "version", SortTarget.CREATE: "create_revision",
            SortTarget.MOD: "mod_revision", SortTarget.VALUE: "value",
        }[r.sort_target]  # fmt: skip
        kvs.sort(key=lambda kv: getattr(kv, field), reverse=r.sort_order is SortOrder.DESCEND)
        more = bool(r.limit) and len(kvs) > r.limit
        kvs = kvs[: r.limit] if r.limit else kvs
        if r.keys_only:
            kvs = [kv._replace(value=b"") for kv in kvs]
        if r.count_only:
            kvs, more = [], False
        return RangeResult(tuple(kvs), more, len(found), now or self.revision)

    def compact(self, revision: int) -> None:
        if revision > self.revision:
            raise FutureRevisionError("future")
        if revision <= self.compacted:
            raise CompactedError("compacted", self.compacted)
        self.compacted = revision

    def events(self, key: bytes, end: bytes | None, start: int, *, prev_kv: bool) -> list[Event]:
        found = []
        for revision in range(start, self.revision + 1):
            for event in self.changes.get(revision, []):
                if matches(event.kv.key, key, end):
                    kept = prev_kv and revision - 1 >= self.compacted
                    found.append(event if kept else event._replace(prev=None))
        return found
