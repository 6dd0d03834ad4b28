"""``appliance unit`` against a running daemon, and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from cli.peer import here

ROOM = Path(__file__).parents[2]
UNIT = "[service]\ncommand = ['/bin/sh', '-c', 'echo hello from $$; exec sleep infinity']\n"


def appliance(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return here("--root", str(root), *words)


def unit_file(root: Path, name: str, text: str) -> Path:
    path = root / f"etc/appliance/units/{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/appliance").mkdir(parents=True)
    (tmp_path / "etc/appliance/appliance.toml").write_text('[status]\nlisten = "off"\n')
    return tmp_path


def wait_said(lines: IO[str], *wanted: str) -> None:
    """Until each was said, in whatever order: units may be up before anybody can be asked."""
    missing = set(wanted)
    for line in lines:
        missing = {one for one in missing if one not in line}
        if not missing:
            return
    raise AssertionError(f"the daemon ended before it said {missing}")


@pytest.fixture
def node(root: Path) -> Iterator[Path]:
    """A running daemon with two units, "hello" and "web", from the source tree."""
    unit_file(root, "web", UNIT)
    unit_file(root, "hello", '[unit]\nrequires = ["web"]\nafter = ["web"]\n' + UNIT)
    daemon = subprocess.Popen(
        [sys.executable, "-m", "appliance", "--root", str(root), "run"],
        cwd=ROOM, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert daemon.stderr is not None
    wait_said(daemon.stderr, "unit hello: ready", "service api-control: ready")
    try:
        yield root
    finally:
        daemon.terminate()
        daemon.stderr.read()
        daemon.stderr.close()
        assert daemon.wait(60) == 0


def test_a_day_with_units(node: Path) -> None:
    listed = json.loads(appliance(node, "unit", "list", "-o", "json").stdout)
    assert [(one["name"], one["state"]) for one in listed["units"]] == [("hello", "ready"), ("web", "ready")]
    table = appliance(node, "unit").stdout
    assert table.splitlines()[0].split() == ["UNIT", "STATE", "FOR", "PID", "RESTARTS", "HEALTH", "ABOUT"]

    assert appliance(node, "unit", "stop", "web").stdout.startswith("web: stopped (stopped by hand")
    asked = appliance(node, "unit", "status", "hello")
    assert asked.returncode == 3
    assert "it requires web, which is stopped" in asked.stdout
    assert "wanted:     down (stopped by hand)" in appliance(node, "unit", "status", "web").stdout
    assert appliance(node, "unit", "start", "hello").stdout.startswith("hello: ready (started, pid ")
    assert appliance(node, "unit", "restart", "web").returncode == 0

    logs = appliance(node, "unit", "logs", "-n", "1", "web").stdout
    assert logs.count("\n") == 1
    assert "Z hello from " in logs
    assert appliance(node, "unit", "logs", "--since", "1h", "web").stdout.count("hello from") == 3
    assert appliance(node, "unit", "cat", "web").stdout == UNIT

    unknown = appliance(node, "unit", "start", "wbe")
    assert unknown.returncode == 4
    assert "cannot find unit wbe" in unknown.stderr


def test_reload_shows_then_does(node: Path) -> None:
    unit_file(node, "web", UNIT.replace("hello", "welcome"))
    unit_file(node, "more", UNIT)
    unit_file(node, "sick", "[service]\ncomand = 1\n")
    dry = appliance(node, "unit", "reload", "--dry-run")
    assert dry.returncode == 2
    assert dry.stdout.splitlines()[:2] == ["+ start more", "~ restart web"]
    assert 'sick.toml:2:1: service.comand: unknown key; did you mean "command"?' in dry.stdout
    assert dry.stdout.splitlines()[-1] == "1 unchanged"
    assert "more" not in appliance(node, "unit", "list").stdout.split()
    done = appliance(node, "unit", "reload")
    assert done.stdout == dry.stdout
    assert appliance(node, "unit", "start", "more", "web").returncode == 0
    assert appliance(node, "unit", "reload", "--dry-run").stdout.splitlines()[-1] == "3 unchanged"
    asked = appliance(node, "unit", "reload", "web")
    assert asked.returncode == 2
    assert "says neither service.reload nor service.reload_signal" in asked.stderr


def test_logs_follow_until_interrupted(node: Path) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-u", "-m", "appliance", "--root", str(node), "unit", "logs", "-f", "web"],
        cwd=ROOM, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert reader.stdout is not None
    assert "hello from" in reader.stdout.readline()
    appliance(node, "unit", "restart", "web")
    assert "hello from" in reader.stdout.readline()
    reader.terminate()
    reader.wait(60)
    reader.stdout.close()


def test_verify_and_plan_need_no_daemon(root: Path, tmp_path: Path) -> None:
    unit_file(root, "web", UNIT)
    unit_file(root, "hello", '[unit]\nrequires = ["web"]\nafter = ["web"]\n' + UNIT)
    good = appliance(root, "unit", "verify")
    assert (good.returncode, good.stdout) == (0, "2 unit files, no errors\n")
    plan = appliance(root, "unit", "plan", "hello")
    assert plan.stdout == "1. web\n2. hello\n"
    assert json.loads(appliance(root, "unit", "plan", "hello", "-o", "json").stdout)["pulled_in"] == ["web"]
    bad = unit_file(root, "web", '[unit]\nafter = ["hello"]\n' + UNIT)
    cycle = appliance(root, "unit", "verify")
    assert cycle.returncode == 2
    assert (
        f"{bad}:2:1: unit.after: web cannot start: the order has a cycle: hello after web after hello" in cycle.stdout
    )
    assert "cannot plan hello: the order has a cycle" in appliance(root, "unit", "plan", "hello").stderr
    lone = tmp_path / "lone.toml"
    lone.write_text("[service]\n")
    one = appliance(root, "unit", "verify", str(lone))
    assert one.returncode == 2
    assert one.stdout.startswith(f"{lone}:1:2: service.command: missing; expected a list of strings")
    assert appliance(root, "unit", "verify", str(tmp_path / "none.toml")).returncode == 2


def test_without_a_daemon_it_says_so(root: Path) -> None:
    asked = appliance(root, "unit", "list")
    assert asked.returncode == 3
    assert "no appliance runs below" in asked.stderr
