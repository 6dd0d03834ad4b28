"""What people and Prometheus see of updates, and a host's way between channels: by the built file itself."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.binary.test_update_e2e import Versions, node, server, shelf, versions  # noqa: F401
from tests.binary.test_update_gates import HEALTH, wait_for
from tests.binary.update_node import Node, Shelf
from tests.update.conftest import Server

# ruff: noqa: F811 - fixtures
pytestmark = [pytest.mark.binary, pytest.mark.slow]

BUNDLE = """
[[update.bundle]]
name = "shop"
repository = "http://127.0.0.1:1/"
channel = "stable"
strategy = "immediate"
interval = "1s"
"""


def page_of(node: Node, path: str) -> str:
    """From the door for people; its port is in the log."""
    door = re.compile(rb"http://127\.0\.0\.1:(\d{2,})")  # port 1 is the bundle's
    wait_for(lambda: door.search((node.place / "log").read_bytes()), "the page to be served")
    found = door.findall((node.place / "log").read_bytes())
    with urllib.request.urlopen(f"http://127.0.0.1:{int(found[0])}{path}", timeout=30) as answer:
        return bytes(answer.read()).decode()


def metrics_of(node: Node) -> dict[tuple[str, str, str], float]:
    """Name, product, and the value of the one other label, if there is one."""
    found = {}
    for family in text_string_to_metric_families(page_of(node, "/metrics")):
        for one in family.samples:
            if one.name.startswith("appliance_update_"):
                others = {name: value for name, value in one.labels.items() if name != "product"}
                name = one.name.removeprefix("appliance_update_")
                found[name, one.labels.get("product", ""), next(iter(others.values()), "")] = one.value
    return found


def gate(node: Node, name: str, *words: str) -> dict[str, Any]:
    return {one["name"]: one for one in node.ask("update", "explain", *words)}[name]


def test_all_that_holds_an_update_back_is_in_sight(
    node: Node, shelf: Shelf, server: Server, versions: Versions
) -> None:
    opens = (datetime.now(UTC) + timedelta(days=3)).replace(hour=3, minute=0, second=0, microsecond=0)
    (node.root / "etc/appliance/appliance.toml").write_text(
        f'[status]\nlisten = "127.0.0.1:0"\n[update]\nrepository = "{server.url}"\nchannel = "alpha"\n'
        f'strategy = "window"\ninterval = "1s"\n{HEALTH}'
        f'[[update.window]]\ndays = ["{opens:%a}"]\nstart = "03:00"\nlength = "1h"\ntime_zone = "UTC"\n{BUNDLE}'
    )
    shelf.publish(versions["2.0.0"])
    node.start()
    picture = node.wait(lambda it: it["waiting"].startswith("window: "), "the window")
    said = f"{opens:%Y-%m-%dT%H:%M:%SZ}"
    assert picture["window"] == {"open": False, "opens": said, "until": ""}
    assert [one["name"] for one in picture["gates"] if not one["open"]] == ["window"]
    assert f"window    next opens {said}" in node.cli("update", "status").stdout
    node.cli("update", "hold", "--for", "2h", "--why", "the fair is on", "--name", "anna")
    bundle = ("--product", "shop")
    wait_for(lambda: node.ask("update", "status", *bundle)["failures"] >= 2, "two failed attempts of the bundle")

    wait_for(lambda: ("waiting", "", "hold") in metrics_of(node), "the metrics")  # the first that is shut
    found = metrics_of(node)
    assert found["gate_open", "", "window"] == found["gate_open", "", "hold"] == 0
    assert found["gate_open", "", "channel"] == found["gate_open", "", "attempt"] == 1
    assert found["gate_opens_timestamp_seconds", "", "window"] == opens.timestamp()
    assert found["window_opens_timestamp_seconds", "", ""] == opens.timestamp()
    assert found["holds", "", ""] == 1
    assert found["checks_total", "", ""] >= 1
    assert found["errors_total", "", "unavailable"] == 0
    assert found["errors_total", "shop", "unavailable"] >= 2
    assert found["gate_open", "shop", "attempt"] == 0
    assert found["last_failure_timestamp_seconds", "shop", ""] > 0
    # Each check passes the gates anew: for a moment nothing is waited for. So both are looked at until all is there.
    screen = ("waits for hold: anna: the fair is on", "next window at ", "held by anna until ", "bundle    shop  ")
    page = ("Waits for", "anna until ", "the fair is on", "Bundle shop", "127.0.0.1:1")
    wait_for(lambda: all(text in node.cli("status").stdout for text in screen), "the screen")
    wait_for(lambda: all(text in page_of(node, "/") for text in page), "the page")
    assert "cannot fetch" in gate(node, "attempt", *bundle)["reason"]

    # A fault of ours is seen in all of them, too, and is gone when it is mended.
    server.lies["timestamp.json"] = lambda _: 500
    node.wait(lambda it: it["failures"] and "500" in it["last_error"], "the server's fault to be seen")
    shown = gate(node, "attempt")
    assert (shown["open"], "500" in shown["reason"], bool(shown["opens"])) == (False, True, True)
    assert "500" in node.cli("status").stdout
    assert metrics_of(node)["errors_total", "", "unavailable"] >= 1
    server.lies.clear()
    node.wait(lambda it: not it["last_error"] and it["waiting"], "the mended server")
    assert gate(node, "attempt")["open"]


def test_from_channel_to_channel(node: Node, shelf: Shelf, server: Server, versions: Versions) -> None:
    shelf.publish(versions["1.0.0"], channel="stable")
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    assert node.cli("update", "channel").stdout == "alpha\n"
    assert "1.0.0 -> 2.0.0: blessed" in node.cli("update", "apply").stdout

    # Nothing older unless asked for; what was chosen outlives us, and no updater of its own takes it either.
    result = node.cli("update", "channel", "stable")
    assert (
        "follows stable now: cannot take 1.0.0 of channel stable: it is older than the running 2.0.0" in result.stdout
    )
    os.kill(node.pid(), signal.SIGKILL)
    node.wait_dead()
    node.start()
    picture = node.wait_resting()
    assert (picture["version"], picture["channel"]) == ("2.0.0", "stable")
    assert "nothing new: cannot take 1.0.0" in node.cli("update", "apply").stdout
    assert "follows beta now: channel beta offers nothing for this host" in node.cli("update", "channel", "beta").stdout
    node.cli("update", "channel", "stable")
    assert node.cli("update", "channel", "gamma", check=False).returncode == 2
    assert node.cli("update", "channel", "beta", "--settings", check=False).returncode == 2
    assert node.cli("update", "channel").stdout == "stable\n"

    # Asked for, it is taken: once.
    assert "follows stable now: 1.0.0 (" in node.cli("update", "channel", "stable", "--allow-downgrade").stdout
    assert "2.0.0 -> 1.0.0: blessed" in node.cli("update", "apply").stdout
    assert "follows alpha now: 2.0.0 (" in node.cli("update", "channel", "--settings").stdout
    assert "1.0.0 -> 2.0.0: blessed" in node.cli("update", "apply").stdout
    assert node.wait_resting()["channel"] == "alpha"
    assert "it is older than the running 2.0.0" in node.cli("update", "channel", "stable").stdout
    assert json.loads(node.cli("update", "history", "-o", "json").stdout)[0]["to_version"] == "2.0.0"
