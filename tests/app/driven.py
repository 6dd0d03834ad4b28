"""``python -m app.driven HOW --root DIR run``: the appliance from source with one part replaced, where nobody can ask.

POST /v1/reload (or SIGHUP) then does HOW. Where it switches, the next life is the plain appliance again.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import Any, NoReturn

import trio

from appliance import app
from appliance.cli import main
from appliance.errors import CorruptError
from appliance.host import bundle
from appliance.supervisor import Restart, Service

NOTHING = app.Reloaded(changed=(), restart_needed=(), units=None, problems=())


async def switch(node: Any) -> app.Reloaded:
    await node.switch()
    return NOTHING


async def raise_a_bug(node: Any) -> app.Reloaded:
    """In the very code that reads settings."""
    raise AssertionError("a bug in the reload")


async def switch_and_term(node: Any) -> app.Reloaded:
    """Somebody stops us while another version is about to take over."""
    await node.switch()
    os.kill(os.getpid(), signal.SIGTERM)
    return NOTHING


async def switch_in_vain(node: Any) -> app.Reloaded:
    """Neither the origin nor the slot's file can be executed any more."""

    def refuse(*_: object) -> NoReturn:
        raise CorruptError("cannot start the launcher: gone")

    bundle.exec_launcher = refuse
    await node.switch()
    return NOTHING


lost = trio.Event()


async def lose_processes(node: Any) -> app.Reloaded:
    """A fault in the reaper, which units need."""
    lost.set()
    return NOTHING


def faulty(services: Any, restart: Restart, node: Any) -> list[Service]:
    """``processes`` dies when told to, once."""

    async def run(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(node.processes.run, stopping=stopping, task_status=task_status))
            if not lost.is_set():
                await lost.wait()
                raise AssertionError("a bug in the reaper")

    return [
        Service(name=it.name, main=run, restart=restart) if it.name == "processes" else it for it in services(node)
    ]


HOW = {
    "switch": switch,
    "switch-and-term": switch_and_term,
    "switch-in-vain": switch_in_vain,
    "lose-processes": lose_processes,
    "give-up": lose_processes,
    "bug": raise_a_bug,
}

if __name__ == "__main__":
    how = sys.argv.pop(1)
    setattr(app.Node, "_reload", HOW[how])  # noqa: B010
    if how in ("lose-processes", "give-up"):
        restart = Restart(first_delay=0.1, attempts_max=1 if how == "give-up" else None)
        declared = app.Node._services
        setattr(app.Node, "_services", lambda node: faulty(declared, restart, node))  # noqa: B010
    sys.exit(main(sys.argv[1:]))
