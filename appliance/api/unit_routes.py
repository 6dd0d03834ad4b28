"""Units over HTTP: thin; every rule is the units room's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from fnmatch import fnmatchcase

from appliance.api.router import Answer, Parameter, Reply, Request, Route, json_answer
from appliance.api.subjects import Subjects
from appliance.api.unit_work_routes import flag_of, known_only
from appliance.api.wire import object_untrusted, plain
from appliance.errors import InputError
from appliance.units import STATES, TYPES, ReloadPlan, UnitPicture

PLAIN = "text/plain; charset=utf-8"
VERBS: dict[str, tuple[str, str]] = {  # verb in the path -> method of Units, summary
    "start": ("start", "Start a unit, and what it requires"),
    "stop": ("stop", "Stop a unit until somebody starts it again"),
    "restart": ("restart", "Stop and start a unit"),
    "reload": ("reload_unit", "Ask a running unit to read its configuration anew"),
    "reset-failed": ("reset_failed", "Forget that a unit failed"),
    "try-restart": ("try_restart", "Restart a unit if it is up"),
    "reload-or-restart": ("reload_or_restart", "Reload a unit if it can, else restart it"),
    "freeze": ("freeze", "Stop all processes of a unit where they are"),
    "thaw": ("thaw", "Let the processes of a frozen unit go on"),
}
NAME = (Parameter("name", "The unit"),)
FILTERS = (
    Parameter("state", f"Only units in one of these states, with commas between: {', '.join(STATES)}"),
    Parameter("type", f"Only units of one of these types, or with such a trigger: {', '.join(TYPES)}"),
    Parameter("pattern", "Only units of such names, with commas between; * and ? stand for anything"),
)


def wanted(request: Request, pictures: Iterable[UnitPicture]) -> list[UnitPicture]:
    """Those that the query asks for. Raises InputError."""
    asked = {key: _words(request, key) for key in ("state", "type", "pattern")}
    for key, known in (("state", STATES), ("type", TYPES)):
        for word in asked[key]:
            if word not in known:
                expected = f"expected one of {', '.join(known)}"
                raise InputError(f'cannot read {key}: found "{word[:80]}", {expected}', where=f"query.{key}")
    names = [one.removesuffix(".service") for one in asked["pattern"]]
    return [
        one
        for one in pictures
        if (not asked["state"] or one.state in asked["state"])
        and (not asked["type"] or not one.kinds.isdisjoint(asked["type"]))
        and (not names or any(fnmatchcase(one.name, name) for name in names))
    ]


def _words(request: Request, key: str) -> list[str]:
    return [word.strip() for word in request.query.get(key, "").split(",") if word.strip()]


def unit_routes(subjects: Subjects) -> tuple[Route, ...]:
    """The resources of this noun."""
    need = subjects.need_units

    async def units(request: Request) -> Reply:
        return json_answer({"units": wanted(request, need().pictures()), "findings": need().problems()})

    async def unit(request: Request) -> Reply:
        name = request.names["name"]
        picture = plain(need().picture(name))
        return json_answer({**picture, "usage": plain(need().usages([name]).get(name))})

    async def usage(request: Request) -> Reply:
        return json_answer({"usage": need().usages()})

    async def file_text(request: Request) -> Reply:
        return Answer(need().file_text(request.names["name"]).encode(), PLAIN)

    async def reload_all(request: Request) -> Reply:
        asked = request.json()
        dry_run = asked.flag("dry_run")
        asked.done()
        return json_answer(await need().reload(dry_run=dry_run))

    def verb(method: str) -> Callable[[Request], Awaitable[Reply]]:
        async def act(request: Request) -> Reply:
            name = request.names["name"]
            if method in ("start", "stop", "restart"):
                asked = object_untrusted(request.body)
                known_only(asked, "wait")
                return json_answer(await getattr(need(), method)(name, wait=flag_of(asked, "wait", True)))
            request.json().done()
            return json_answer(await getattr(need(), method)(name))

        return act

    return (
        Route(
            method="GET",
            pattern="/v1/units",
            handler=units,
            summary="All units",
            answer="Every unit as it is now, and what is wrong with unit files",
            schema={"type": "object", "required": ["units"], "properties": {"units": list[UnitPicture]}},
            parameters=FILTERS,
        ),
        Route(
            method="GET",
            pattern="/v1/usage",
            handler=usage,
            summary="What units use",
            answer="CPU, memory, tasks and I/O of every unit that has processes, by name; null: not known here",
            schema={"type": "object", "required": ["usage"], "properties": {"usage": {"type": "object"}}},
        ),
        Route(
            method="GET",
            pattern="/v1/units/{name}",
            handler=unit,
            summary="One unit",
            answer="The unit as it is now",
            schema=UnitPicture,
            parameters=NAME,
        ),
        Route(
            method="GET",
            pattern="/v1/units/{name}/file",
            handler=file_text,
            summary="A unit's file as it stands (it may hold secrets)",
            answer="TOML text",
            content_type="text/plain",
            control=True,
            parameters=NAME,
        ),
        Route(
            method="POST",
            pattern="/v1/units/reload",
            handler=reload_all,
            summary="Read the unit files anew, and start, stop, restart what changed",
            answer="What was done, or would be",
            schema=ReloadPlan,
            body={"type": "object", "properties": {"dry_run": {"type": "boolean"}}},
            reads=False,
            control=True,
        ),
        *(
            Route(
                method="POST",
                pattern=f"/v1/units/{{name}}/{word}",
                handler=verb(method),
                summary=summary,
                answer="The unit afterwards",
                schema=UnitPicture,
                body=(
                    {"type": "object", "properties": {"wait": {"type": "boolean", "default": True}}}
                    if method in ("start", "stop", "restart")
                    else None
                ),
                parameters=NAME,
                reads=False,
                control=True,
                waits=True,
            )
            for word, (method, summary) in VERBS.items()
        ),
    )
