"""More about units over HTTP: transactions, enablement, files, waiting, running a command, pictures of the graph."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from appliance.api.router import Answer, Parameter, Reply, Request, Route, Stream, json_answer
from appliance.api.subjects import Subjects
from appliance.api.wire import dumps, object_untrusted, plain
from appliance.errors import InputError
from appliance.host.process_tree import ProcessPicture
from appliance.schema import parse_duration
from appliance.units import GOALS, Transaction, UnitPicture, Waited

WAIT_SECONDS_MAX = 24 * 3600.0
TRANSACTIONS = ("start", "stop", "restart")
ENABLEMENT = {
    "enable": "Let a unit start by itself from now on",
    "disable": "Let a unit start only when asked for",
    "mask": "Let nothing start a unit",
    "unmask": "Undo mask",
}
NAME = (Parameter("name", "The unit"),)
_NAMES = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}


def unit_work_routes(subjects: Subjects) -> tuple[Route, ...]:
    """The resources of this noun that change files, or several units at once."""
    need = subjects.need_units

    async def transact(request: Request) -> Reply:
        asked = object_untrusted(request.body)
        verb, names = asked.get("verb"), names_of(asked)
        if verb not in TRANSACTIONS:
            raise InputError(f"cannot read verb: expected one of {', '.join(TRANSACTIONS)}", where="body.verb")
        flags = {key: flag_of(asked, key, default) for key, default in (("wait", True), ("dry_run", False))}
        known_only(asked, "verb", "names", "wait", "dry_run")
        return json_answer(await need().transact(verb, names, **flags))

    def enabling(verb: str) -> Callable[[Request], Awaitable[Reply]]:
        async def act(request: Request) -> Reply:
            asked = object_untrusted(request.body)
            now = flag_of(asked, "now", False)
            known_only(asked, "now")
            return json_answer({"units": await need().enable(verb, [request.names["name"]], now=now)})

        return act

    async def wait(request: Request) -> Reply:
        goal = request.query.get("for", "ready")
        if goal not in GOALS:
            raise InputError(f"cannot wait for {goal!r}: expected one of {', '.join(GOALS)}", where="query.for")
        try:
            seconds = min(parse_duration(request.query.get("timeout", "60s")), WAIT_SECONDS_MAX)
        except InputError as exc:
            raise InputError(f"cannot read timeout: {exc.message}", where="query.timeout") from None
        return json_answer(await need().wait(request.names["name"], goal, timeout=seconds))

    async def write_file(request: Request) -> Reply:
        asked = object_untrusted(request.body)
        text, digest = asked.get("text"), asked.get("digest")
        if not isinstance(text, str) or not isinstance(digest, str | None):
            raise InputError("cannot read text: it must be a string, as must digest when given", where="body.text")
        drop_in, dry_run = flag_of(asked, "drop_in", False), flag_of(asked, "dry_run", False)
        known_only(asked, "text", "digest", "drop_in", "dry_run")
        found = await need().write_file(request.names["name"], text, drop_in=drop_in, digest=digest, dry_run=dry_run)
        saved = not dry_run and not any(one.severity == "error" for one in found)
        return json_answer({"saved": saved, "findings": found})

    async def graph(request: Request) -> Reply:
        names = [name for name in request.query.get("names", "").split(",") if name]
        as_picture = request.query.get("format") == "svg" or request.accepts("image/svg+xml")
        text = need().graph_text(names, as_picture=as_picture)
        return Answer(text.encode(), "image/svg+xml" if as_picture else "text/vnd.graphviz; charset=utf-8")

    async def processes(request: Request) -> Reply:
        return json_answer({"processes": need().processes(request.names["name"])})

    async def kill(request: Request) -> Reply:
        asked = object_untrusted(request.body)
        signal, whom = asked.get("signal", "SIGTERM"), asked.get("whom", "all")
        if not isinstance(signal, str) or not isinstance(whom, str):
            raise InputError("cannot read signal: it must be a string, as must whom", where="body.signal")
        known_only(asked, "signal", "whom")
        return json_answer(await need().kill(request.names["name"], signal, whom=whom))

    async def clean(request: Request) -> Reply:
        asked = object_untrusted(request.body)
        what = asked.get("what", [])
        if not isinstance(what, list) or not all(isinstance(one, str) for one in what):
            raise InputError("cannot read what: it must be a list of strings", where="body.what")
        known_only(asked, "what")
        return json_answer({"removed": await need().clean(request.names["name"], what)})

    async def run(request: Request) -> Reply:
        asked = object_untrusted(request.body)
        unit, name = asked.get("unit"), asked.get("name", "")
        if not isinstance(unit, dict) or not isinstance(name, str):
            raise InputError("cannot read unit: it must be an object of a unit file's tables", where="body.unit")
        detach = flag_of(asked, "detach", False)
        known_only(asked, "unit", "name", "detach")
        picture, lines, after = await need().run_transient(unit, name=name)
        if detach:
            return json_answer(picture)
        return Stream(_told(picture, lines, after), "application/x-ndjson", endless=True)

    return (
        Route(
            method="POST",
            pattern="/v1/unit-transactions",
            handler=transact,
            summary="Start, stop or restart units in one transaction, or only compute it (dry_run)",
            answer="What was done, or would be, in order; once all named are up (or down) unless wait is false",
            schema=Transaction,
            body={
                "type": "object",
                "required": ["verb", "names"],
                "properties": {
                    "verb": {"enum": list(TRANSACTIONS)},
                    "names": _NAMES,
                    "wait": {"type": "boolean", "default": True},
                    "dry_run": {"type": "boolean"},
                },
            },
            reads=False,
            control=True,
            waits=True,
        ),
        Route(
            method="POST",
            pattern="/v1/unit-runs",
            handler=run,
            summary="Run a command as a transient unit",
            answer='A JSON object per line: {"unit"}, then {"time", "text"} of its output, at last {"ended"}',
            content_type="application/x-ndjson",
            more_types=("application/json",),
            schema={"type": "object"},
            body={
                "type": "object",
                "required": ["unit"],
                "properties": {
                    "unit": {"type": "object", "description": "tables as in a unit file: service, sandbox, ..."},
                    "name": {"type": "string"},
                    "detach": {"type": "boolean"},
                },
            },
            reads=False,
            control=True,
        ),
        Route(
            method="GET",
            pattern="/v1/unit-graph",
            handler=graph,
            summary="How units are tied to each other",
            answer="DOT for Graphviz; a picture with format=svg",
            content_type="text/vnd.graphviz",
            more_types=("image/svg+xml",),
            parameters=(
                Parameter("names", "Only these, with commas between, and what they are tied to"),
                Parameter("format", "dot (default) or svg"),
            ),
        ),
        Route(
            method="GET",
            pattern="/v1/units/{name}/wait",
            handler=wait,
            summary="Wait until a unit is ready, healthy, over or stopped",
            answer="Whether it is so now; after at most the timeout",
            schema=Waited,
            waits=True,
            parameters=(
                *NAME,
                Parameter("for", "ready (default), healthy, exit or stopped"),
                Parameter("timeout", 'How long at most, as "30s" (60s)'),
            ),
        ),
        Route(
            method="GET",
            pattern="/v1/units/{name}/processes",
            handler=processes,
            summary="The processes of a unit",
            answer="Their command lines may hold secrets",
            schema={"type": "object", "properties": {"processes": list[ProcessPicture]}},
            control=True,
            parameters=NAME,
        ),
        Route(
            method="POST",
            pattern="/v1/units/{name}/file",
            handler=write_file,
            summary="Save a unit's file, when it is valid; a reload applies it",
            answer="Whether it was saved, and what is wrong with it",
            schema={"type": "object"},
            body={
                "type": "object",
                "required": ["text"],
                "properties": {
                    "text": {"type": "string"},
                    "drop_in": {"type": "boolean", "description": "as NAME.toml.d/override.toml"},
                    "digest": {"type": "string", "description": "SHA-256 of the file it was made from"},
                    "dry_run": {"type": "boolean"},
                },
            },
            parameters=NAME,
            reads=False,
            control=True,
        ),
        Route(
            method="POST",
            pattern="/v1/units/{name}/kill",
            handler=kill,
            summary="Send a signal to a unit's processes",
            answer="The unit afterwards",
            schema=UnitPicture,
            body={
                "type": "object",
                "properties": {
                    "signal": {"type": "string", "default": "SIGTERM"},
                    "whom": {"enum": ["all", "main", "control"], "default": "all"},
                },
            },
            parameters=NAME,
            reads=False,
            control=True,
        ),
        Route(
            method="POST",
            pattern="/v1/units/{name}/clean",
            handler=clean,
            summary="Remove the directories of a unit that is down",
            answer="Their paths",
            schema={"type": "object", "properties": {"removed": {"type": "array", "items": {"type": "string"}}}},
            body={
                "type": "object",
                "properties": {
                    "what": {
                        "type": "array",
                        "items": {"enum": ["runtime", "state", "cache", "logs", "configuration", "all"]},
                        "description": "none: runtime and cache",
                    },
                },
            },
            parameters=NAME,
            reads=False,
            control=True,
        ),
        *(
            Route(
                method="POST",
                pattern=f"/v1/units/{{name}}/{verb}",
                handler=enabling(verb),
                summary=summary,
                answer="The unit afterwards",
                schema={"type": "object", "properties": {"units": list[UnitPicture]}},
                body={"type": "object", "properties": {"now": {"type": "boolean"}}},
                parameters=NAME,
                reads=False,
                control=True,
                waits=True,
            )
            for verb, summary in ENABLEMENT.items()
        ),
    )


def names_of(asked: Any) -> list[str]:
    """``names`` of a request: at least one. Raises InputError."""
    names = asked.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(one, str) and one for one in names):
        raise InputError("cannot read names: it must be a list of names", where="body.names")
    return names


def flag_of(asked: Any, key: str, default: bool) -> bool:
    """Raises InputError."""
    value = asked.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"cannot read {key}: it must be true or false", where=f"body.{key}")
    return value


def known_only(asked: Any, *keys: str) -> None:
    """Raises InputError naming a key that nobody knows."""
    for key in asked:
        if key not in keys:
            raise InputError(f"cannot read {key}: unknown; expected {', '.join(keys)}", where=f"body.{key}")


async def _told(picture: Any, lines: Any, after: Any) -> AsyncGenerator[bytes, None]:
    yield dumps({"unit": plain(picture)}) + b"\n"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(lines.aclose)
        async for line in lines:
            yield dumps(plain(line)) + b"\n"
    yield dumps({"ended": plain(after())}) + b"\n"
