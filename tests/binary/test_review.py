"""What a review with fresh eyes found on the built file: signals before Python is up, odd files, a damaged store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.binary
TIMEOUT = 60.0


def run(binary: Path, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binary, "--root", root, *words], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/appliance/units").mkdir(parents=True)
    (tmp_path / "etc/appliance/appliance.toml").write_text('[status]\nlisten = "off"\n')
    return tmp_path


@pytest.fixture
def start(binary: Path, root: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def daemon() -> subprocess.Popen[bytes]:
        with (root / "log").open("ab") as log:
            started.append(subprocess.Popen([binary, "--root", root, "run"], stdout=log, stderr=log))
        return started[-1]

    yield daemon
    for one in started:
        if one.poll() is None:
            one.terminate()
            try:
                one.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def status(binary: Path, root: Path) -> dict[str, dict[str, object]]:
    done = run(binary, root, "status", "-o", "json")
    return {one["name"]: one for one in json.loads(done.stdout)["services"]} if done.returncode == 0 else {}


def test_settings_that_are_a_pipe_are_refused_not_waited_for(binary: Path, root: Path) -> None:
    file = root / "etc/appliance/appliance.toml"
    file.unlink()
    os.mkfifo(file)
    done = run(binary, root, "run")
    assert done.returncode == 2
    assert f"cannot read {file}: it is a pipe, not a file" in done.stderr
    assert run(binary, root, "config", "check").returncode == 2


def test_a_unit_file_that_is_a_pipe_stops_nobody(
    binary: Path, root: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    (root / "etc/appliance/units/u.toml").write_text('[service]\ncommand = ["sleep", "infinity"]\n')
    os.mkfifo(root / "etc/appliance/units/pipe.toml")
    start()
    assert run(binary, root, "status", "--wait", "60s").returncode == 0
    listed = json.loads(run(binary, root, "unit", "list", "-o", "json").stdout)
    assert [(one["name"], one["state"]) for one in listed["units"]] == [("u", "ready")]
    assert "it is a pipe, not a file" in listed["findings"][0]["message"]


def test_file_names_reach_no_terminal_as_they_are(binary: Path, root: Path) -> None:
    for name in (b"new\nline.toml", b"\x1b[31mred.toml", b"\xff.toml"):
        (root / "etc/appliance/units" / os.fsdecode(name)).write_text("")
    done = run(binary, root, "unit", "verify")
    assert (done.returncode, done.stderr) == (2, "")
    assert len(done.stdout.splitlines()) == 7  # two findings for each, and the sum
    assert r"/new\nline.toml:1:1: " in done.stdout
    assert r"/\x1b[31mred.toml:1:1: " in done.stdout


def test_a_lock_that_is_a_link_is_not_written_through(binary: Path, root: Path) -> None:
    precious = root / "precious"
    precious.write_text("precious")
    (root / "run/appliance").mkdir(parents=True)
    (root / "run/appliance/lock").symlink_to(precious)
    done = run(binary, root, "run")
    assert (done.returncode, precious.read_text()) == (2, "precious")
    assert "cannot lock" in done.stderr


def test_a_damaged_store_is_told_once_and_the_units_run(
    binary: Path, root: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    (root / "etc/appliance/units/u.toml").write_text('[service]\ncommand = ["sleep", "infinity"]\n')
    first = start()
    until(lambda: status(binary, root).get("store", {}).get("state") == "ready")
    for number in range(3):
        assert run(binary, root, "unit", "stop", "u").returncode == 0, number  # writes a key
        assert run(binary, root, "unit", "start", "u").returncode == 0, number
    first.terminate()
    first.wait(TIMEOUT)
    store = root / "var/lib/appliance/store"
    for file in store.glob("checkpoint*"):
        file.unlink()
    segment = min(store.glob("segment-*"))
    data = bytearray(segment.read_bytes())
    data[90] ^= 0xFF
    segment.write_bytes(data)

    start()
    until(lambda: status(binary, root).get("store", {}).get("state") == "failed")
    until(lambda: status(binary, root)["units"]["state"] == "ready")
    found = status(binary, root)
    assert f"cannot read {segment}: byte 64" in str(found["store"]["reason"])
    assert found["store"]["failures"] == 1
    assert json.loads(run(binary, root, "unit", "status", "u", "-o", "json").stdout)["state"] in ("starting", "ready")
    assert run(binary, root, "status").stdout.splitlines()[0].endswith("NOT READY")


def test_ctrl_c_while_a_command_loads_is_no_trace(binary: Path, root: Path) -> None:
    """The first milliseconds are the loader's; from our own first line on there is silence and 130."""
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(1000): pass\n"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", f"import sys\nsys.argv = ['appliance', 'status']\n{HOOK}{code}"],
        capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "")


def test_a_bug_of_ours_is_one_line(binary: Path, root: Path) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "-c", f"import sys\n{HOOK}def f(): 1 / 0\nf()"],
        capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("appliance: this is a bug of ours: ZeroDivisionError: division by zero (")
    assert len(done.stderr.splitlines()) == 1


HOOK = "from appliance.__main__ import tell_bug\nsys.excepthook = tell_bug\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_at_any_moment_of_the_start(
    binary: Path, root: Path, start: Callable[[], subprocess.Popen[bytes]], number: signal.Signals
) -> None:
    for milliseconds in (40, 80, 160, 320):
        one = start()
        time.sleep(milliseconds / 1000)  # an instant, not a synchronisation: every outcome below is right
        one.send_signal(number)
        if number == signal.SIGHUP:
            one.terminate()
        assert one.wait(TIMEOUT) in (0, 130, -number, -signal.SIGTERM)
        assert not (root / "run/appliance/control.sock").exists()
