"""``unit list --timers`` and the triggers of ``unit status``, of a real daemon."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.unit_timers import timers, trigger_text
from cli.test_unit import appliance, node, root, unit_file

__all__ = ["node", "root"]
TIMER = "[service]\ncommand = ['/bin/true']\ntype = 'oneshot'\n[timer]\n"


def test_timers_and_triggers_are_listed(node: Path) -> None:
    unit_file(node, "backup", TIMER + "calendar = '*-*-* 03:00 UTC'\n")
    unit_file(node, "often", TIMER + "every = '1h'\n")
    unit_file(node, "job", "[service]\ncommand = ['/bin/true']\ntype = 'oneshot'\n")
    unit_file(node, "job.timer", "[timer]\non_active = '10ms'\n")
    unit_file(node, "api", f"[service]\ncommand = ['/bin/cat']\n[[socket]]\nlisten = '{node}/api.sock'\n")
    unit_file(node, "spool", f"[service]\ncommand = ['/bin/true']\n[path]\npath_exists = '{node}/flag'\n")
    assert appliance(node, "unit", "reload").returncode == 0
    by_name: dict[str, dict[str, Any]] = {}
    until = time.monotonic() + 60
    while not by_name or (by_name["job.timer"]["next"] is not None and time.monotonic() < until):
        listed = json.loads(appliance(node, "unit", "list", "--timers", "-o", "json").stdout)["timers"]
        by_name = {one["unit"]: one for one in listed}
    assert set(by_name) == {"backup", "often", "job.timer"}
    assert by_name["job.timer"]["activates"] == "job"
    assert listed[-1]["unit"] == "job.timer", "what will not ring again stands at the end"
    due = datetime.fromtimestamp(by_name["backup"]["next"], UTC)
    assert (due.hour, due.minute, due.second) == (3, 0, 0)
    assert 0 < by_name["backup"]["left"] <= 86400
    assert 3000 < by_name["often"]["left"] <= 3600
    done = subprocess.run(
        ["systemd-analyze", "calendar", "*-*-* 03:00 UTC"], env={"TZ": "UTC", "PATH": "/usr/bin"}, capture_output=True
    )
    assert f"{due:%Y-%m-%d %H:%M:%S}" in done.stdout.decode()
    table = appliance(node, "unit", "list", "--timers").stdout.splitlines()
    assert table[0].split() == ["NEXT", "LEFT", "LAST", "PASSED", "UNIT", "ACTIVATES", "WHEN"]
    assert "backup" in table[1] or "backup" in table[2]
    status = appliance(node, "unit", "status", "backup").stdout
    assert "triggers:   timer: *-*-* 03:00 UTC, waiting, next " in status
    assert "timer of job.timer: on_active 10ms" in appliance(node, "unit", "status", "job").stdout
    assert f"socket: {node}/api.sock, waiting" in appliance(node, "unit", "status", "api").stdout
    assert f"path: path_exists {node}/flag, waiting" in appliance(node, "unit", "status", "spool").stdout


def test_the_soonest_comes_first() -> None:
    def unit(name: str, due: float | None, last: float | None = None) -> dict[str, object]:
        trigger = {
            "kind": "timer",
            "name": name,
            "unit": name,
            "state": "waiting",
            "about": "x",
            "next": due,
            "last": last,
        }
        return {"name": name, "triggers": [trigger, {**trigger, "kind": "socket"}, {**trigger, "name": "other"}]}

    found = timers([unit("c", None, 90.0), unit("b", 200.0), unit("a", 150.0)], 100.0)
    assert [(one["unit"], one["left"], one["passed"]) for one in found] == [
        ("a", 50.0, None), ("b", 100.0, None), ("c", None, 10.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "said"), [(0, "socket: x, waiting"), (2, "socket: x, waiting, 2 connections")])
def test_a_trigger_in_a_line(count: int, said: str) -> None:
    trigger = {"kind": "socket", "name": "a", "unit": "a", "state": "waiting", "about": "x", "next": None, "last": None}
    assert trigger_text({**trigger, "count": count}, 0.0) == said
