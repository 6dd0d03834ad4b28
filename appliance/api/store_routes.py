"""The store over HTTP, in JSON with base64 as etcd's gateway has it: thin; every rule is the store's.

Values may be secret, so whatever shows one is on the control socket only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from typing import Any

from appliance.api.router import Parameter, Reply, Request, Route, Stream, json_answer
from appliance.api.subjects import StoreSubject, Subjects
from appliance.api.wire import Fields, dumps, plain
from appliance.errors import InputError
from appliance.store import (
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    Put,
    Range,
    SortOrder,
    SortTarget,
    StoreStatus,
)

NDJSON = "application/x-ndjson"
SORT_TARGETS = tuple(target.name.lower() for target in SortTarget)
SORT_ORDERS = tuple(order.name.lower() for order in SortOrder)
COMPARE_TARGETS = ("version", "create", "mod", "value", "lease")
COMPARE_RESULTS = tuple(result.name.lower() for result in CompareResult)
BASE64 = {"type": "string", "contentEncoding": "base64"}
INTEGER = {"type": "integer"}
NATURAL = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}


def _body(*needed: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(needed), "properties": properties, "additionalProperties": False}


KEYS = {"key": {**BASE64, "minLength": 1}, "range_end": BASE64}
RANGE = _body(
    "key",
    **KEYS,
    revision=NATURAL,
    limit=NATURAL,
    keys_only=FLAG,
    count_only=FLAG,
    sort_target={"enum": list(SORT_TARGETS)},
    sort_order={"enum": list(SORT_ORDERS)},
)
PUT = _body("key", key=KEYS["key"], value=BASE64, lease=INTEGER, prev_kv=FLAG)
DELETE = _body("key", **KEYS, prev_kv=FLAG)
COMPARISON = _body(
    "key",
    **KEYS,
    target={"enum": list(COMPARE_TARGETS)},
    result={"enum": list(COMPARE_RESULTS)},
    value=BASE64,
    operand=INTEGER,
)
OPERATION = {"anyOf": [_body("put", put=PUT), _body("delete", delete=DELETE), _body("range", range=RANGE)]}


def store_routes(subjects: Subjects) -> tuple[Route, ...]:
    """The resources of this noun."""
    need = subjects.need_store

    async def status(request: Request) -> Reply:
        return json_answer(await subjects.look_at_store() if subjects.look_at_store else need().status())

    async def range_(request: Request) -> Reply:
        asked = request.json()
        wanted = range_untrusted(asked)
        asked.done()
        return json_answer(await _now_or_later(need().read(wanted)))

    async def put(request: Request) -> Reply:
        asked = request.json()
        it = put_untrusted(asked)
        asked.done()
        subjects.attach((it,))
        return json_answer(await need().put(it.key, it.value, lease=it.lease, prev_kv=it.prev_kv))

    async def delete(request: Request) -> Reply:
        asked = request.json()
        it = delete_untrusted(asked)
        asked.done()
        return json_answer(await need().delete(it.key, it.range_end, prev_kv=it.prev_kv))

    async def txn(request: Request) -> Reply:
        asked = request.json()
        compares = tuple(compare_untrusted(one) for one in asked.objects("compare"))
        success = tuple(operation_untrusted(one) for one in asked.objects("success"))
        failure = tuple(operation_untrusted(one) for one in asked.objects("failure"))
        asked.done()
        subjects.attach((*success, *failure))
        return json_answer(await need().txn(compares, success, failure))

    async def compact(request: Request) -> Reply:
        asked = request.json()
        revision = asked.integer("revision", low=1)
        asked.done()
        await need().compact(revision)
        return json_answer({"revision": revision})

    async def watch(request: Request) -> Reply:
        asked = request.asked()
        key, range_end = asked.bytes_("key"), asked.bytes_or_none("range_end")
        start, prev_kv = asked.integer("start_revision", low=0), asked.flag("prev_kv")
        asked.done()
        return Stream(_watched(need(), key, range_end, start, prev_kv), NDJSON, endless=True)

    async def backup(request: Request) -> Reply:
        return Stream(
            _backed_up(need()),
            "application/octet-stream",
            headers=(("Content-Disposition", 'attachment; filename="appliance-store.backup"'),),
        )

    comparisons = {"type": "array", "items": COMPARISON}
    operations = {"type": "array", "items": OPERATION}
    return (
        Route(
            method="GET",
            pattern="/v1/store/status",
            handler=status,
            summary="How the store is",
            answer="Revision, keys, bytes, segments",
            schema=StoreStatus,
        ),
        _acting("range", range_, "Read keys", RANGE, reads=True),
        _acting("put", put, "Write a key", PUT),
        _acting("delete", delete, "Delete keys", DELETE),
        _acting(
            "txn",
            txn,
            "Compare, then one of two lists of operations, at one revision",
            _body(compare=comparisons, success=operations, failure=operations),
        ),
        _acting(
            "compact",
            compact,
            "Forget what was before a revision",
            _body("revision", revision={**INTEGER, "minimum": 1}),
        ),
        Route(
            method="GET",
            pattern="/v1/store/watch",
            handler=watch,
            summary="Changes of keys, as they become durable",
            answer="One JSON object per batch and line",
            content_type=NDJSON,
            control=True,
            parameters=(
                Parameter("key", "base64", needed=True),
                Parameter("range_end", "base64"),
                Parameter("start_revision", "From this revision on; 0: from now", "integer"),
                Parameter("prev_kv", "Also what was there before", "boolean"),
            ),
        ),
        Route(
            method="GET",
            pattern="/v1/store/backup",
            handler=backup,
            summary="The whole store at one revision",
            answer="A file for store restore",
            content_type="application/octet-stream",
            control=True,
        ),
    )


def _acting(word: str, handler: Any, summary: str, body: dict[str, Any], *, reads: bool = False) -> Route:
    return Route(
        method="POST",
        pattern=f"/v1/store/{word}",
        handler=handler,
        summary=summary,
        answer="The store's answer, with its revision",
        schema={"type": "object", "properties": {"revision": INTEGER}},
        body=body,
        reads=reads,
        control=True,
        statuses={409: "Compacted, or a lost race"},
    )


async def _now_or_later(answer: Any) -> Any:
    """An external store's is awaited."""
    return await answer if isinstance(answer, Awaitable) else answer


