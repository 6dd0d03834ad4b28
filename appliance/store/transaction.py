"""Requests run on the tree: reads at a revision, transactions on what is staged. Synchronous and all-or-nothing.

Order as in etcd: every compare, of nested transactions too, is decided before anything is written; then everything
that may be refused is checked; then the chosen operations run, and reads among them see the writes before them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import assert_never

from appliance.store.faults import CompactedError, EmptyKeyError, FutureRevisionError, KeyNotFoundError
from appliance.store.frames import DEAD, DELETE, DELETE_RANGE
from appliance.store.requests import Compare, CompareTarget, Delete, Operation, Put, Range, SortOrder, SortTarget, Txn
from appliance.store.results import DeleteResult, KeyValue, PutResult, RangeResult, TxnResult
from appliance.store.rules import holds, needs_all, sort_and_filter
from appliance.store.tree import Tree

Attach = Callable[[int, bytes], None]  # (lease, key), of a put that will run; raises when there is no such lease
Make = Callable[[bytes, bytes, int, int, int, int], bytes]  # of key, value, create, mod, version, lease
_CACHED_KEYS_MAX = 1024  # who reads more than that at once reads everything, once
RANGE_TOMBSTONE_KEYS = 512  # a delete of more keys than this, alone in its revision, is one record


class Branch:
    """Which way a transaction goes, decided up front; ``nested`` in the order of the transactions among operations."""

    def __init__(self, tree: Tree, txn: Txn) -> None:
        self.succeeded = all(_holds(tree, compare) for compare in txn.compares)
        self.operations = txn.success if self.succeeded else txn.failure
        self.nested = [Branch(tree, operation) for operation in self.operations if isinstance(operation, Txn)]


def _holds(tree: Tree, compare: Compare) -> bool:
    read = tree.key_value if compare.target is CompareTarget.VALUE else tree.key_only
    if compare.range_end:
        return holds(compare, [read(at) for at in tree.scan(compare.key, compare.range_end, tree.revision)])
    at = tree.get(compare.key, tree.revision)
    return holds(compare, [read(at)] if at else [])


def read_range(tree: Tree, request: Range, now: int) -> RangeResult:
    """``now`` is the revision that 0 means, and that the answer carries."""
    tree.ranges += 1
    revision = check_range(tree, request, now)
    key, range_end = request.key, request.range_end
    read = tree.key_only if request.keys_only and request.sort_target is not SortTarget.VALUE else tree.key_value
    if not range_end:
        at = tree.get(key, revision)
        if not at or request.count_only:
            return RangeResult((), False, int(at > 0), now)
        kvs = sort_and_filter(request, [read(at)]) if needs_all(request) else [read(at)]
        return RangeResult(tuple(_wanted(request, kvs)), False, 1, now)
    if request.count_only:
        return RangeResult((), False, tree.count(key, range_end, revision), now)
    found = tree.scan(key, range_end, revision)
    if needs_all(request):
        unordered = request.limit > 0 and request.sort_order is SortOrder.NONE and not _filters(request)
        if unordered:  # an etcd sorts then, too, but only as many as it read
            found = islice(found, request.limit + 1)
        everything = [read(at) for at in found]
        kvs = sort_and_filter(request, everything)
        more = 0 < request.limit < len(kvs)
        kvs = kvs[: request.limit or None]
        count = tree.count(key, range_end, revision) if unordered else len(everything)
        return RangeResult(tuple(_wanted(request, kvs)), more, count, now)
    kvs = [read(at) for at in (islice(found, request.limit) if request.limit else found)]
    count = len(kvs)
    if request.limit and count == request.limit:
        count = tree.count(key, range_end, revision)
    return RangeResult(tuple(kvs), count > len(kvs), count, now)


def read_plain(tree: Tree, request: Range, now: int, make: Make) -> tuple[list[bytes], bool, int] | None:
    """What most ask for, each key's record given to ``make``: (made, more, count). None: ``read_range`` is needed.

    ``make`` must be the same function always: what it made is kept for the next who ask.
    """
    if request.keys_only or request.count_only or needs_all(request):
        return None
    revision = check_range(tree, request, now)
    tree.ranges += 1
    key, range_end, limit = request.key, request.range_end, request.limit
    if range_end:
        found = list(islice(tree.scan(key, range_end, revision), limit or None))
    else:
        at = tree.get(key, revision)
        found = [at] if at else []
    log, cache = tree.log, tree.cache
    entries, keep = cache.entries, len(found) <= _CACHED_KEYS_MAX
    made = []
    for at in found:
        one = entries.get(at)
        if one is None:
            _, key_found, value, mod, create, version, lease, _ = log.record(at)
            one = make(key_found, value, create, mod, version, lease)
            if keep and at not in log.staged:
                cache.add(at, one)
        made.append(one)
    count = len(made)
    if range_end and limit and count == limit:
        count = tree.count(key, range_end, revision)
    return made, count > len(made), count


def _filters(request: Range) -> bool:
    return bool(
        request.min_mod_revision or request.max_mod_revision
        or request.min_create_revision or request.max_create_revision
    )  # fmt: skip


def _wanted(request: Range, kvs: list[KeyValue]) -> list[KeyValue]:
    return [kv._replace(value=b"") if kv.value else kv for kv in kvs] if request.keys_only else kvs


def check_range(tree: Tree, request: Range, now: int) -> int:
    """The revision to read at. Raises what etcd answers for one that is not there."""
    if not request.key:
        raise EmptyKeyError("cannot read range: the key is empty")
    revision = request.revision
    if revision > now:
        raise FutureRevisionError(f"cannot read at revision {revision}: the newest is {now}")
    if revision <= 0:
        return now
    if revision < tree.compacted_revision:
        raise CompactedError(
            f"cannot read at revision {revision}: kept from revision {tree.compacted_revision} on",
            tree.compacted_revision,
        )
    return revision


def run_txn(tree: Tree, txn: Txn, attach: Attach | None = None) -> TxnResult:
    """Stage it. When this raises, nothing was staged. ``attach`` hears of the leases in the branches taken only."""
    branch = Branch(tree, txn)
    _check(tree, branch, attach)
    point = _savepoint(tree)
    tree.txns += len(branch.operations) != 1
    try:
        return _run(tree, branch, tree.revision + 1)
    except BaseException:
        _go_back(tree, point)
        raise


def _savepoint(tree: Tree) -> tuple[int, int, int, int]:
    batch = tree.log.open_batch
    if batch is None:
        return tree.revision, 0, 0, tree.revision
    return tree.revision, len(batch.parts), len(batch.undo), batch.last_revision


def _go_back(tree: Tree, point: tuple[int, int, int, int]) -> None:
    """Reading an older record failed: leave no half of a transaction behind."""
    tree.revision, parts, changes, last_revision = point
    batch = tree.log.open_batch
    if batch is not None:
        tree.undo(batch, keep=changes)
        tree.log.unstage(batch, parts)
        batch.last_revision = last_revision


def _check(tree: Tree, branch: Branch, attach: Attach | None) -> None:
    nested = iter(branch.nested)
    for operation in branch.operations:
        match operation:
            case Range():
                check_range(tree, operation, tree.revision)
                if operation.revision < 0 < tree.compacted_revision:  # alone it means now; an etcd is that fine
                    raise CompactedError("cannot read at a negative revision", tree.compacted_revision)
            case Put():
                if (operation.ignore_value or operation.ignore_lease) and not tree.get(operation.key, tree.revision):
                    raise KeyNotFoundError(f"cannot put {operation.key!r}: key not found")
                if operation.lease and attach is not None:
                    attach(operation.lease, operation.key)
            case Txn():
                _check(tree, next(nested), attach)


def _run(tree: Tree, branch: Branch, revision: int) -> TxnResult:
    nested = iter(branch.nested)
    responses: list[RangeResult | PutResult | DeleteResult | TxnResult] = []
    for operation in branch.operations:
        match operation:
            case Range():
                responses.append(read_range(tree, operation, tree.revision))
            case Put():
                responses.append(_put(tree, operation, revision))
            case Delete():
                responses.append(_delete(tree, operation, revision, alone=len(branch.operations) == 1))
            case Txn():
                responses.append(_run(tree, next(nested), revision))
            case _:
                assert_never(operation)
    return TxnResult(tree.revision, branch.succeeded, tuple(responses))


def run_put(tree: Tree, put: Put) -> PutResult:
    """A put that is a whole transaction: the fast way."""
    if put.ignore_value or put.ignore_lease:
        response = run_txn(tree, Txn(success=(put,))).responses[0]
        assert isinstance(response, PutResult)
        return response
    batch, revision = tree.log.open_batch, tree.revision
    point = (revision, len(batch.parts), len(batch.undo), batch.last_revision) if batch else (revision, 0, 0, revision)
    try:
        return _put(tree, put, revision + 1)
    except BaseException:
        _go_back(tree, point)
        raise


def _put(tree: Tree, put: Put, revision: int) -> PutResult:
    key, value, lease, with_prev, ignore_value, ignore_lease = put
    index = tree.index
    slot = index.locate(key)
    old = index.chunks[slot[0]].entries[slot[1]] if slot[2] else 0
    create, version, prev = revision, 1, None
    if 0 < old < DEAD:
        if ignore_value or with_prev:
            prev = tree.key_value(old)
            value = prev.value if ignore_value else value
        header = tree.log.header(old)
        create, version = header.create, header.version + 1
        lease = header.lease if ignore_lease else lease
    before = old if old < DEAD else tree.predecessor(key)
    tree.puts += 1
    tree.put(key, value, revision, create, version, lease, before, slot)
    return PutResult(revision, prev if with_prev else None)


def _delete(tree: Tree, delete: Delete, revision: int, *, alone: bool) -> DeleteResult:
    tree.deletes += 1
    if not delete.range_end:
        slot = tree.index.locate(delete.key)
        entry = tree.index.entry_at(slot)
        if not 0 < entry < DEAD:
            return DeleteResult(tree.revision, 0)
        prev = (tree.key_value(entry),) if delete.prev_kv else ()
        tree.write(DELETE, delete.key, b"", revision, prev=entry, slot=slot)
        return DeleteResult(revision, 1, prev)
    count = tree.count(delete.key, delete.range_end, tree.revision)
    if not count:
        return DeleteResult(tree.revision, 0)
    as_range = alone and count > RANGE_TOMBSTONE_KEYS and tree.revision < revision
    found = list(tree.scan(delete.key, delete.range_end, tree.revision)) if delete.prev_kv or not as_range else []
    kept: tuple[KeyValue, ...] = tuple(map(tree.key_value, found)) if delete.prev_kv else ()
    if as_range:
        tree.write(DELETE_RANGE, delete.key, delete.range_end, revision)
    else:
        for at in found:
            tree.write(DELETE, tree.log.key(at), b"", revision, prev=at)
    return DeleteResult(revision, count, kept)


def is_change(operation: Operation) -> bool:
    """Whether it may write."""
    match operation:
        case Range():
            return False
        case Txn():
            return any(map(is_change, (*operation.success, *operation.failure)))
        case _:
            return True
