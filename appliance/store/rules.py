"""etcd's rules that need no store: ranges, sorting, compares, what a transaction may hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from appliance.errors import InputError
from appliance.store.faults import DuplicateKeyError, EmptyKeyError, TooLargeError, TooManyOperationsError
from appliance.store.frames import RECORD_HEADER_SIZE
from appliance.store.requests import (
    LIMITS,
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    Limits,
    Operation,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Txn,
)  # fmt: skip
from appliance.store.results import KeyValue

FROM_KEY = b"\0"  # as a range_end: no upper bound


def in_range(key: bytes, start: bytes, range_end: bytes | None) -> bool:
    """Whether ``key`` is one of those that (start, range_end) names."""
    if not range_end:
        return key == start
    return key >= start and (range_end == FROM_KEY or key < range_end)


def needs_all(request: Range) -> bool:
    """Whether the limit can only be applied after every key was read (sorted by something else, or filtered)."""
    return (
        request.sort_target is not SortTarget.KEY
        or request.sort_order is SortOrder.DESCEND
        or bool(
            request.min_mod_revision or request.max_mod_revision
            or request.min_create_revision or request.max_create_revision
        )
    )  # fmt: skip


def sort_and_filter(request: Range, kvs: Iterable[KeyValue]) -> list[KeyValue]:
    """Keys in key order -> as the request wants them; the limit is not applied."""
    kept = [
        kv for kv in kvs
        if (not request.min_mod_revision or kv.mod_revision >= request.min_mod_revision)
        and (not request.max_mod_revision or kv.mod_revision <= request.max_mod_revision)
        and (not request.min_create_revision or kv.create_revision >= request.min_create_revision)
        and (not request.max_create_revision or kv.create_revision <= request.max_create_revision)
    ]  # fmt: skip
    descending = request.sort_order is SortOrder.DESCEND
    match request.sort_target:
        case SortTarget.KEY:
            if descending:
                kept.reverse()
        case SortTarget.VERSION:
            kept.sort(key=lambda kv: kv.version, reverse=descending)
        case SortTarget.CREATE:
            kept.sort(key=lambda kv: kv.create_revision, reverse=descending)
        case SortTarget.MOD:
            kept.sort(key=lambda kv: kv.mod_revision, reverse=descending)
        case SortTarget.VALUE:
            kept.sort(key=lambda kv: kv.value, reverse=descending)
        case _:
            assert_never(request.sort_target)
    return kept


def holds(compare: Compare, kvs: Sequence[KeyValue]) -> bool:
    """Whether the compare holds for the keys found in its range (an absent one counts as zeros, and has no value)."""
    if not kvs:
        if compare.target is CompareTarget.VALUE:
            return False
        return _stands(0, compare.result, compare.operand)
    return all(_stands(_property(kv, compare.target), compare.result, compare.operand) for kv in kvs)


def _property(kv: KeyValue, target: CompareTarget) -> int | bytes:
    match target:
        case CompareTarget.VERSION:
            return kv.version
        case CompareTarget.CREATE:
            return kv.create_revision
        case CompareTarget.MOD:
            return kv.mod_revision
        case CompareTarget.VALUE:
            return kv.value
        case CompareTarget.LEASE:
            return kv.lease
        case _:
            assert_never(target)


def _stands(found: int | bytes, result: CompareResult, operand: int | bytes) -> bool:
    match result:
        case CompareResult.EQUAL:
            return found == operand
        case CompareResult.NOT_EQUAL:
            return found != operand
        case CompareResult.GREATER:
            return found > operand  # type: ignore[operator]  # check_txn saw that both are of one type
        case CompareResult.LESS:
            return found < operand  # type: ignore[operator]
        case _:
            assert_never(result)


def cost(operation: Operation) -> int:
    """How much room it may take; 0: it writes no value."""
    match operation:
        case Put():
            return RECORD_HEADER_SIZE + len(operation.key) + len(operation.value)
        case Txn():
            return max(sum(map(cost, operation.success)), sum(map(cost, operation.failure)))
        case _:
            return 0


def check_put(put: Put, limits: Limits = LIMITS) -> None:
    """Refuse what etcd refuses before it looks at the store."""
    if not put.key:
        raise EmptyKeyError("cannot put: the key is empty")
    if put.ignore_value and put.value:
        raise InputError(f"cannot put {put.key!r}: a value is given, and ignore_value too")
    if put.ignore_lease and put.lease:
        raise InputError(f"cannot put {put.key!r}: a lease is given, and ignore_lease too")
    if len(put.key) + len(put.value) > limits.request_bytes:
        raise TooLargeError(
            f"cannot put {put.key[:64]!r}: key and value are {len(put.key) + len(put.value)} bytes, "
            f"at most {limits.request_bytes} are allowed"
        )


def check_txn(txn: Txn, limits: Limits = LIMITS) -> None:
    """Refuse a transaction that is too long, names no key, or changes one key twice."""
    for what, listed in (("compares", txn.compares), ("success", txn.success), ("failure", txn.failure)):
        if len(listed) > limits.operations:
            raise TooManyOperationsError(
                f"cannot run transaction: {len(listed)} entries in {what}, at most {limits.operations} are allowed"
            )
    for compare in txn.compares:
        if not compare.key:
            raise EmptyKeyError("cannot run transaction: a compare has an empty key")
        if isinstance(compare.operand, bytes) != (compare.target is CompareTarget.VALUE):
            raise InputError(
                f"cannot run transaction: {compare.target.name} is compared with {type(compare.operand).__name__}"
            )
    for operation in (*txn.success, *txn.failure):
        match operation:
            case Put():
                check_put(operation, limits)
            case Range() | Delete():
                if not operation.key:
                    raise EmptyKeyError(f"cannot {type(operation).__name__.lower()} in transaction: the key is empty")
            case Txn():
                check_txn(operation, limits)
            case _:
                assert_never(operation)
    for operations in (txn.success, txn.failure):
        if len(operations) > 1:
            _changes(operations)


def _changes(operations: Sequence[Operation]) -> tuple[set[bytes], list[Delete]]:
    """Keys put and ranges deleted; etcd's checkIntervals: branches of one nested transaction may share keys."""
    deletes = [operation for operation in operations if isinstance(operation, Delete)]
    puts: set[bytes] = set()

    def add(key: bytes, *, may_share: frozenset[bytes] = frozenset()) -> None:
        if (key in puts and key not in may_share) or any(in_range(key, d.key, d.range_end) for d in deletes):
            raise DuplicateKeyError(f"cannot run transaction: key {key!r} is changed twice")
        puts.add(key)

    for operation in operations:
        if isinstance(operation, Txn):
            puts_then, deletes_then = _changes(operation.success)
            puts_else, deletes_else = _changes(operation.failure)
            for key in sorted(puts_then):
                add(key)
            for key in sorted(puts_else):
                add(key, may_share=frozenset(puts_then))
            deletes += deletes_then + deletes_else
    for operation in operations:
        if isinstance(operation, Put):
            add(operation.key)
    return puts, deletes