def range_untrusted(asked: Fields) -> Range:
    """Raises InputError."""
    return Range(
        asked.bytes_("key"),
        asked.bytes_or_none("range_end"),
        revision=asked.integer("revision", low=0),
        limit=asked.integer("limit", low=0),
        keys_only=asked.flag("keys_only"),
        count_only=asked.flag("count_only"),
        sort_target=SortTarget[asked.choice("sort_target", SORT_TARGETS).upper()],
        sort_order=SortOrder[asked.choice("sort_order", SORT_ORDERS).upper()],
    )


def put_untrusted(asked: Fields) -> Put:
    """Raises InputError."""
    return Put(
        asked.bytes_("key"),
        asked.bytes_("value", default=b""),
        lease=asked.integer("lease"),
        prev_kv=asked.flag("prev_kv"),
    )


def delete_untrusted(asked: Fields) -> Delete:
    """Raises InputError."""
    return Delete(asked.bytes_("key"), asked.bytes_or_none("range_end"), prev_kv=asked.flag("prev_kv"))


def compare_untrusted(asked: Fields) -> Compare:
    """``{"key", "target", "result", "value" or "operand"}``. Raises InputError."""
    target = CompareTarget[asked.choice("target", COMPARE_TARGETS).upper()]
    result = CompareResult[asked.choice("result", COMPARE_RESULTS).upper()]
    is_value = target is CompareTarget.VALUE
    operand: int | bytes = asked.bytes_("value", default=b"") if is_value else asked.integer("operand")
    compare = Compare(asked.bytes_("key"), target, result, operand, asked.bytes_or_none("range_end"))
    asked.done()
    return compare


def operation_untrusted(asked: Fields) -> Range | Put | Delete:
    """``{"put": {...}}``, ``{"delete": {...}}`` or ``{"range": {...}}``. Raises InputError."""
    found: list[Range | Put | Delete] = []
    if (inner := asked.object_or_none("put")) is not None:
        found.append(put_untrusted(inner))
        inner.done()
    if (inner := asked.object_or_none("delete")) is not None:
        found.append(delete_untrusted(inner))
        inner.done()
    if (inner := asked.object_or_none("range")) is not None:
        found.append(range_untrusted(inner))
        inner.done()
    asked.done()
    if len(found) != 1:
        raise InputError("cannot read an operation: it is one of put, delete, range", where=asked.where)
    return found[0]


async def _watched(
    store: StoreSubject, key: bytes, range_end: bytes | None, start: int, prev_kv: bool
) -> AsyncGenerator[bytes, None]:
    async with store.watch(key, range_end, start_revision=start, prev_kv=prev_kv) as batches:
        async for batch in batches:
            events = [
                {"type": event.kind.name.lower(), "kv": plain(event.kv)}
                | ({"prev_kv": plain(event.prev)} if event.prev is not None else {})
                for event in batch.events
            ]
            yield dumps({"revision": batch.revision, "events": events}) + b"\n"


async def _backed_up(store: StoreSubject) -> AsyncGenerator[bytes, None]:
    async for chunk in store.backup():
        yield chunk
