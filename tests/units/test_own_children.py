"""A child of ours that a stranger's bytes have taken over: what it can still do on this host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from appliance.units import fences_of_child
from units.stage import spawn_program

EVIL = """
import ctypes, json, os, socket, sys
def attempt(what):
    try:
        what()
    except OSError as error:
        return error.errno
    return 0
own, other = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *words):
    if libc.syscall(number, *words) < 0:
        raise OSError(ctypes.get_errno(), "")
print(json.dumps({
    "own": attempt(lambda: open(own + "/new", "w")),
    "other": attempt(lambda: open(other + "/new", "w")),
    "read": attempt(lambda: open("/etc/passwd").read()),
    "network": attempt(lambda: socket.socket(socket.AF_INET).close()),
    "raw": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
    "mount": attempt(lambda: call(165, b"x", b"/mnt", b"tmpfs", 0, None)),
    "namespace": attempt(lambda: call(272, 0x10000000)),
    "modules": attempt(lambda: call(175, None, 0, b"")),
    "reboot": attempt(lambda: call(169, 0, 0, 0, None)),
    "no_new_privileges": libc.prctl(39, 0, 0, 0, 0),
}))
"""


def test_it_changes_its_own_directory_and_nothing_else(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    words = [spawn_program(), "--input", "/dev/null", *fences_of_child(str(own)), "--"]
    words += [sys.executable, "-I", "-S", "-c", EVIL, str(own), str(other)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [told[name] for name in ("own", "read", "network", "no_new_privileges")] == [0, 0, 0, 1]
    denied = {name: told[name] for name in ("other", "raw", "mount", "namespace", "modules", "reboot")}
    assert all(denied.values()), denied
    assert denied["other"] == 30
    assert not list(other.iterdir())
