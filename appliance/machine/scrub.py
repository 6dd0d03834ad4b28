"""Reads the running root through dm-verity once after each start, and daily: what rots is said while it still matters.

Slowly, past the page cache, and it decides nothing: a root that cannot be read to its end is found by the initramfs at
the next start that has to be repeated, and the other slot is taken then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from appliance.errors import ApplianceError
from appliance.host import block_devices

ROOT = "/dev/mapper/root"
_PIECE = 1 << 20
_PAUSE_SECONDS = 0.2  # between two pieces: 5 MB a second at most
_DAY = 86400.0


class Scrub:
    """``bad``: what was found last, empty when all is well."""

    def __init__(self, *, begin: Callable[[], Awaitable[None]], publish: Callable[..., None], root: str = ROOT) -> None:
        self.bad = ""
        self.rounds = 0
        self._begin = begin
        self._publish = publish
        self._root = root

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """The service."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._rounds)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    async def _rounds(self) -> None:
        await self._begin()
        while True:
            await self._read_through()
            await trio.sleep(_DAY)

    async def _read_through(self) -> None:
        bad, first, size = 0, "", 0
        try:
            size = block_devices.device_size(self._root)
        except ApplianceError as exc:
            bad, first = 1, exc.message
        for at in range(0, size, _PIECE):
            try:
                await trio.to_thread.run_sync(block_devices.read_from_disk, self._root, at, min(_PIECE, size - at))
            except ApplianceError as exc:
                bad, first = bad + 1, first or exc.message
            await trio.sleep(_PAUSE_SECONDS)
        self.rounds += 1
        self.bad = f"{bad} of {-(-size // _PIECE)} MiB of the root are damaged: {first}" if bad else ""
        said = {"state": "failed", "reason": self.bad} if bad else {"state": "verified", "reason": f"{size} bytes"}
        self._publish("root", "scrub", **said)
