"""Everything refused or waiting, in one command: each state's words, and a node that has some of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.explain import explained
from cli.peer import run, serving
from cli.test_unit import UNIT, appliance, node, root, unit_file

__all__ = ["node", "root"]
GATES = [
    {"name": "trust", "open": True, "reason": "fine", "opens": ""},
    {"name": "window", "open": False, "reason": "no window is open", "opens": "2026-11-28T02:00:00Z"},
]


def unit(**more: Any) -> dict[str, Any]:
    return {
        "name": "web",
        "state": "stopped",
        "reason": "",
        "desired": "up",
        "enabled": "enabled",
        "triggers": [],
        **more,
    }


def status(**more: Any) -> dict[str, Any]:
    ready = [{"name": "api-control", "state": "ready", "reason": ""}]
    return {
        "services": ready,
        "units": [],
        "findings": [],
        "settings": {},
        "store": {},
        "update": {"repository": "x"},
        **more,
    }


def said(picture: dict[str, Any], gates: list[dict[str, Any]] | None = None) -> list[tuple[str, str, str, str]]:
    return [tuple(one.values()) for one in explained(picture, gates or [], 0.0)]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("more", "state", "why", "helps"),
    [
        ({"enabled": "masked"}, "masked", "nothing may start it", "unmask web"),
        ({"desired": "down"}, "stopped", "a person stopped it; that lasts", "start web"),
        ({"enabled": "disabled"}, "disabled", "it starts only when asked for", "enable --now web"),
        ({"reason": "its condition does not hold"}, "stopped", "its condition does not hold", "start web"),
        ({"state": "failed", "reason": "5 starts in 10 s"}, "failed", "5 starts in 10 s", "reset-failed web"),
        ({"state": "backoff", "last_exit": "killed by SIGSEGV"}, "backoff", "killed by SIGSEGV", "logs web"),
        ({"state": "waiting", "reason": "waits for db"}, "waiting", "waits for db", ""),
        ({"state": "ready", "health": "unhealthy", "health_reason": "HTTP 500"}, "unhealthy", "HTTP 500", "logs web"),
        ({"state": "ready", "changed": True}, "ready", "its file was changed since it was loaded", "reload"),
        (
            {"state": "backoff", "flapping": True, "restarts_lately": 7, "last_exit": "exit 1"},
            "flapping", "7 restarts within 10 minutes: exit 1", "logs web",
        ),
    ],
)  # fmt: skip
def test_of_a_unit(more: dict[str, Any], state: str, why: str, helps: str) -> None:
    assert said(status(units=[unit(**more)])) == [("web", state, why, helps and f"appliance unit {helps}")]


def test_what_is_well_is_not_worth_a_word() -> None:
    assert said(status(units=[unit(state="ready"), unit(state="exited"), unit()])) == []


def test_of_the_node() -> None:
    finding = {"file": "/u/web.toml", "line": 2, "column": 1, "path": "service.comand", "message": "unknown key"}
    picture = status(
        services=[{"name": "store", "state": "backoff", "reason": "the disk is full"}],
        settings={"problem": "/etc/a.toml:1:1: not TOML"},
        findings=[finding, {**finding, "file": "/u/x.toml", "severity": "warning"}],
        units=[unit(state="ready", file="/u/web.toml")],
        update={"repository": "x", "last_error": "no route", "failures": 3, "next_check": "soon", "denied": ["2.0.0"]},
    )
    assert [one[:2] for one in said(picture, GATES)] == [
        ("settings", "refused"), ("store", "backoff"), ("web", "refused"), ("files", "warning"), ("update", "failed"),
        ("update", "window shut"), ("update", "denied"),
    ]  # fmt: skip
    shut = said(picture, GATES)[5]
    assert shut[2:] == ("no window is open", "opens at 2026-11-28T02:00:00Z; appliance update apply --now")
    assert said(status(update={"reason": "no repository is set"}), GATES) == [
        ("update", "off", "no repository is set", "")
    ]


def test_nothing_to_say_and_nobody_of_that_name(tmp_path: Path) -> None:
    with serving(tmp_path) as peer:
        peer.says("GET /v1/status", status(units=[unit(state="ready")]))
        peer.says("GET /v1/update/explain", [])
        calm = run("--root", str(tmp_path), "explain")
        assert (calm.returncode, calm.stdout) == (0, "nothing is refused, and nothing waits\n")
        one = run("--root", str(tmp_path), "explain", "web")
        assert (one.returncode, one.stdout) == (0, "web: well: nothing of it is refused or waits\n")
        nobody = run("--root", str(tmp_path), "explain", "wbe")
        assert (nobody.returncode, 'did you mean "web"?' in nobody.stderr) == (4, True)
    assert run("--root", str(tmp_path / "nowhere"), "explain").returncode == 3


def test_on_a_node(node: Path) -> None:
    unit_file(node, "broken", "[service]\ncomand = ['true']\n")
    unit_file(node, "later", UNIT + "\n[timer]\nevery = '1h'\n")
    assert appliance(node, "unit", "reload").returncode == 2
    assert appliance(node, "unit", "stop", "hello").returncode == 0
    rows = json.loads(appliance(node, "explain", "-o", "json").stdout)
    found = {one["what"]: one for one in rows}
    assert (found["hello"]["state"], found["hello"]["helps"]) == ("stopped", "appliance unit start hello")
    assert found["later"]["state"] == "waiting"
    assert "every 1h" in found["later"]["why"]
    assert "comand: unknown key" in " ".join(one["why"] for one in rows if one["what"] == "files")
    assert "web" not in found
    assert appliance(node, "explain", "hello").stdout.splitlines() == [
        "hello: stopped: a person stopped it; that lasts", "    what helps: appliance unit start hello",
    ]  # fmt: skip
