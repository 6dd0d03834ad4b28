"""The screen on a real terminal (a pty): what it shows, what keys do, what a recovery console lets nobody do."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trio

from appliance.console import Acts, Console, ScreenPicture, rows_of
from appliance.console.screen import changed, fit, whole
from appliance.errors import ConflictError
from appliance.supervisor import EventBus

PASSWORD = "open sesame"
SECRET = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[78])")


def status(**more: Any) -> dict[str, Any]:
    return {
        "node": {"name": "box7", "version": "1.2.3", "slot": "a"},
        "ready": True, "reasons": [], "settings": {"problem": ""},
        "services": [{"name": "store", "state": "ready"}],
        "units": [
            {"name": "web", "state": "ready", "health": "healthy", "reason": ""},
            {"name": "db", "state": "failed", "health": "", "reason": "exit code 3"},
        ],
        "update": {"state": "idle", "slots": [
            {"name": "a", "version": "1.2.3", "running": True, "blessed": True, "tries": 0},
            {"name": "b", "version": "", "running": False, "blessed": False, "tries": 0},
        ]},
        **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("slot", "said"),
    [
        ({"priority": 1, "blessed": True, "tries": 3}, "b: 2.0.0 (good)"),
        ({"priority": 3, "blessed": False, "tries": 2}, "b: 2.0.0 (on trial, 2 tries left)"),
        ({"priority": 0, "blessed": False, "tries": 0}, "b: 2.0.0 (given up)"),
    ],
)
def test_what_is_said_of_a_slot(slot: dict[str, object], said: str) -> None:
    update = {"state": "idle", "slots": [{"name": "b", "version": "2.0.0", "running": False, **slot}]}
    rows = "\n".join(rows_of(ScreenPicture(status=status(update=update))))
    assert said in rows


def test_rows_tell_what_matters() -> None:
    rows = "\n".join(rows_of(ScreenPicture(
        status=status(ready=False, reasons=["store is backoff: disk full"], settings={"problem": "2:1: x"}),
        network=["eth0 10.0.0.2/24"], emergency="cannot mount", errors=["08:00:00 unit db: exit code 3"],
    )))  # fmt: skip
    for text in (
        "Appliance 1.2.3 on box7", "eth0 10.0.0.2/24", "a: 1.2.3 (running, good); b: empty",
        "NOT READY: store is backoff: disk full", "1 up of 2, 1 FAILED: db", "EMERGENCY", "2:1: x", "db: exit code 3",
    ):  # fmt: skip
        assert text in rows


@pytest.mark.parametrize("size", [(24, 80), (12, 40), (50, 200)])
def test_nothing_is_wider_than_the_screen_or_moves_its_cursor(size: tuple[int, int]) -> None:
    evil = "x\x1b[2J\r\n" * 100
    drawn = whole([evil, "short"], [evil], size).decode()
    for line in _ESCAPES.sub("", drawn).split("\n"):
        assert len(line) < size[1]
        assert line.isprintable()
    assert len(fit(evil, size[1])) < size[1]


def test_only_what_changed_is_drawn() -> None:
    old, new = ["one", "two", "three"], ["one", "2", "three"]
    assert changed(old, old, (24, 80)) == b""
    drawn = changed(old, new, (24, 80))
    assert drawn is not None
    assert b"one" not in drawn
    assert b"\x1b[2;1H2" in drawn
    assert changed(old, ["one"], (24, 80)) is None


class Stand:
    """A console on a pty, and what it was asked for."""

    def __init__(self, *, secret: str = SECRET) -> None:
        self.master, slave = os.openpty()
        os.set_blocking(self.master, False)
        self.path = os.ttyname(slave)
        self.slave, self.bus, self.picture, self.asked, self.read = slave, EventBus(), status(), [], ""
        self.lines = ["first line", "last line"]

        async def logs(unit: str) -> str:
            return f"logs of {unit or 'all'}"

        async def rollback() -> str:
            raise ConflictError("cannot roll back: there is no other version")

        def end(how: str) -> str:
            self.asked.append(how)
            return "stopping"

        acts = Acts(
            password_hash=lambda: secret, status=lambda: "status text", units=lambda: "units", network=lambda: "net",
            logs=logs, rollback=rollback, reset_settings=lambda: "reset", mount_writable=lambda: "rw", end=end,
        )  # fmt: skip
        self.console = Console(
            ("/dev/none-of-these", self.path), picture=lambda: ScreenPicture(status=self.picture), acts=acts,
            lines=lambda: self.lines, subscribe=lambda: self.bus.subscribe(size_max=1),
        )  # fmt: skip

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    async def see(self, text: str) -> None:
        """Until it was shown since the last call."""
        limit = time.monotonic() + 60
        while text not in self.read:
            assert time.monotonic() < limit, f"no {text!r} in {self.read!r}"
            try:
                self.read += _ESCAPES.sub("", os.read(self.master, 65536).decode())
            except BlockingIOError:
                await trio.sleep(0.02)
        self.read = self.read.partition(text)[2]


def on_stand(script: Callable[[Stand], Any], **words: Any) -> None:
    stand = Stand(**words)

    async def main() -> None:
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: stand.console.run(stopping=stopping, task_status=task_status))
            await script(stand)
            stopping.set()

    try:
        trio.run(main)
    finally:
        os.close(stand.master)
        os.close(stand.slave)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.console.console.quieten_kernel", lambda level: None)  # this host's stays as it is


def test_it_is_drawn_anew_when_something_happens() -> None:
    async def script(stand: Stand) -> None:
        await stand.see("a: 1.2.3 (running, good)")
        await stand.see("health      ready")
        stand.picture = status(ready=False, reasons=["store is gone"])
        stand.bus.publish("service", "store", state="backoff")
        await stand.see("NOT READY: store is gone")
        stand.type("u")
        await stand.see("db                       failed")
        stand.type("l")
        await stand.see("last line")
        stand.type("s")
        await stand.see("Appliance 1.2.3 on box7")

    on_stand(script)


def test_the_recovery_console_needs_its_password() -> None:
    async def script(stand: Stand) -> None:
        stand.type("c")
        await stand.see("password: ")
        stand.type("reboot\r")
        await stand.see("wrong")
        await stand.see("password: ")
        stand.type(f"{PASSWORD}\r")
        await stand.see("recovery> ")
        assert PASSWORD not in stand.read
        stand.type("rolx\x7flback\rlogs web\rsh -c id\rreboot\r")
        await stand.see("cannot roll back: there is no other version")
        await stand.see("logs of web")
        await stand.see('no command "sh -c id"')
        await stand.see("stopping")
        assert stand.asked == ["reboot"]
        stand.type("exit\r")
        await stand.see("Appliance 1.2.3 on box7")

    on_stand(script)


def test_three_wrong_passwords_end_the_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.console.recovery._WRONG_SECONDS", 0.0)

    async def script(stand: Stand) -> None:
        stand.type("c")
        for _ in range(3):
            await stand.see("password: ")
            stand.type("nothing\r")
        await stand.see("wrong; enough")
        await stand.see("Appliance 1.2.3 on box7")
        assert stand.asked == []

    on_stand(script)


def test_without_a_password_there_is_no_recovery_console() -> None:
    async def script(stand: Stand) -> None:
        stand.type("c")
        await stand.see("no recovery console")
        stand.type("reboot\r")
        await stand.see("Appliance 1.2.3 on box7")
        assert stand.asked == []

    on_stand(script, secret="")


def test_a_line_that_hangs_up_ends_nothing(tmp_path: Path) -> None:
    async def script(stand: Stand) -> None:
        await stand.see("Appliance 1.2.3")
        os.dup2(os.open("/dev/null", os.O_RDWR), stand.master)  # the last other end is gone
        stand.bus.publish("service", "store", state="backoff")
        await trio.sleep(0.5)

    on_stand(script)
