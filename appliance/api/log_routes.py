"""Logs over HTTP, of one unit, of several, of the whole host: as JSON lines, as text, or as it was written."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from appliance.api.router import Parameter, Reply, Request, Route, Stream
from appliance.api.subjects import Subjects, UnitsSubject
from appliance.api.wire import dumps, plain
from appliance.errors import InputError
from appliance.host import clock
from appliance.schema import parse_moment
from appliance.units import Entry, LogLine, LogQuery, parse_clause, parse_priority

LINES_DEFAULT = 100
LINES_MAX = 1_000_000
NDJSON = "application/x-ndjson"
PLAIN = "text/plain; charset=utf-8"
RAW = "application/octet-stream"
_MARK = dumps({"caught_up": True}) + b"\n"
_PARAMETERS = (
    Parameter("lines", f'At most so many of the last lines (default {LINES_DEFAULT}), or "all"', "integer"),
    Parameter("since", 'Only later ones: seconds since 1970, RFC 3339, "today", or how long ago, as "10m"'),
    Parameter("until", "Only earlier ones, in the same words"),
    Parameter("follow", "1: go on with new lines until one side hangs up", "boolean"),
    Parameter("contains", "Only lines with this text"),
    Parameter("ignore_case", "1: in whatever case", "boolean"),
    Parameter("invert", "1: only lines without it", "boolean"),
    Parameter("where", 'Only lines that are JSON objects with such fields, as "level=error,code>=500"'),
    Parameter("priority", 'Only lines at least as urgent: 0 to 7, or as "warning"; lines without one count as 6'),
    Parameter("stream", '"stdout" or "stderr": only these, of units with standard_error = "journal"'),
    Parameter("invocation", "Only lines of that start: its ID, 0 for the last one, -1 for the one before it"),
    Parameter("mark", '1: with follow, a line {"caught_up": true} before the first new one', "boolean"),
)


def log_routes(subjects: Subjects) -> tuple[Route, ...]:
    """The resources of this noun."""
    need = subjects.need_units

    async def of_unit(request: Request) -> Reply:
        return unit_logs(need(), request, (request.names["name"],))

    async def of_host(request: Request) -> Reply:
        names = tuple(name for name in request.query.get("units", "").split(",") if name)
        return unit_logs(need(), request, names)

    return (
        Route(
            method="GET",
            pattern="/v1/units/{name}/logs",
            handler=of_unit,
            summary="What a unit wrote",
            answer="One JSON object per line; lines of text when text/plain or text/html is accepted, bytes as they "
            "were written when application/octet-stream is",
            schema=LogLine,
            content_type=NDJSON,
            more_types=("text/plain", RAW),
            parameters=(Parameter("name", "The unit"), *_PARAMETERS),
        ),
        Route(
            method="GET",
            pattern="/v1/logs",
            handler=of_host,
            summary="What all units wrote, and (on the control socket) the kernel, by time",
            answer="As the logs of one unit",
            schema=LogLine,
            content_type=NDJSON,
            more_types=("text/plain", RAW),
            parameters=(
                Parameter("units", "Only these, with commas between; * and ? stand for anything"),
                *_PARAMETERS,
            ),
        ),
    )


def unit_logs(units: UnitsSubject, request: Request, names: tuple[str, ...]) -> Stream:
    """The stream for one request. Raises InputError, NotFoundError before the first byte."""
    query = query_of(request)
    # Whoever may read the status page need not be one who may read the kernel's log.
    source = units.search_logs(names, query, kernel=request.caller.door == "control")
    if request.accepts(RAW):
        return Stream(_told(source, _raw), RAW, endless=query.follow)
    if request.accepts("text/plain", "text/html"):
        return Stream(_told(source, _text if len(names) == 1 else _named_text), PLAIN, endless=query.follow)
    mark = _MARK if request.asked().flag("mark") else b""
    return Stream(_told(source, _json, mark), NDJSON, endless=query.follow)


def query_of(request: Request) -> LogQuery:
    """Raises InputError."""
    asked = request.asked()
    since, until = moment_of(request, "since"), moment_of(request, "until")
    every = request.query.get("lines") == "all" or (since and "lines" not in request.query)
    lines = None if every else asked.integer("lines", default=LINES_DEFAULT, low=0, high=LINES_MAX)
    where = [one for one in request.query.get("where", "").split(",") if one]
    priority = request.query.get("priority", "")
    return LogQuery(
        lines=lines,
        since=since,
        until=until,
        follow=asked.flag("follow"),
        contains=request.query.get("contains", ""),
        ignore_case=asked.flag("ignore_case"),
        invert=asked.flag("invert"),
        where=tuple(parse_clause(one) for one in where),
        priority=parse_priority(priority) if priority else None,
        stream=stream_of(request),
        invocation=request.query.get("invocation", ""),
    )


def stream_of(request: Request) -> str:
    """Raises InputError."""
    word = request.query.get("stream", "")
    if word not in ("", "stdout", "stderr"):
        raise InputError(f'cannot read stream: found "{word[:80]}", expected stdout or stderr', where="query.stream")
    return word


def moment_of(request: Request, key: str) -> str:
    """As the time of a line is written; empty when it is not asked for. Raises InputError."""
    text = request.query.get(key, "")
    try:
        return clock.timestamp(parse_moment(text, clock.wall_seconds())) if text else ""
    except InputError as exc:
        raise InputError(f"cannot read {key}: {exc.message}", where=f"query.{key}") from None


def _json(entry: Entry) -> bytes:
    return dumps(plain(entry.line())) + b"\n"


def _text(entry: Entry) -> bytes:
    line = entry.line()
    return f"{line.time} {line.text}\n".encode(errors="replace")


def _named_text(entry: Entry) -> bytes:
    line = entry.line()
    return f"{line.time} {line.unit}: {line.text}\n".encode(errors="replace")


def _raw(entry: Entry) -> bytes:
    return entry.written + b"\n"


async def _told(source: AsyncGenerator[list[Entry], None], show: Any, mark: bytes = b"") -> AsyncGenerator[bytes, None]:
    try:
        async for entries in source:
            piece = b"".join(map(show, entries)) if entries else mark
            if piece:
                yield piece
    finally:
        await source.aclose()
