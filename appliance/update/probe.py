"""The declared checks of the health gate, done: http, tcp, command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import h11
import trio

from appliance.errors import ApplianceError
from appliance.update.settings import HealthCheck

RunCommand = Callable[[Sequence[str], float], Awaitable[str]]
"""Run it within the seconds; what is wrong with how it ended, or empty."""


async def failed_checks(checks: Sequence[HealthCheck], run_command: RunCommand) -> tuple[str, ...]:
    """What is wrong, a line per failing check; all checks at once."""
    wrong: dict[int, str] = {}

    async def check_one(number: int, check: HealthCheck) -> None:
        if said := await _probe(check, run_command):
            wrong[number] = f"check {check.describe()}: {said}"

    async with trio.open_nursery() as nursery:
        for number, check in enumerate(checks):
            nursery.start_soon(check_one, number, check)
    return tuple(wrong[number] for number in sorted(wrong))


async def _probe(check: HealthCheck, run_command: RunCommand) -> str:
    if check.command is not None:
        try:
            return await run_command(check.command, check.timeout)
        except ApplianceError as exc:
            return exc.message
    try:
        with trio.fail_after(check.timeout):
            if check.http is not None:
                return await _get(check.http)
            host, _, port = (check.tcp or "").rpartition(":")
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
            await stream.aclose()
            return ""
    except trio.TooSlowError:
        return f"no answer in {check.timeout:g} s"
    except (OSError, trio.BrokenResourceError, ValueError, h11.ProtocolError) as exc:
        return str(exc) or type(exc).__name__


async def _get(url: str) -> str:
    """One plain GET; any 2xx or 3xx is well."""
    authority, slash, path = url.removeprefix("http://").partition("/")
    host, colon, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    if not colon:
        host, port = authority, "80"
    connection = h11.Connection(h11.CLIENT)
    stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    async with stream:
        request = h11.Request(
            method="GET", target=slash + path or "/", headers=[("Host", authority), ("Connection", "close")]
        )  # fmt: skip
        await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                return "" if 200 <= event.status_code < 400 else f"it answers {event.status_code}"
            elif isinstance(event, h11.ConnectionClosed):
                return "it closed the connection without an answer"
