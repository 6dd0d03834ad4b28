"""The service: one task for each terminal, which draws when something has happened and obeys keys."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import trio

from appliance.console.recovery import Acts, Recovery
from appliance.console.screen import ScreenPicture, changed, rows_of, unit_rows, whole
from appliance.errors import ApplianceError
from appliance.host.terminal import Terminal, quieten_kernel

_TOGETHER_SECONDS = 0.3  # what happens within is drawn at once
_VISIT_SECONDS = 600.0  # a recovery console where nobody types is left
_KERNEL_LEVEL = 3  # critical and worse still come through


class Console:
    """``terminals``: paths; the last is where stderr goes, so lines that are said come there by themselves."""

    def __init__(
        self, terminals: tuple[str, ...], *, picture: Callable[[], ScreenPicture], acts: Acts,
        lines: Callable[[], Iterable[str]], subscribe: Callable[[], Any],
    ) -> None:  # fmt: skip
        self._terminals = terminals
        self.picture, self.acts, self.lines, self._subscribe = picture, acts, lines, subscribe

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """A terminal that cannot be used is left out."""
        quieten_kernel(_KERNEL_LEVEL)
        async with trio.open_nursery() as nursery:
            for path in self._terminals:
                nursery.start_soon(self._serve, path, path == self._terminals[-1])
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    async def _serve(self, path: str, is_told: bool) -> None:
        try:
            terminal = Terminal(path)
        except ApplianceError:
            return
        view = _View(terminal, self, is_told)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(view.follow, self._subscribe())
                await view.obey()
        except* ApplianceError:  # the line is gone; the others stay
            pass
        finally:
            with trio.move_on_after(1) as scope, contextlib.suppress(ApplianceError):
                scope.shield = True
                await view.leave()
            terminal.close()


class _View:
    """One terminal: what it shows now, and what is typed there."""

    def __init__(self, terminal: Terminal, console: Console, is_told: bool) -> None:
        self._terminal, self._console, self._is_told = terminal, console, is_told
        self._mode = self._drawn = "status"
        self._rows: list[str] = []
        self._shown: str | None = None  # the last line written below the rows, where nobody else writes
        self._size = terminal.size()
        self._writing = trio.Lock()

    async def follow(self, events: Any) -> None:
        """Draw at first, and after whatever happens."""
        await self._draw(anew=True)
        async for _ in events:
            await trio.sleep(_TOGETHER_SECONDS)  # of those meanwhile the last is kept, and leads to one more look
            if self._mode != "recovery":
                await self._draw()

    async def obey(self) -> None:
        """Keys."""
        while True:
            await trio.lowlevel.wait_readable(self._terminal.descriptor)
            typed = self._terminal.read().decode("utf-8", "replace")
            if not typed:  # hung up: nothing will be typed here any more
                await trio.sleep_forever()
            for place, key in enumerate(typed):
                if key == "c":
                    await self._visit(typed[place + 1 :])
                    break
                self._mode = {"l": "logs", "u": "units"}.get(key, "status")
                await self._draw(anew=True)

    async def leave(self) -> None:
        """The whole terminal scrolls again, for what is said at the end."""
        await self._write(f"\x1b[r\x1b[{self._size[0]};1H\n".encode())

    async def _visit(self, typed: str) -> None:
        if not self._console.acts.password_hash():
            await self._write(b"no recovery console: [machine] recovery_password_hash is not set\n")
            return
        self._mode = "recovery"
        self._drawn, self._rows = self._mode, ["Appliance: recovery console"]
        recovery = Recovery(self._console.acts)
        await self._write(whole(self._rows, (), self._size) + recovery.greet().encode())
        while not recovery.over:
            if typed:
                await self._write((await recovery.key(typed)).encode())
                typed = ""
                continue
            with trio.move_on_after(_VISIT_SECONDS) as scope:
                await trio.lowlevel.wait_readable(self._terminal.descriptor)
                typed = self._terminal.read().decode("utf-8", "replace")
            if scope.cancelled_caught or not typed:
                break
        self._mode = "status"
        await self._draw(anew=True)

    async def _draw(self, *, anew: bool = False) -> None:
        rows, lines = self._wanted(), list(self._console.lines())
        data = None if anew else changed(self._rows, rows, self._size)
        is_behind = not self._is_told and self._shown != (lines[-1] if lines else None)
        if data is None or is_behind:
            self._size = self._terminal.size()
            keeps = self._is_told and self._mode == self._drawn  # nobody shall read the same lines twice in a record
            data = whole(rows, None if keeps else lines, self._size)
        self._rows, self._shown, self._drawn = rows, lines[-1] if lines else None, self._mode
        await self._write(data)

    def _wanted(self) -> list[str]:
        picture = self._console.picture()
        if self._mode == "logs":
            return ["Appliance: what was said last; s goes back to the status"]
        if self._mode == "units":
            room = self._size[0] - 8
            return ["Appliance: units; s goes back to the status", *unit_rows(picture.status["units"], room)]
        return rows_of(picture)

    async def _write(self, data: bytes) -> None:
        async with self._writing:
            while data:
                data = data[self._terminal.write(data) :]
                if data:
                    await trio.lowlevel.wait_writable(self._terminal.descriptor)
