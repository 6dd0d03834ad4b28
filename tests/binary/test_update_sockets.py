"""A unit's sockets over a real self-update: whoever calls meanwhile is answered."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.calling import SERVER, calling, free_port

from tests.binary.test_update_e2e import Versions, node, server, shelf, versions  # noqa: F401
from tests.binary.update_node import Node, Shelf

# ruff: noqa: F811 - fixtures
pytestmark = pytest.mark.binary


def test_no_call_is_refused_over_a_self_update_and_back(node: Node, shelf: Shelf, versions: Versions) -> None:
    port = free_port()
    (node.root / "etc/appliance/units/web.toml").write_text(
        f"[service]\ncommand = ['/usr/bin/python3', '-c', '''{SERVER}''']\n[[socket]]\nlisten = '127.0.0.1:{port}'\n"
    )
    (node.root / "etc/appliance/units/zone.toml").write_text(
        "[service]\ncommand = ['/bin/true']\ntype = 'oneshot'\n[timer]\ncalendar = '09:00 Europe/Berlin'\n"
    )
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    with calling(port) as caller:
        caller.expect_more()
        first = set(caller.answers)
        assert "1.0.0 -> 2.0.0: blessed" in node.cli("update", "apply").stdout
        caller.expect_more()
        assert "1.0.0" in node.cli("update", "rollback").stdout
        node.wait(lambda it: it["version"] == "1.0.0" and it["state"] == "idle", "1.0.0")
        caller.expect_more()
        assert set(caller.answers) == first, "the unit was not even restarted"
    assert "zone" in node.cli("unit", "list", "--timers").stdout
