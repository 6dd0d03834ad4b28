"""How the node is: the one frozen picture, health, readiness, metrics; and the verbs on the process itself."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from appliance.api.router import Answer, Reply, Request, Route, json_answer
from appliance.api.subjects import NodePicture, SettingsPicture, Subjects
from appliance.api.wire import plain, redacted
from appliance.errors import ApplianceError, UnavailableError
from appliance.supervisor import ServicePicture

Requests = Mapping[tuple[str, str, str, int], int]
READINESS_SCHEMA = {
    "type": "object",
    "required": ["ready", "reasons"],
    "properties": {"ready": {"type": "boolean"}, "reasons": {"type": "array", "items": {"type": "string"}}},
}
STATUS_SCHEMA = {
    "type": "object",
    "required": ["node", "ready", "reasons", "services", "units", "store", "update", "settings", "findings", "absent"],
    "properties": {
        "node": NodePicture,
        "ready": {"type": "boolean"},
        "reasons": {"type": "array", "items": {"type": "string"}},
        "services": list[ServicePicture],
        "units": {"type": "array", "items": {"type": "object"}},
        "store": {"type": "object"},
        "update": {"type": "object"},
        "bundles": {"type": "array", "items": {"type": "object"}},
        "settings": SettingsPicture,
        "findings": {"type": "array", "items": {"type": "object"}},
        "absent": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def status_picture(subjects: Subjects) -> dict[str, Any]:
    """``/v1/status``, plain, of one moment: no other task runs meanwhile. A part that fails says so in itself."""
    ready, reasons = subjects.supervisor.essential_ready()
    units = _part(lambda: list(subjects.need_units().pictures()))
    problems = _part(lambda: list(subjects.need_units().problems()))
    document = {
        "node": plain(subjects.node()),
        "ready": ready,
        "reasons": list(reasons),
        "services": plain(subjects.supervisor.pictures()),
        "units": units if isinstance(units, list) else [],
        "store": _part(lambda: subjects.need_store().status()),
        "update": _part(lambda: subjects.need_update().picture()),
        "bundles": [_part(one.picture) for one in (subjects.bundles.all() if subjects.bundles else ())],
        "settings": plain(subjects.settings()),
        "findings": plain(subjects.findings()) + (problems if isinstance(problems, list) else []),
        "absent": plain(subjects.absent),
    }
    if isinstance(units, dict):
        document["absent"] = {"units": units["problem"], **document["absent"]}
    return document


def _part(ask: Callable[[], Any]) -> Any:
    try:
        return plain(ask())
    except ApplianceError as error:
        return {"problem": error.message, "kind": error.kind}


def status_routes(subjects: Subjects, requests: Requests) -> tuple[Route, ...]:
    """The resources of this noun."""

    async def status(request: Request) -> Reply:
        return json_answer(status_picture(subjects))

    async def services(request: Request) -> Reply:
        return json_answer({"services": subjects.supervisor.pictures()})

    async def settings(request: Request) -> Reply:
        return json_answer({"settings": redacted(subjects.settings_document()), **plain(subjects.settings())})

    async def healthz(request: Request) -> Reply:
        return Answer(b"alive\n", "text/plain; charset=utf-8")

    async def readyz(request: Request) -> Reply:
        ready, reasons = subjects.supervisor.essential_ready()
        return json_answer({"ready": ready, "reasons": reasons}, status=200 if ready else 503)

    async def metrics_page(request: Request) -> Reply:
        from appliance.api import metrics
        from appliance.host.usage import own_usage

        out = metrics.Exposition()
        metrics.write_status(out, status_picture(subjects))
        with contextlib.suppress(ApplianceError):  # no units yet: that the status says
            metrics.write_usage(out, subjects.need_units().usages())
        usage = {**own_usage(), "start_seconds": subjects.node().started}
        metrics.write_process(out, usage)
        metrics.write_requests(out, requests)
        if metrics.wants_open_metrics(request.headers.get("accept", "")):
            return Answer(out.open_metrics(), metrics.OPEN_METRICS_TYPE)
        return Answer(out.text(), metrics.CONTENT_TYPE)

    async def reload(request: Request) -> Reply:
        if subjects.reload is None:
            raise UnavailableError("cannot reload the settings: not possible in this process")
        request.json().done()
        outcome = await subjects.reload()
        return json_answer({"settings": plain(subjects.settings()), "reload": plain(outcome)})

    async def shutdown(request: Request) -> Reply:
        if subjects.shutdown is None:
            raise UnavailableError("cannot shut down: not possible in this process")
        request.json().done()
        subjects.shutdown()
        return json_answer({"stopping": True}, status=202)

    def ending(how: str) -> Callable[[Request], Awaitable[Reply]]:
        async def end_machine(request: Request) -> Reply:
            if subjects.end_machine is None:
                raise UnavailableError(f"cannot {how}: not possible in this process")
            request.json().done()
            subjects.end_machine(how)
            return json_answer({"stopping": True}, status=202)

        return end_machine

    ends = tuple(
        Route(
            method="POST",
            pattern=f"/v1/{how}",
            handler=ending(how),
            summary=f"Stop units and services in order, then {words} the machine; our own OS image only",
            answer="The stop has begun",
            schema={"type": "object"},
            status=202,
            reads=False,
            control=True,
            statuses={409: "Another init runs this host"},
        )
        for how, words in (("reboot", "restart"), ("poweroff", "switch off"))
    )
    return (
        *ends,
        Route(
            method="GET",
            pattern="/healthz",
            handler=healthz,
            summary="Whether the process is alive",
            answer="The word alive",
            content_type="text/plain",
            public=True,
        ),
        Route(
            method="GET",
            pattern="/readyz",
            handler=readyz,
            summary="Whether every essential service is ready",
            answer="Ready",
            schema=READINESS_SCHEMA,
            statuses={503: "Not ready, with the reasons"},
        ),
        Route(
            method="GET",
            pattern="/metrics",
            handler=metrics_page,
            summary="Metrics for Prometheus",
            answer="Prometheus text format; OpenMetrics when that is preferred",
            content_type="text/plain",
            more_types=("application/openmetrics-text",),
        ),
        Route(
            method="GET",
            pattern="/v1/status",
            handler=status,
            summary="The whole node in one picture",
            answer="Node, readiness, services, units, store, update, settings, findings, of one moment",
            schema=STATUS_SCHEMA,
        ),
        Route(
            method="GET",
            pattern="/v1/services",
            handler=services,
            summary="The parts of the process",
            answer="Every service with its state and history",
            schema={
                "type": "object",
                "required": ["services"],
                "properties": {"services": list[ServicePicture]},
            },
        ),
        Route(
            method="GET",
            pattern="/v1/settings",
            handler=settings,
            summary="The settings in force",
            answer="All settings with their defaults; secrets are redacted",
            schema={"type": "object"},
        ),
        Route(
            method="POST",
            pattern="/v1/reload",
            handler=reload,
            summary="Read the settings anew, as SIGHUP does",
            answer="What became of it",
            schema={"type": "object"},
            reads=False,
            control=True,
        ),
        Route(
            method="POST",
            pattern="/v1/shutdown",
            handler=shutdown,
            summary="Stop units and services in order, then end the process",
            answer="The stop has begun",
            schema={"type": "object"},
            status=202,
            reads=False,
            control=True,
        ),
    )
