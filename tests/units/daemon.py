# ruff: noqa: E402 (the paths first: it runs as a script)
"""A daemon with nothing but units, for tests that kill it: ``python daemon.py ROOT [VERB NAME]``. Prints each turn."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import trio

from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.units import Units, UnitsSettings
from units.stage import Keeper, spawn_program


async def main(root: str, verb: str = "", name: str = "") -> None:
    processes = Processes(spawn_program())
    units = Units(
        layout=Layout(root),
        settings=UnitsSettings(),
        processes=processes,
        keeper=Keeper(),
        bus=lambda kind, subject, **data: print(subject, data.get("state", ""), flush=True),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **it: processes.run(stopping=trio.Event(), **it))
        await nursery.start(lambda **it: units.run(stopping=trio.Event(), **it))
        if verb:
            await units.start(name)
            await {"stop": units.stop, "restart": units.restart, "reload": units.reload_unit}[verb](name)


trio.run(main, *sys.argv[1:])
