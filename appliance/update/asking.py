"""The daemon's end of the worker: start it, wait, read its answer. No network code and no TUF is loaded here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from appliance.errors import UnavailableError
from appliance.host.bundle import Bundle, command_of_ours
from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.host.slots import network_environment
from appliance.update.answer import parse_answer
from appliance.update.settings import UpdateSettings
from appliance.update.transport import format_transport, transport_of

_SECONDS = {"refresh": 300.0, "download": 6 * 3600.0}
AskWorker = Callable[[UpdateSettings, str, str], Awaitable[dict[str, Any]]]
"""(settings, verb, target path) -> the answer; raises what the worker raised."""


def worker_of(layout: Layout, bundle: Bundle, processes: Processes) -> AskWorker:
    """A worker of our own version, as a child."""
    return partial(_ask, layout, bundle, processes)


async def _ask(
    layout: Layout, bundle: Bundle, processes: Processes, settings: UpdateSettings, verb: str, path: str
) -> dict[str, Any]:
    argv, environment = command_of_ours(
        bundle, "--root", layout.root, "update-worker", verb,
        "--channel", settings.channel, "--path", path,
    )  # fmt: skip
    finished = await processes.run_command(
        argv, timeout=_SECONDS[verb], environment={**network_environment(), **environment},
        input=format_transport(transport_of(settings)).encode(),  # not in argv: it may hold a password
    )  # fmt: skip
    if finished.timed_out:
        raise UnavailableError(f"cannot {verb}: the update worker did not end in {_SECONDS[verb]:g} s")
    if not finished.stdout.strip():
        said = finished.stderr.decode(errors="replace").strip()[-400:]
        raise UnavailableError(f"cannot {verb}: the update worker {finished.exit}: {said}")
    return parse_answer(finished.stdout)
