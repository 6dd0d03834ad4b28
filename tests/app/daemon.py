"""A real appliance as a child process of the test: told things, watched by its own words, its API and its files."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.cli import client
from appliance.host.layout import Layout

HOUSE = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds; only a broken or very loaded machine waits so long
SETTINGS = '[status]\nlisten = "127.0.0.1:0"\n'


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true; for facts that nobody signals (the process table, a file of a unit)."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.02)
    return answer


class Daemon:
    """One ``appliance run``."""

    def __init__(
        self,
        command: Sequence[str],
        root: Path,
        *,
        environ: Mapping[str, str] = {},
        prefix: Sequence[str] = (),
        listening: bool = True,
    ) -> None:
        self.layout = Layout(str(root))
        self.lines: list[str] = []
        self._told = threading.Condition()
        self._over = False
        self.process = subprocess.Popen(
            [*prefix, *command, "--root", str(root), "run"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **environ},
            start_new_session=True,
            cwd=HOUSE,
        )
        self._reader = threading.Thread(target=self._read)
        if listening:
            self.listen()

    def listen(self) -> None:
        """Begin to read what it says."""
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            for line in self.process.stderr:
                with self._told:
                    self.lines.append(line.decode().rstrip())
                    self._told.notify_all()
        with self._told:
            self._over = True
            self._told.notify_all()

    def expect(self, pattern: str, *, after: int = 0) -> str:
        """The first line (from number ``after`` on) that matches."""

        def found() -> str | None:
            return next((line for line in self.lines[after:] if re.search(pattern, line)), None)

        with self._told:
            self._told.wait_for(lambda: found() or self._over, PATIENCE)
            line = found()
        assert line is not None, f"no line matches {pattern!r}:\n" + "\n".join(self.lines)
        return line

    def expect_ready(self) -> Daemon:
        """Until it says so."""
        self.expect(r" ready; status page")
        return self

    @property
    def url(self) -> str:
        """Of the status page."""
        return self.expect(r"status page: http").rpartition(" ")[2]

    def get(self, path: str) -> tuple[int, bytes]:
        """From the status endpoint."""
        try:
            with urllib.request.urlopen(self.url.rstrip("/") + path, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """On the control socket."""
        return client.call(self.layout, method, path, body, timeout=PATIENCE)

    def status(self) -> Any:
        """The whole picture."""
        return self.call("GET", "/v1/status")

    def unit(self, name: str) -> Any:
        """One unit's picture."""
        return next((unit for unit in self.status()["units"] if unit["name"] == name), None)

    def expect_unit(self, name: str, state: str) -> Any:
        """Until it is in that state."""
        return wait_until(lambda: (it := self.unit(name)) and it["state"] == state and it, f"{name} to be {state}")

    def expect_service(self, name: str, state: str) -> Any:
        """Until the service is in that state."""

        def found() -> Any:
            return next(it for it in self.status()["services"] if it["name"] == name and it["state"] == state)

        def asked() -> Any:
            with contextlib.suppress(StopIteration):
                return found()

        return wait_until(asked, f"service {name} to be {state}")

    def send(self, number: int) -> None:
        """A signal to the daemon itself, which the command may have been exec'ed into."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def stop(self) -> int:
        """In order."""
        self.send(signal.SIGTERM)
        return self.wait()

    def clean_up(self) -> None:
        """Whatever the test left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def is_alive(pid: int) -> bool:
    """Whether it runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Those that the kernel calls its children, zombies too."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
