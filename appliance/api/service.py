"""The two services of the API: one table of routes behind two doors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial

import trio

from appliance.api.access import ControlDoor, StatusDoor
from appliance.api.limits import Limits
from appliance.api.router import Caller, Reply, Request, Route, Router, json_answer
from appliance.api.server import HttpServer
from appliance.api.status_routes import status_routes
from appliance.api.subjects import StatusSettings, Subjects
from appliance.errors import InputError
from appliance.host import files, sockets

TOKEN_LENGTH_MIN = 16


def other_routes(subjects: Subjects, first: Iterable[Route]) -> tuple[Route, ...]:
    """Every route but the ``first``, with the description of all. Their rooms are loaded now."""
    from appliance.api.event_routes import event_routes
    from appliance.api.log_routes import log_routes
    from appliance.api.openapi import document
    from appliance.api.page import page_routes
    from appliance.api.store_routes import store_routes
    from appliance.api.unit_routes import unit_routes
    from appliance.api.unit_work_routes import unit_work_routes
    from appliance.api.update_routes import update_routes

    routes: list[Route] = []

    async def openapi(request: Request) -> Reply:
        return json_answer(document([*first, *routes], subjects.node().version))

    routes += page_routes(subjects)
    routes += unit_routes(subjects)
    routes += log_routes(subjects)
    routes += unit_work_routes(subjects)
    routes += store_routes(subjects)
    routes += update_routes(subjects)
    routes += event_routes(subjects)
    routes.append(
        Route(
            method="GET",
            pattern="/v1/openapi.json",
            handler=openapi,
            summary="This description",
            answer="An OpenAPI 3.1 document",
            schema={"type": "object"},
        )
    )
    return tuple(routes)


class Api:
    """Two service mains over one table of routes."""

    def __init__(self, subjects: Subjects, *, limits: Limits | None = None) -> None:
        self.requests: Counter[tuple[str, str, str, int]] = Counter()
        self.status_address = ""  # where the status endpoint listens right now
        self._subjects = subjects
        self._limits = limits
        first = status_routes(subjects, self.requests)  # what tells that a start went well needs no other
        self._router = Router(first, lambda: other_routes(subjects, first))

    async def control(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[None], listeners: Iterable[sockets.Listener] = ()
    ) -> None:
        """Serve the control socket until ``stopping``: the listener that is open already, if one is."""
        listener = next(iter(listeners), None) or sockets.listen_control(self._subjects.control_socket)
        door = ControlDoor(sockets.own_uid(), sockets.group_id(sockets.GROUP))
        server = HttpServer(
            self._router,
            door,
            lambda stream: door.caller(sockets.peer_of(stream)),
            limits=self._limits,
            counted=partial(self._count, door.name),
        )
        await server.serve(listener, stopping=stopping, task_status=task_status)

    async def status(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Serve the status endpoint until ``stopping``; with listen = "off" do nothing until then."""
        settings = self._subjects.status_settings()
        if settings.listen == "off":
            task_status.started()
            await stopping.wait()
            return
        address = sockets.parse_address(settings.listen)
        token = read_token(settings, address)
        listener = sockets.listen_tcp(address)
        caller = Caller("status")
        door = StatusDoor(frozenset(host.lower() for host in settings.hosts), token)
        server = HttpServer(
            self._router,
            door,
            lambda stream: caller,
            limits=self._limits,
            counted=partial(self._count, door.name),
        )
        self.status_address = listener.name
        try:
            await server.serve(listener, stopping=stopping, task_status=task_status)
        finally:
            self.status_address = ""

    def _count(self, door: str, method: str, pattern: str, status: int) -> None:
        self.requests[door, method, pattern, status] += 1


def read_token(settings: StatusSettings, address: sockets.Address) -> str:
    """The token callers must show; empty: none. Raises InputError when one is needed and missing, or is too short."""
    if not settings.token_file:
        if address.is_loopback:
            return ""
        raise InputError(
            f"cannot listen on {address}: that is beyond loopback, and [status] token_file is not set",
            where="status.token_file",
        )
    token = files.read_text(settings.token_file, size_max=4096).strip()
    if len(token) < TOKEN_LENGTH_MIN or not token.isascii():
        raise InputError(
            f"cannot use {settings.token_file}: the token must be at least {TOKEN_LENGTH_MIN} ASCII characters",
            where=settings.token_file,
        )
    return token
