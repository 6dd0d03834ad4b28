"""A real appliance on a host of its own, with a real repository, for updates from one built file to another."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.update import SlotRecord, read_record

PATIENCE = 60.0


class Node:
    """``origin`` is the dropped file; a ticking unit runs all the time, and must not notice anything."""

    def __init__(self, place: Path, program: Path, *, tick: float = 0.1) -> None:
        self.place = place
        self.root = place / "root"
        self.origin = place / "appliance"
        self.drop(program)
        (self.root / "etc/appliance/units").mkdir(parents=True)
        (self.root / "etc/appliance/trust").mkdir()
        script = f"i=0; while :; do i=$((i+1)); echo tick $i; sleep {tick}; done"
        (self.root / "etc/appliance/units/ticker.toml").write_text(
            f'[service]\ncommand = ["/bin/sh", "-c", {json.dumps(script)}]\n'
        )
        self.log = (place / "log").open("ab")
        self.last_words = ""
        self.started: list[subprocess.Popen[bytes]] = []

    def drop(self, program: Path) -> None:
        """A person puts a file there (by rename: the old one may be running)."""
        new = self.place / "new"
        new.write_bytes(program.read_bytes())
        new.chmod(0o755)
        new.rename(self.origin)

    def settings(self, repository: str, *, channel: str = "alpha", deadline: str = "20s", more: str = "") -> None:
        (self.root / "etc/appliance/appliance.toml").write_text(
            f'[status]\nlisten = "off"\n'
            f'[update]\nrepository = "{repository}"\nchannel = "{channel}"\nstrategy = "manual"\n'
            f'[update.health]\nsettle = "500ms"\ndeadline = "{deadline}"\ntries = 2\n{more}'
        )

    def start(self, environ: Mapping[str, str] = {}, *, wrap: Sequence[str] = ()) -> None:
        process = subprocess.Popen(
            [*wrap, self.origin, "--root", self.root, "run"], env={**os.environ, **environ}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        self.started.append(process)

    def pid(self) -> int:
        """Of the daemon now; 0 when none runs."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((self.root / "run/appliance/lock").read_text())
            if pid != 1 and is_alive(pid):  # 1: it runs in a PID namespace of its own
                return pid
        return 0

    def cli(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [self.origin, "--root", self.root, *words], capture_output=True, text=True, timeout=PATIENCE * 2
        )
        assert not check or result.returncode == 0, (words, result.returncode, result.stdout, result.stderr)
        return result

    def ask(self, *words: str) -> Any:
        return json.loads(self.cli(*words, "-o", "json").stdout)

    def picture(self) -> Any:
        """None while nobody answers."""
        result = self.cli("update", "status", "-o", "json", check=False)
        self.last_words = f"exit {result.returncode}: {result.stderr}"
        return json.loads(result.stdout) if result.returncode == 0 else None

    def wait(self, condition: Callable[[Any], Any], what: str) -> Any:
        """Until the picture is so: it changes over several processes, none of which lasts to tell us."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            picture = self.picture()
            if picture is not None and condition(picture):
                return picture
            time.sleep(0.1)
        raise AssertionError(f"waited {PATIENCE:g} s for {what}: {picture}\n{self.last_words}\n{self.said()}")

    def wait_resting(self) -> Any:
        """Until it runs, and no update is under way."""
        return self.wait(lambda it: it["state"] == "idle" and it["slot"] != "none" and it["slots"], "rest")

    def wait_dead(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.pid() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not self.pid(), self.said()

    def wait_said(self, what: str, times: int = 1) -> None:
        """Until the log holds it so often."""
        deadline = time.monotonic() + PATIENCE
        while (self.place / "log").read_text(errors="replace").count(what) < times and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (self.place / "log").read_text(errors="replace").count(what) >= times, self.said()

    def said(self) -> str:
        return (self.place / "log").read_bytes().decode(errors="replace")[-6000:]

    def record(self) -> SlotRecord:
        record, _ = read_record((self.root / "var/lib/appliance/slots/record").read_bytes())
        assert record is not None
        return record

    def outcomes(self) -> list[tuple[str, str]]:
        return [(entry["to_version"], entry["outcome"]) for entry in self.ask("update", "history")]

    def ticker(self) -> int:
        """The unit's pid."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            units = json.loads(self.cli("status", "-o", "json", check=False).stdout or "{}").get("units") or []
            for unit in units:
                if unit["name"] == "ticker" and unit.get("pid"):
                    return int(unit["pid"])
            time.sleep(0.1)
        raise AssertionError(f"no ticker: {self.said()}")

    def ticks(self) -> list[int]:
        """Every number it has logged, in order."""
        journal = self.root / "var/lib/appliance/journal"
        found = []
        for file in sorted(path for path in journal.rglob("*") if path.is_file() and "ticker" in str(path)):
            found += [int(number) for number in re.findall(rb"tick (\d+)", file.read_bytes())]
        return found

    def clean_up(self) -> None:
        """In order if it can, else by force; only what was started here."""
        for attempt in (signal.SIGTERM, signal.SIGKILL):
            if pid := self.pid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, attempt)
                with contextlib.suppress(AssertionError):
                    self.wait_dead()
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a guard that was waiting
            process.wait(PATIENCE)
        self.log.close()


class Shelf:
    """The publisher, by the built file's own commands."""

    def __init__(self, place: Path, program: Path) -> None:
        self.directory = place / "repository"
        self.keys = place / "keys"
        self._program = program
        self.run("init", self.directory, "--keys", self.keys, "--root-keys", "3", "--threshold", "2")

    def run(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [str(self._program), "release", *map(str, words)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert not check or result.returncode == 0, (words, result.stdout, result.stderr)
        return result

    def publish(self, program: Path, *, channel: str = "alpha", keys: Path | None = None, check: bool = True) -> str:
        self.run("add", self.directory, "--channel", channel, program)
        return self.run("publish", self.directory, "--keys", keys or self.keys, check=check).stderr

    @property
    def trust_root(self) -> bytes:
        return (self.directory / "metadata/1.root.json").read_bytes()


def is_alive(pid: int) -> bool:
    """Whether it runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
