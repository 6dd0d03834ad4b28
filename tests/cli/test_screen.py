"""The status screen: what is on it, what a broken part looks like, and that nothing drives the terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cli.events import parse_events, sentence
from appliance.cli.render import age, clean, cut, size, table
from appliance.cli.screen import screen
from cli.peer import Peer, chunked, http, run

STATUS: dict[str, Any] = {
    "node": {
        "name": "node1", "version": "2.0.0", "pid": 4711, "slot": "b", "trial": True, "started": 1000.0,
        "root": "/srv/x", "uptime_seconds": 93784.0, "note": "",
    },
    "ready": False,
    "reasons": ["store: backoff: disk full"],
    "services": [
        {"name": "store", "state": "backoff", "since": 94774.0, "reason": "disk full"},
        {"name": "units", "state": "ready", "since": 1001.0, "reason": ""},
    ],
    "units": [
        {
            "name": "web", "state": "ready", "pid": 42, "since": 91184.0, "restarts": 2,
            "last_exit": "killed by SIGKILL", "reason": "started", "description": "the site",
            "health": "unhealthy", "health_reason": "HTTP 500",
            "memory_bytes": 37 << 20, "changed": True,
        },
        {"name": "job", "state": "failed", "pid": None, "since": 94784.0, "restarts": 0, "last_exit": "exit code 3",
         "reason": "exit code 3, given up", "description": "a job", "memory_bytes": None},
    ],
    "store": {"revision": 17, "keys": 4, "size_bytes": 5000, "watchers": 1, "state": "open", "problem": ""},
    "update": {
        "enabled": True, "reason": "", "state": "trial", "version": "2.0.0", "channel": "stable",
        "available": {"version": "2.1.0"}, "last_check": "2026-01-01T00:00:00Z", "health": ["unit web is unhealthy"],
    },
    "settings": {"file": "/etc/x.toml", "loaded": 1.0, "problem": "x"},
    "findings": [
        {
            "severity": "error", "file": "/etc/u/a.toml", "line": 3, "column": 1,
            "path": "service.x", "message": "unknown key",
        }
    ],
    "absent": {},
}  # fmt: skip
SCREEN = """\
node1  appliance 2.0.0  slot b (on trial)  up 1d 2h  pid 4711  root /srv/x  NOT READY
  because store: backoff: disk full

services  1 of 2 ready: units
          store backoff for 10s: disk full
store     revision 17  4 keys  4.9K on disk  1 watchers
update    channel stable  running 2.0.0  available 2.1.0  trial  checked 2026-01-01T00:00:00Z
          trial waits for unit web is unhealthy
settings  /etc/x.toml: the new file is not used, the old settings are kept

UNIT  STATE   PID  SINCE  RESTARTS  MEMORY  LAST EXIT          NOTE
web   ready   42   1h     2         37.0M   killed by SIGKILL  unhealthy: HTTP 500; file changed: unit reload
job   failed  -    now    0         -       exit code 3        exit code 3, given up

