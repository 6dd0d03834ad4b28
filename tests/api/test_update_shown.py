"""What is shown of updates: metrics, screen and page, from one picture of ours and one of a bundle."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from appliance.api.exposition import Exposition
from appliance.api.page import render_picture
from appliance.api.update_metrics import write_update
from appliance.cli.screen import screen

HELD: dict[str, Any] = {
    "enabled": True, "reason": "", "state": "downloaded", "version": "1.0", "slot": "a", "channel": "stable",
    "strategy": "window", "available": {"version": "2.0", "size": 5, "notes": ""}, "received_bytes": 0,
    "failures": 0, "last_error": "", "last_failure": "", "checks": 7, "errors": {}, "slots": [],
    "waiting": "hold: anna: the fair <is> on (until 2026-11-22T14:00:00Z)", "opens": "2026-11-22T14:00:00Z",
    "holds": [{"name": "anna", "why": "the fair <is> on", "until": "2026-11-22T14:00:00Z", "source": "person"}],
    "window": {"open": False, "opens": "2026-11-28T02:00:00Z", "until": ""}, "denied": ["1.5", "1.6"],
    "gates": [
        {"name": "wave", "open": True, "reason": "no wave is waited for", "opens": ""},
        {"name": "hold", "open": False, "reason": "anna", "opens": "2026-11-22T14:00:00Z"},
    ],
    "last_check": "2026-11-22T12:00:00.5Z", "next_check": "2026-11-22T12:10:00Z",
}  # fmt: skip
FAILED: dict[str, Any] = {
    **HELD, "product": "shop", "state": "idle", "waiting": "", "holds": [], "window": None, "denied": [], "gates": [],
    "failures": 3, "errors": {"unavailable": 3, "untrusted": 1}, "last_failure": "2026-11-22T12:00:01Z",
    "last_error": "cannot fetch https://u/x: 404", "reason": "cannot fetch https://u/x: 404", "available": None,
}  # fmt: skip

SLOTS = [
    {"name": "a", "version": "1.0", "blessed": True, "tries": 2, "priority": 1, "running": True},
    {"name": "b", "version": "1.5", "blessed": False, "tries": 0, "priority": 0, "running": False},
]  # fmt: skip


def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    out = Exposition()
    write_update(out, HELD)
    write_update(out, FAILED, "shop")
    families = text_string_to_metric_families(out.text().decode())
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def test_metrics_tell_gates_holds_windows_and_denied_versions() -> None:
    found = samples()
    u, shop = "appliance_update_", ("product", "shop")
    assert found[u + "gate_open", (("gate", "hold"),)] == 0
    assert found[u + "gate_open", (("gate", "wave"),)] == 1
    assert found[u + "gate_opens_timestamp_seconds", (("gate", "hold"),)] == 1795356000
    assert found[u + "waiting", (("gate", "hold"),)] == 1
    assert found[u + "holds", ()] == 1
    assert found[u + "hold_until_timestamp_seconds", (("name", "anna"), ("source", "person"))] == 1795356000
    assert found[u + "window_open", ()] == 0
    assert found[u + "window_opens_timestamp_seconds", ()] == 1795831200
    assert (u + "window_until_timestamp_seconds", ()) not in found
    assert found[u + "denied", ()] == 2
    assert found[u + "denied_version", (("version", "1.5"),)] == 1
    assert found[u + "checks_total", ()] == 7
    assert found[u + "errors_total", (("kind", "unavailable"),)] == 0
    assert found[u + "errors_total", (("kind", "unavailable"), shop)] == 3
    assert found[u + "failures", (shop,)] == 3
    assert found[u + "last_failure_timestamp_seconds", (shop,)] == 1795348801
    assert found[u + "last_check_timestamp_seconds", ()] == 1795348800.5
    assert found[u + "info", (("channel", "stable"), shop, ("strategy", "window"), ("version", "1.0"))] == 1


def test_the_screen_tells_them() -> None:
    text = screen({"update": HELD, "bundles": [FAILED]})
    for line in (
        "waits for hold: anna: the fair <is> on (until 2026-11-22T14:00:00Z), opens at 2026-11-22T14:00:00Z",
        "held by anna until 2026-11-22T14:00:00Z: the fair <is> on",
        "next window at 2026-11-28T02:00:00Z",
        "denied: 1.5, 1.6",
        "bundle    shop  channel stable  running 1.0  nothing newer  idle",
        "failed 3 times in a row: cannot fetch https://u/x: 404",
    ):
        assert line in text


def test_the_page_tells_them_and_nobody_writes_marks_into_it() -> None:
    nothing: dict[str, Any] = {"problem": "x"}
    html = render_picture(
        {
            "ready": True, "reasons": [], "units": [], "findings": [], "absent": {}, "services": [], "store": nothing,
            "update": {**HELD, "slots": SLOTS}, "bundles": [FAILED, {"problem": "cannot ask <b>"}],
            "settings": {"file": "", "problem": ""},
            "node": {"started": 1.0, "pid": 1, "slot": "a", "trial": False, "root": "/", "version": "1", "note": ""},
        }
    )  # fmt: skip
    for part in (
        "<dt>Waits for</dt>", "anna until 2026-11-22T14:00:00Z", "the fair &lt;is&gt; on", "<dt>Next window</dt>",
        "1.0, blessed, running", "1.5, given up",
        "<h2>Bundle shop</h2>", "failed 3 times in a row: cannot fetch https://u/x: 404", "cannot ask &lt;b&gt;",
    ):  # fmt: skip
        assert part in html
    assert "<is>" not in html
