from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from appliance.host.entropy import token
from appliance.host.notify import Notifier


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_parent_hears_it_and_children_do_not_inherit_it(kind: str, tmp_path: Path) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@appliance-test-{token()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as parent:
        parent.bind("\0" + name[1:] if kind == "abstract" else name)
        environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "PATH": "/bin"}
        notifier = Notifier(environ)
        assert environ == {"PATH": "/bin"}
        notifier.ready("all\nwell")
        assert parent.recv(4096).decode().split("\n") == ["READY=1", "STATUS=all well", f"MAINPID={os.getpid()}"]
        assert notifier.watchdog_seconds == 3
        notifier.give_back()
        assert environ["NOTIFY_SOCKET"] == name
        assert environ["WATCHDOG_USEC"] == "3000000"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "x"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_nobody_there_is_no_fault(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    notifier.stopping("bye")
    assert notifier.watchdog_seconds is None


def test_a_parent_that_does_not_read_holds_us_up_never(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as parent:
        parent.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(2000):  # far beyond net.unix.max_dgram_qlen
            notifier.alive()
