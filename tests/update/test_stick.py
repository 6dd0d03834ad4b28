"""``update apply --from``: the same way as ever, with a stick for the repository; it is gone on with after a cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from appliance.update import UpdateSettings
from tests.update.machine import Machine


async def test_a_stick_is_taken_for_the_repository_and_only_that_time(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.settings = UpdateSettings(channel="alpha", strategy="manual", health=machine.settings.health)
    asked: list[str] = []
    honest = machine.ask_worker

    async def ask_worker(settings: UpdateSettings, verb: str, path: str) -> dict[str, Any]:
        asked.append(settings.repository)
        assert settings.mirror == ()
        return await honest(settings, verb, path)

    async def ask(*_: object) -> None:
        assert machine.update is not None
        await machine.update.wait_resting()
        await machine.update.apply(source="/media/stick")
        await trio.sleep_forever()

    machine.ask_worker = ask_worker  # type: ignore[method-assign]
    machine._ask = ask  # type: ignore[method-assign]
    with trio.fail_after(60):
        assert await machine.boot() == "switched"
    assert asked == ["/media/stick", "/media/stick"]
