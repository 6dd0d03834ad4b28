"""The store's words in the JSON of etcd's gateway (grpc-gateway: bytes as base64, 64-bit numbers as text). Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, assert_never

from appliance.errors import ApplianceError, ConflictError, InputError, UnavailableError, UntrustedError
from appliance.store import (
    CompactedError,
    Compare,
    Delete,
    DeleteResult,
    DuplicateKeyError,
    EmptyKeyError,
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
    TooLargeError,
    TooManyOperationsError,
    Txn,
    TxnResult,
)  # fmt: skip

Json = Mapping[str, Any]
UNAUTHENTICATED = 16
_TARGETS = ("version", "create_revision", "mod_revision", "value", "lease")
_FAULTS: tuple[tuple[str, type[ApplianceError]], ...] = (
    ("key is not provided", EmptyKeyError),
    ("key not found", KeyNotFoundError),
    ("future revision", FutureRevisionError),
    ("duplicate key", DuplicateKeyError),
    ("too many operations", TooManyOperationsError),
    ("request is too large", TooLargeError),
)
_KINDS: Mapping[int, type[ApplianceError]] = {
    3: InputError, 5: InputError, 7: UntrustedError, 9: ConflictError, 11: InputError, UNAUTHENTICATED: UntrustedError,
}  # fmt: skip


def text(data: bytes) -> str:
    """Bytes in JSON."""
    return base64.b64encode(data).decode()


def data(message: Json, name: str) -> bytes:
    """Of a field of bytes; empty when it is left out."""
    return base64.b64decode(message.get(name, ""))


def number(message: Json, name: str) -> int:
    """0 when it is not said."""
    return int(message.get(name, 0))


def _without_defaults(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def range_request(it: Range) -> Json:
    """Body of kv/range."""
    return _without_defaults(
        key=text(it.key), range_end=text(it.range_end or b""), revision=str(it.revision), limit=str(it.limit),
        keys_only=it.keys_only, count_only=it.count_only, sort_target=it.sort_target.name,
        sort_order=it.sort_order.name, min_mod_revision=str(it.min_mod_revision),
        max_mod_revision=str(it.max_mod_revision), min_create_revision=str(it.min_create_revision),
        max_create_revision=str(it.max_create_revision),
    )  # fmt: skip


def put_request(it: Put) -> Json:
    """Body of kv/put."""
    return _without_defaults(
        key=text(it.key), value=text(it.value), lease=str(it.lease), prev_kv=it.prev_kv,
        ignore_value=it.ignore_value, ignore_lease=it.ignore_lease,
    )  # fmt: skip


def delete_request(it: Delete) -> Json:
    """Body of kv/deleterange."""
    return _without_defaults(key=text(it.key), range_end=text(it.range_end or b""), prev_kv=it.prev_kv)


def txn_request(it: Txn) -> Json:
    """Body of kv/txn."""
    return {
        "compare": [_compare(compare) for compare in it.compares],
        "success": [_operation(operation) for operation in it.success],
        "failure": [_operation(operation) for operation in it.failure],
    }


def _compare(it: Compare) -> Json:
    operand = text(it.operand) if isinstance(it.operand, bytes) else str(it.operand)
    message = {"key": text(it.key), "target": it.target.name, "result": it.result.name, _TARGETS[it.target]: operand}
    return {**message, "range_end": text(it.range_end)} if it.range_end else message


def _operation(it: Operation) -> Json:
    match it:
        case Range():
            return {"request_range": range_request(it)}
        case Put():
            return {"request_put": put_request(it)}
        case Delete():
            return {"request_delete_range": delete_request(it)}
        case Txn():
            return {"request_txn": txn_request(it)}
        case _:
            assert_never(it)


def revision_of(message: Json) -> int:
    """Of an answer's header."""
    return number(message.get("header", {}), "revision")


def key_value(message: Json) -> KeyValue:
    """One key."""
    return KeyValue(
        data(message, "key"), data(message, "value"), number(message, "create_revision"),
        number(message, "mod_revision"), number(message, "version"), number(message, "lease"),
    )  # fmt: skip


def range_result(message: Json) -> RangeResult:
    """Answer of kv/range."""
    kvs = tuple(key_value(kv) for kv in message.get("kvs", ()))
    return RangeResult(kvs, bool(message.get("more")), number(message, "count"), revision_of(message))


def put_result(message: Json) -> PutResult:
    """Answer of kv/put."""
    prev = message.get("prev_kv")
    return PutResult(revision_of(message), key_value(prev) if prev else None)


def delete_result(message: Json) -> DeleteResult:
    """Answer of kv/deleterange."""
    prev = tuple(key_value(kv) for kv in message.get("prev_kvs", ()))
    return DeleteResult(revision_of(message), number(message, "deleted"), prev)


def txn_result(message: Json) -> TxnResult:
    """Answer of kv/txn."""
    responses = tuple(_response(each) for each in message.get("responses", ()))
    return TxnResult(revision_of(message), bool(message.get("succeeded")), responses)


def _response(message: Json) -> RangeResult | PutResult | DeleteResult | TxnResult:
    match dict(message):
        case {"response_range": answer}:
            return range_result(answer)
        case {"response_put": answer}:
            return put_result(answer)
        case {"response_delete_range": answer}:
            return delete_result(answer)
        case {"response_txn": answer}:
            return txn_result(answer)
        case _:
            raise UnavailableError(f"cannot read the etcd's answer: {message!r} is no response")


def event(message: Json) -> Event:
    """One of a watch."""
    kind = EventKind.DELETE if message.get("type") == "DELETE" else EventKind.PUT
    prev = message.get("prev_kv")
    return Event(kind, key_value(message["kv"]), key_value(prev) if prev else None)


def fault(what: str, code: int, message: str) -> ApplianceError:
    """The error that an answer stands for. ``what`` could not be done."""
    words = f"cannot {what}: {message}"
    if "has been compacted" in message:
        return CompactedError(words, 0)
    for part, kind in _FAULTS:
        if part in message:
            return kind(words)
    return _KINDS.get(code, UnavailableError)(words)
