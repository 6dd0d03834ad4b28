"""kill -9 of the appliance with 200 units up, and again: until the control API shows all of them as they were."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.row import Row

UNITS = 200
ROUNDS = 5
PATIENCE_SECONDS = 60
LOOK_SECONDS = 0.01


class Control(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def units_of(root: str) -> dict[str, tuple[str, int, int]]:
    """State, pid, restarts of each; empty as long as nobody answers."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
        control = Control(f"{root}/run/appliance/control.sock")
        control.request("GET", "/v1/units")
        answer: dict[str, Any] = json.loads(control.getresponse().read())
        control.close()
        return {one["name"]: (one["state"], one["pid"], one["restarts"]) for one in answer["units"]}
    return {}


def start(binary: str, root: str) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    words = [binary, "--root", root, "run"]
    return subprocess.Popen(words, stdin=null, stdout=null, stderr=null, start_new_session=True)


def wait_ready(root: str) -> dict[str, tuple[str, int, int]]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = units_of(root)
        if len(found) == UNITS and all(state == "ready" for state, _, _ in found.values()):
            return found
        assert time.monotonic() < deadline, f"only {len(found)} units after {PATIENCE_SECONDS} s"
        time.sleep(LOOK_SECONDS)


def run(binary: str) -> list[Row]:
    root = tempfile.mkdtemp(prefix="appliance-bench-")
    units = Path(root, "etc/appliance/units")
    units.mkdir(parents=True)
    (units.parent / "appliance.toml").write_text('[status]\nlisten = "off"\n')
    for number in range(UNITS):
        text = '[service]\ncommand = ["sleep", "infinity"]\n[restart]\npolicy = "always"\n'
        (units / f"u{number}.toml").write_text(text)
    times, restarted = [], 0
    daemon = start(binary, root)
    try:
        before = wait_ready(root)
        for _ in range(ROUNDS):
            daemon.send_signal(signal.SIGKILL)
            daemon.wait(PATIENCE_SECONDS)
            begun = time.perf_counter()
            daemon = start(binary, root)
            after = wait_ready(root)
            times.append((time.perf_counter() - begun) * 1e3)
            restarted += sum(1 for name in before if before[name] != after[name])
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(PATIENCE_SECONDS)
        shutil.rmtree(root, ignore_errors=True)
    words = f"kill -9 with {UNITS} units, until all are adopted"
    return [
        Row(name=f"{words}, median of {ROUNDS}", unit="ms", ours=statistics.median(times), aim="< 1 s"),
        Row(name=f"{words}, the slowest", unit="ms", ours=max(times), aim="< 1 s"),
        Row(name=f"of these, restarted ({ROUNDS} kills)", unit="units", ours=restarted, aim="0"),
    ]
