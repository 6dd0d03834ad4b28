"""A real Units on real processes, in a directory of its own, inside the test's trio loop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import trio

from appliance.errors import UnavailableError
from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.units import Units, UnitsSettings

PATIENCE_SECONDS = 40
FORKING = """
import os
print("lit", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
SOURCES = Path(__file__).parents[2] / "packaging/launcher"
PYTHON = os.path.realpath(sys.executable)  # not of a clone below /tmp or /var/tmp: a unit may have its own of these


def spawn_program() -> str:
    """The small C program, compiled when one of its sources is newer."""
    built = SOURCES.parents[1] / ".build/launcher/spawn"
    newest = max(one.stat().st_mtime for one in SOURCES.iterdir())
    if not built.exists() or built.stat().st_mtime < newest:
        subprocess.run([SOURCES / "build.sh", "spawn"], check=True)
    return str(built)


class Keeper:
    """A StateKeeper in a dict; ``down`` makes it refuse."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.down = False

    def _look(self) -> None:
        if self.down:
            raise UnavailableError("cannot reach the store: it is down")

    async def get(self, key: str) -> bytes | None:
        self._look()
        return self.kept.get(key)

    async def put(self, key: str, value: bytes) -> None:
        self._look()
        self.kept[key] = value

    async def delete(self, key: str) -> None:
        self._look()
        self.kept.pop(key, None)

    async def list(self, prefix: str) -> Mapping[str, bytes]:
        self._look()
        return {key: value for key, value in self.kept.items() if key.startswith(prefix)}


class Stage:
    """Unit files, and a daemon that comes and goes over them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(str(root))
        self.directory = Path(self.layout.units)
        self.directory.mkdir(parents=True)
        self.keeper = Keeper()
        self.events: list[tuple[str, dict[str, object]]] = []
        self.cgroups: bool = True
        self._turn = trio.Event()

    def publish(self, kind: str, subject: str, **data: object) -> None:
        assert kind == "unit"
        self.events.append((subject, data))
        self._turn.set()
        self._turn = trio.Event()

    def write(self, name: str, text: str) -> None:
        (self.directory / f"{name}.toml").write_text(text)

    def shell(self, name: str, script: str, *, service: str = "", more: str = "") -> None:
        """A unit that runs a shell script."""
        self.write(name, f"[service]\ncommand = ['/bin/sh', '-c', '''{script}''']\n{service}\n{more}\n")

    def python(self, name: str, script: str, *, service: str = "", more: str = "") -> None:
        self.write(name, f"[service]\ncommand = ['{PYTHON}', '-c', '''{script}''']\n{service}\n{more}\n")

    @contextlib.asynccontextmanager
    async def running(self, *, detach: bool = False) -> AsyncIterator[Units]:
        """A daemon's life: processes, then units. ``detach``: leave the units behind at the end."""
        processes = Processes(spawn_program())
        units = Units(
            layout=self.layout,
            settings=UnitsSettings(),
            processes=processes,
            keeper=self.keeper,
            bus=self.publish,
        )
        stopping, last = trio.Event(), trio.Event()
        done = trio.Event()

        async def live(*, task_status: trio.TaskStatus[None]) -> None:
            await units.run(stopping=stopping, task_status=task_status)
            done.set()

        async with trio.open_nursery() as nursery:

            async def reap(*, task_status: trio.TaskStatus[None]) -> None:
                await processes.run(stopping=last, task_status=task_status)

            await nursery.start(reap)
            await nursery.start(live)
            try:
                with trio.fail_after(PATIENCE_SECONDS):
                    yield units
            except trio.TooSlowError:
                for picture in units.pictures():  # else nobody knows what it waited for
                    print(picture)
                raise
            finally:
                if detach:
                    units.detach()
                stopping.set()
                with trio.move_on_after(PATIENCE_SECONDS, shield=True):
                    await done.wait()
                last.set()
                if not done.is_set():
                    nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds; looked at when a unit turns, and now and then (not all is a turn)."""
        while not condition():
            with trio.move_on_after(0.1):
                await self._turn.wait()

    async def state(self, units: Units, name: str, *wanted: str) -> None:
        await self.until(lambda: units.picture(name).state in wanted)

    async def log(self, units: Units, name: str, wanted: str) -> str:
        """Follow the log until a line holds that text; the line."""
        lines = units.logs(name, follow=True)
        async with contextlib.aclosing(lines):  # type: ignore[type-var]
            async for line in lines:
                if wanted in line.text:
                    return line.text
        raise AssertionError(f"no line with {wanted!r}")

    def states(self, name: str) -> list[object]:
        return [data["state"] for subject, data in self.events if subject == name and "state" in data]


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def wait_gone(pid: int) -> None:
    """Until that process is over, whoever's child it is."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
