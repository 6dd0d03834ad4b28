"""The daemon's end of the worker: start it, wait, read its answer. No TUF is loaded here, and nothing is parsed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from appliance.errors import UnavailableError
from appliance.host import files
from appliance.host.bundle import Bundle, command_of_ours
from appliance.host.failpoint import passed_on
from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.host.slots import network_environment
from appliance.update.answer import parse_answer
from appliance.update.glance import Glance
from appliance.update.product import OURS, Product
from appliance.update.settings import UpdateSettings
from appliance.update.transport import format_transport, transport_of

_SECONDS = {"refresh": 300.0, "download": 6 * 3600.0}
AskWorker = Callable[[UpdateSettings, str, str], Awaitable[dict[str, Any]]]
"""(settings, verb, target path) -> the answer; raises what the worker raised.

``refresh`` with "quick" for a path: an answer from before will do, if the repository has not changed."""


def worker_of(
    layout: Layout, bundle: Bundle, processes: Processes, product: Product = OURS, trust_root: str = ""
) -> AskWorker:
    """A worker of our own version, as a child."""
    running = "0" if product.is_bundle else bundle.version  # a bundle's changes while we live
    glance = Glance(trust_root or layout.trust_root, running)
    return partial(_ask_quickly, glance, layout, bundle, processes, product, trust_root)


async def _ask_quickly(
    glance: Glance, layout: Layout, bundle: Bundle, processes: Processes, product: Product, trust_root: str,
    settings: UpdateSettings, verb: str, path: str,
) -> dict[str, Any]:  # fmt: skip
    if verb == "refresh" and path == "quick":
        answer = await trio.to_thread.run_sync(glance.unchanged, settings, abandon_on_cancel=True)
        if answer is not None:
            return answer
    path = "" if verb == "refresh" else path
    words = ["--channel", settings.channel, "--path", path, "--product", product.name, "--kind", product.kind]
    words += ["--trust-root", trust_root] if trust_root else []
    answer = await _ask(layout, bundle, processes, settings, verb, words)
    if verb == "refresh":
        glance.remember(settings, answer)
    return answer


async def _ask(
    layout: Layout, bundle: Bundle, processes: Processes, settings: UpdateSettings, verb: str, words: list[str]
) -> dict[str, Any]:
    argv, environment = command_of_ours(
        bundle, "--root", layout.root, "update-worker", verb, *words
    )  # fmt: skip
    from appliance.units import fences_of_child  # it takes tables of system calls along, for the first time only

    files.make_directory(layout.update)
    finished = await processes.run_command(
        argv, options=fences_of_child(layout.update), timeout=_SECONDS[verb],
        environment={**network_environment(), **environment, **passed_on()},
        input=format_transport(transport_of(settings)).encode(),  # not in argv: it may hold a password
    )  # fmt: skip
    if finished.timed_out:
        raise UnavailableError(f"cannot {verb}: the update worker did not end in {_SECONDS[verb]:g} s")
    if not finished.stdout.strip():
        said = finished.stderr.decode(errors="replace").strip()[-400:]
        raise UnavailableError(f"cannot {verb}: the update worker {finished.exit}: {said}")
    return parse_answer(finished.stdout)
