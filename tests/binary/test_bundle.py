"""What Python makes of what the launcher said, and how it goes back to it. Each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.binary.conftest import HOUSE

FROZEN = """
import dataclasses, json, os, signal, sys
sys.frozen, sys._MEIPASS = True, sys.argv[1] + "/_internal"
from appliance.errors import CorruptError
from appliance.host import bundle
"""


def python(code: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (directory / "_internal").mkdir(exist_ok=True)
    (directory / "VERSION").write_text("7.8.9\n")
    return subprocess.run(
        [sys.executable, "-c", FROZEN + code, directory], capture_output=True, text=True, cwd=HOUSE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HOUSE), **environment}, pass_fds=(),
    )  # fmt: skip


def said(directory: Path, **more: str) -> dict[str, str]:
    return {
        "APPLIANCE_SLOT": "b", "APPLIANCE_TRIAL": "1", "APPLIANCE_ORIGIN": f"{directory}/origin",
        "APPLIANCE_SELF": f"{directory}/slots/b/appliance", "APPLIANCE_PAYLOAD": "f" * 64, "APPLIANCE_NOTE": "so it is",
        "APPLIANCE_BUNDLE": str(directory), "APPLIANCE_LOCK_FD": "0", "APPLIANCE_LAUNCHER": "debug",
        "_PYI_ARCHIVE_FILE": "x", "_PYI_PARENT_PROCESS_LEVEL": "-1", "APPLIANCE_ROOT": "/r", "APPLIANCE_CACHE": "/c",
        **more,
    }  # fmt: skip


def test_take_reads_and_removes_it(tmp_path: Path) -> None:
    code = """
it = bundle.take(os.environ)
assert bundle.take() is it
left = sorted(name for name in os.environ if name.startswith(("APPLIANCE", "_PYI")))
json.dump([dataclasses.asdict(it), left, os.get_inheritable(0) or os.get_inheritable(1)], sys.stderr)
bundle.end_turn(it)
assert os.path.exists("/proc/self/fd/0") and not os.path.exists("/proc/self/fd/1")
"""
    done = python(code, tmp_path, **said(tmp_path, APPLIANCE_START_FD="1"))
    taken, left, inheritable = json.loads(done.stderr)
    assert taken == {
        "origin": f"{tmp_path}/origin", "file": f"{tmp_path}/slots/b/appliance", "payload_id": "f" * 64, "slot": "b",
        "trial": True, "guard_pid": None, "guard_fd": -1, "directory": str(tmp_path),
        "spawn_program": f"{tmp_path}/spawn", "note": "so it is", "version": "7.8.9", "frozen": True,
        "start_fd": 1,
    }  # fmt: skip
    assert left == ["APPLIANCE_CACHE", "APPLIANCE_ROOT"]
    assert not inheritable


def test_without_a_launcher_it_says_so(tmp_path: Path) -> None:
    done = python("try:\n    bundle.take()\nexcept CorruptError as exc:\n    print(exc)", tmp_path)
    assert done.stdout == "cannot start: this program was not started by its launcher\n"


def test_a_command_of_ours_is_the_same_version(tmp_path: Path) -> None:
    code = """
argv, environment = bundle.command_of_ours(bundle.take(), "update-worker", "x")
os.environ.clear(); os.environ.update(environment)
bundle._taken = None
json.dump([argv, dataclasses.asdict(bundle.take())], sys.stderr)
"""
    argv, taken = json.loads(python(code, tmp_path, **said(tmp_path)).stderr)
    assert argv == [f"{tmp_path}/appliance", "update-worker", "x"]
    assert (taken["slot"], taken["trial"], taken["payload_id"]) == ("b", False, "f" * 64)


ORIGIN = """#!/bin/bash
echo "$0 $*; pid $$; $(env | grep -c '^APPLIANCE_SLOT\\|^_PYI')"
grep -E 'Sig(Ign|Blk)' /proc/self/status
"""


@pytest.mark.parametrize("gone", [False, True])
def test_exec_launcher_becomes_origin_or_else_the_slots_file(tmp_path: Path, gone: bool) -> None:
    paths = [tmp_path / "origin", tmp_path / "slots/b/appliance"]
    paths[1].parent.mkdir(parents=True)
    for path in paths[gone:]:
        path.write_text(ORIGIN)
        path.chmod(0o755)
    code = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
print("pid", os.getpid())
bundle.exec_launcher(bundle.take(), ["run", "--flag"])
"""
    lines = python(code, tmp_path, **said(tmp_path)).stdout.splitlines()
    assert lines[1] == f"{paths[gone]} run --flag; {lines[0]}; 0"
    wanted = ["0" * 16, f"{1 << signal.SIGTERM - 1:016x}"]  # nothing ignored; blocked is what was held back for it
    assert sorted(line.split()[1] for line in lines[2:]) == wanted


def test_exec_launcher_with_nothing_left_to_start(tmp_path: Path) -> None:
    code = "try:\n    bundle.exec_launcher(bundle.take(), [])\nexcept CorruptError as exc:\n    print(exc)"
    done = python(code, tmp_path, **said(tmp_path))
    cause = "No such file or directory"
    wanted = f"cannot start the launcher: {tmp_path}/origin: {cause}; {tmp_path}/slots/b/appliance: {cause}\n"
    assert done.stdout == wanted


def test_the_guard_is_dismissed(tmp_path: Path) -> None:
    code = """
guard = os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
os.environ["APPLIANCE_GUARD"] = str(guard)
it = bundle.take()
assert it.guard_pid == guard
bundle.dismiss_guard(it)
print(os.waitstatus_to_exitcode(os.waitpid(guard, 0)[1]))
bundle.dismiss_guard(it)  # once more is fine
"""
    done = python(code, tmp_path, **said(tmp_path))
    assert (done.stdout, done.stderr) == (f"{-signal.SIGTERM}\n", "")


def test_from_source() -> None:
    code = "from appliance.host import bundle; it = bundle.take(); print(it.version, it.slot, it.spawn_program)"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=True)
    version, slot, spawn = done.stdout.split()
    assert (slot, spawn) == ("none", str(HOUSE / ".build/launcher/spawn"))
    assert version in (HOUSE / "pyproject.toml").read_text()
    assert Path(spawn).exists()