problems
  /etc/u/a.toml:3:1: service.x: unknown key"""


def test_the_whole_screen() -> None:
    assert screen(STATUS) == SCREEN


def test_parts_that_are_not_there_say_so() -> None:
    text = screen(
        {
            **STATUS, "store": {"problem": "cannot open the store: disk is gone", "kind": "corrupt"}, "units": [],
            "update": {"enabled": False, "reason": "no repository", "state": "idle"},
            "absent": {"units": "cannot ask units: x"},
        }
    )  # fmt: skip
    assert "store     cannot open the store: disk is gone" in text
    assert "update    off: no repository" in text
    assert "units     cannot ask units: x" in text


@pytest.mark.parametrize("status", [{}, {"node": None, "units": None, "store": None, "update": None, "settings": None}])
def test_an_empty_picture_is_drawn_all_the_same(status: dict[str, Any]) -> None:
    assert "not running" in screen(status)


def test_nothing_that_a_unit_says_drives_the_terminal() -> None:
    status = json.loads(json.dumps(STATUS))
    status["units"][0]["status_text"] = status["units"][1]["last_exit"] = "\x1b]0;evil\x07\x9b31m\r\nx"
    status["units"][0] |= {"health": "", "changed": False}
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(screen(status))


def test_json_is_handed_on_untouched(peer: Peer) -> None:
    raw = b'{"ready":true,  "node":{"name":"\xc3\xa9"},"new_key":1}'
    peer.answers["GET /v1/status"] = http(raw)
    done = run("status", "-o", "json", "--root", peer.layout.root)
    assert (done.returncode, done.stdout) == (0, raw.decode() + "\n")


def test_no_colour_in_a_pipe(peer: Peer) -> None:
    peer.says("GET /v1/status", STATUS)
    assert run("status", "--root", peer.layout.root).stdout == SCREEN + "\n"


def test_waiting_for_readiness_follows_the_events(peer: Peer) -> None:
    pictures = [{"ready": False}, {"ready": False}, {"ready": True}]
    peer.answers["GET /v1/status"] = lambda connection: connection.sendall(http(json.dumps(pictures.pop(0)).encode()))
    hello = b"retry: 1\nevent: hello\ndata: {}\n\n"
    peer.answers["GET /v1/events"] = chunked(hello, b'event: service\ndata: {"kind": "service"}\n\n')
    done = run("status", "--wait", "60s", "-o", "json", "--root", peer.layout.root)
    assert (done.returncode, done.stdout) == (0, '{"ready": true}\n')
    assert pictures == []


def test_waiting_in_vain_is_6(peer: Peer) -> None:
    peer.says("GET /v1/status", {"ready": False})
    peer.answers["GET /v1/events"] = lambda connection: connection.recv(1) and None
    assert run("status", "--wait", "300ms", "-o", "json", "--root", peer.layout.root).returncode == 6


def test_waiting_for_nobody_is_3(peer: Peer) -> None:
    assert run("status", "--wait", "200ms", "--root", peer.layout.root + "/nothing").returncode == 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "now"), (59, "59s"), (60, "1m"), (3661, "1h 1m"), (90061, "1d 1h"), (3605, "1h")]
)  # fmt: skip
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1023, "1023"), (1536, "1.5K"), (300 << 20, "300M"), (9 << 40, "9.0T")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table(("a", "long"), [("中文", None), ("x", 12)]) == "A     LONG\n中文  -\nx     12"


@given(st.text(st.sampled_from("ab中\x1b[31m0"), max_size=30), st.integers(2, 20))
def test_cut_lines_fit(line: str, width: int) -> None:
    from appliance.cli.render import _width

    assert _width(cut(line, width)) <= width


@given(st.text())
def test_cleaned_text_has_no_control_characters(text: str) -> None:
    assert not any((ord(one) < 32 and one != "\t") or 127 <= ord(one) < 160 for one in clean(text))


def test_server_sent_events() -> None:
    text = b'retry: 2000\nevent: hello\ndata: {"life": 1}\n\n: still here\n\nid: 1-2\nevent: unit\r\n'
    text += (
        b'data: {"time": 0,\ndata: "kind": "unit", "subject": "web", "state": "ready", "reason": ""}\n\ndata: []\n\n'
    )
    (hello, _), (name, event) = parse_events(text.split(b"\n"))
    assert (hello, name) == ("hello", "unit")
    assert sentence(event) == "1970-01-01T00:00:00.000Z unit web ready"
    assert sentence({"time": 0, "kind": "unit", "subject": "a", "pid": 3}).endswith("unit a pid=3")


def test_lost_events_are_said(peer: Peer) -> None:
    peer.answers["GET /v1/events?kind=unit,store"] = chunked(b'event: lost\ndata: {"count": 7}\n\n')
    done = run("events", "--kind", "unit", "--kind", "store", "--root", peer.layout.root)
    assert (done.returncode, done.stdout) == (0, "(7 events were lost here)\n")
