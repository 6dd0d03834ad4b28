"""A host in a directory, with files that are the real launcher before a program that reports how it was started."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pack

from tests.launcher.conftest import COPY, checked, lines

PATIENCE_SECONDS = 60
Start = dict[str, str]  # what one start of the program reported: VERSION, PID, ARGUMENTS and its environment


class Host:
    """One root, with its own cache, whose processes are ended by ``close``."""

    def __init__(self, directory: Path, program: Path) -> None:
        self.root = directory / "root"
        self.cache = directory / "cache"
        self.report = directory / "report"
        self.slots = self.root / "var/lib/appliance/slots"
        self.slots.mkdir(parents=True)
        self.cache.mkdir()
        self.report.touch()
        self._tree = directory / "tree"
        self._tree.mkdir()
        (self._tree / "appliance").write_bytes(program.read_bytes())
        (self._tree / "appliance").chmod(0o755)
        self._started: list[subprocess.Popen[str]] = []

    def file(self, version: str, behaviour: str = "", out: Path | None = None) -> Path:
        """A file that is this version."""
        path = out or self.root / f"appliance-{version}"
        pack.pack(self._tree, path, version=version, level=1, added={"BEHAVIOUR": behaviour.encode()})
        return path

    def slot(self, name: str, version: str, behaviour: str = "") -> str:
        """Fills a slot; returns version and digest as the record names them."""
        path = self.file(version, behaviour, self.slots / name / "appliance")
        return f"{version} {hashlib.sha256(path.read_bytes()).hexdigest()}"

    def record(self, a: str, b: str, *, origin: Path | None = None, base: str = "", deadline: int = 600) -> None:
        """Writes both copies."""
        text = lines(17, base or payload_id(origin or self.root / "appliance-1.0"), a, b, deadline)
        (self.slots / "record").write_bytes(checked(text) * 2)

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "APPLIANCE_CACHE": str(self.cache), "REPORT": str(self.report), **more}

    def start(self, *command: str | Path, wrap: Sequence[str | Path] = (), **more: str) -> subprocess.Popen[str]:
        """Starts it with --root."""
        argv = [*wrap, command[0], "--root", self.root, *command[1:]]
        environment, pipe = self.environment(**more), subprocess.PIPE
        process = subprocess.Popen(argv, env=environment, stdout=pipe, stderr=pipe, text=True, process_group=0)
        self._started.append(process)
        return process

    def run(self, *command: str | Path, wrap: Sequence[str | Path] = (), **more: str) -> Start:
        """Starts it, waits until it ends well, and returns its report."""
        before = len(self.starts())
        _, errors = self.start(*command, wrap=wrap, **more).communicate(timeout=PATIENCE_SECONDS)
        starts = self.starts()
        assert len(starts) == before + 1, errors
        return starts[-1]

    def try_once(self, origin: Path) -> Start:
        """Starts a trial that stays, and ends it as if it had been told to stop."""
        before = len(self.starts())
        daemon = self.start(origin, "run")
        start = self.wait_for_starts(before + 1)[-1]
        guard = int(start["APPLIANCE_GUARD"])
        os.kill(guard, signal.SIGTERM)
        until(lambda: not alive(guard))
        daemon.kill()
        daemon.wait(PATIENCE_SECONDS)
        return start

    def starts(self) -> list[Start]:
        """Every report so far."""
        found = self.report.read_text().splitlines()
        return [dict(item.partition("=")[::2] for item in line.split("\x1f")) for line in found]

    def wait_for_starts(self, count: int) -> list[Start]:
        until(lambda: len(self.starts()) >= count)
        return self.starts()

    def close(self) -> None:
        """Ends what was started here, and what that started."""
        for start in self.starts():
            for name in ("PID", "APPLIANCE_GUARD"):
                if is_ours(pid := int(start.get(name, "0")), self.root):
                    os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.kill()
            process.communicate()


def is_ours(pid: int, root: Path) -> bool:
    """Whether the process was started with this --root."""
    try:
        return pid > 1 and str(root).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def payload_id(path: Path) -> str:
    """What the footer says."""
    return str(pack.FOOTER.unpack(path.read_bytes()[-pack.FOOTER.size :])[3].decode())


def tries_left(host: Host) -> int:
    """Of slot b, in both copies."""
    data = (host.slots / "record").read_bytes()
    assert data[:COPY] == data[COPY:]
    line = next(line for line in data.decode().splitlines() if line.startswith("slot b"))
    return int(line.split("tries=")[1].split()[0])


def until(holds: Callable[[], bool]) -> None:
    """Waits for it."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < limit, f"it never came true: {holds}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def names(environment: Mapping[str, str]) -> Iterator[str]:
    """Those the launcher set, out of a report."""
    return (name for name in environment if name.startswith(("APPLIANCE_", "_PYI_", "LD_")))
