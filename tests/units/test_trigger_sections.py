# ruff: noqa: E501 (one case per line)
"""``[timer]``, ``[[socket]]`` and ``[path]``: what is wrong is found with its place, and what is right is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.schema import read
from appliance.units import Unit, parse_unit
from appliance.units.unit_file import UnitDocument

SERVICE = '[service]\ncommand = ["true"]\n'
SOCKET = SERVICE + "[[socket]]\n"
BROKEN = [
    (SERVICE + "[timer]\n", "3:2: timer: says no time, expected calendar"),
    (SERVICE + '[timer]\ncalendar = "dayly"\n', '4:1: timer.calendar: found "dayly", '),
    (SERVICE + '[timer]\ncalendar = ["daily", "25:00"]\n', '4:1: timer.calendar: found "25:00", 25 is no hour: 0 to 23; '),
    (SERVICE + '[timer]\ncalendar = "61 * * * *"\n', '4:1: timer.calendar: found "61 * * * *", bad minute of the cron'),
    (SERVICE + '[timer]\ncalendar = "daily Mars/Olympus"\n', '4:1: timer.calendar: found "daily Mars/Olympus", there is no time zone'),
    (SERVICE + '[timer]\ncalendar = "daily"\ntimezone = "Berlin"\n', '5:1: timer.timezone: there is no time zone "Berlin"'),
    (SERVICE + "[timer]\ncalendar = 5\n", "4:1: timer.calendar: found the integer 5, expected "),
    (SERVICE + "[timer]\nevery = 15\n", '4:1: timer.every: found the integer 15, expected a duration such as "15s"'),
    (SERVICE + '[timer]\nevery = "0"\n', "4:1: timer.every: found 0s, expected at least 10ms"),
    (SERVICE + '[timer]\nevery = "1m"\ncalender = "daily"\n', '5:1: timer.calender: unknown key; did you mean "calendar"?'),
    ('[timer]\nevery = "1m"\n', "1:2: timer: starts nothing: write a table [service], or timer.unit"),
    (SERVICE + "[socket]\nlisten = '/x'\n", "3:2: socket: found a table, expected a list of tables"),
    (SOCKET, "3:3: socket[0].listen: missing; expected a string such as"),
    (SOCKET + 'listen = "80"\n', '4:1: socket[0].listen: found the port "80" alone, '),
    (SOCKET + 'listen = "localhost:80"\n', '4:1: socket[0].listen: found "localhost:80", expected an address such as'),
    (SOCKET + 'listen = "::1:80"\n', '4:1: socket[0].listen: found "::1:80", an IPv6 address stands in brackets'),
    (SOCKET + 'listen = "127.0.0.1:70000"\n', '4:1: socket[0].listen: found "127.0.0.1:70000", expected'),
    (SOCKET + 'listen = "run/x"\n', '4:1: socket[0].listen: found "run/x", expected an address such as'),
    (SOCKET + 'listen = "@"\n', '4:1: socket[0].listen: found "@", expected a name behind the @'),
    (SOCKET + f'listen = "/{"x" * 120}"\n', "4:1: socket[0].listen: found a path longer than 107 bytes"),
    (SOCKET + 'listen = "/x"\nmode = "rw"\n', '5:1: socket[0].mode: found "rw", expected an octal mode such as "0660"'),
    (SOCKET + 'listen = "[::]:80"\ntype = "fifo"\n', '4:1: socket[0].listen: found "[::]:80", expected the path of a fifo'),
    (SOCKET + 'listen = "[::]:80"\ntype = "seqpacket"\n', "5:1: socket[0].type: found seqpacket, which only unix sockets know"),
    (SOCKET + 'listen = "[::]:80"\ntype = "dgram"\naccept = true\n', "6:1: socket[0].accept: found accept for dgram"),
    (SOCKET + 'listen = "[::]:80"\naccept = true\non_demand = false\n', "6:1: socket[0].on_demand: found false for a socket with accept"),
    (SOCKET + 'listen = "[::]:80"\nuser = "root"\n', "5:1: socket[0].user: counts only for paths"),
    (SOCKET + 'listen = "/x"\nname = "a:b"\n', '5:1: socket[0].name: found "a:b", expected a name without blanks and colons'),
    (SOCKET + 'listen = "/x"\ntype = "udp"\n', '5:1: socket[0].type: found "udp", expected "stream", "dgram", "seqpacket" or "fifo"'),
    ('[[socket]]\nlisten = "/x"\n', "1:3: socket[0]: starts nothing: write a table [service], or socket.unit"),
    (SERVICE + "[path]\n", "3:2: path: names no path, expected path_exists"),
    (SERVICE + '[path]\npath_exists = "x"\n', '4:1: path.path_exists: found "x", expected an absolute path'),
    (SERVICE + '[path]\npath_changed = ["/a", ""]\n', '4:1: path.path_changed: found "", expected an absolute path'),
    (SERVICE + '[path]\npath_exists = "/x"\nunit = "a b"\n', '5:1: path.unit: found "a b", expected the name of a unit'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BROKEN)
def test_a_broken_trigger_gives_its_finding(text: str, expected: str) -> None:
    parsed = parse_unit(text, "/u/x.toml")
    assert parsed.unit is None
    assert len(parsed.findings) == 1, parsed.findings
    assert str(parsed.findings[0]).startswith(f"/u/x.toml:{expected}")


def test_what_a_table_starts() -> None:
    def unit(name: str, text: str) -> Unit:
        parsed = parse_unit(text, f"/u/{name}.toml")
        assert parsed.unit is not None, parsed.findings
        return parsed.unit

    own = unit("web", SOCKET + 'listen = "/x"\n')
    assert own.triggers_itself
    assert own.calls_on_demand == {"web"}
    assert not unit("web", SOCKET + 'listen = "/x"\non_demand = false\n').triggers_itself
    assert unit("a.timer", '[timer]\nevery = "1m"\n').calls_on_demand == {"a"}
    assert unit("a.timer", '[timer]\nevery = "1m"\nunit = "b.service"\n').calls_on_demand == {"b"}
    assert unit("a.socket", '[[socket]]\nlisten = "/x"\naccept = true\n').calls_on_demand == {"a@"}
    assert unit("a.path", '[path]\npath_exists = "/x"\n').calls_on_demand == {"a"}
    assert not unit("a.path", '[path]\npath_exists = "/x"\n').triggers_itself


VALUES = st.one_of(st.text(max_size=12), st.integers(), st.booleans(), st.lists(st.text(max_size=8), max_size=3))
KEYS = st.sampled_from(
    ("calendar", "every", "listen", "type", "accept", "path_exists", "unit", "trigger_limit", "mode", "x")
)


@given(st.sampled_from(("timer", "path", "socket")), st.dictionaries(KEYS, VALUES, max_size=4))
def test_no_table_makes_the_reader_stumble(table: str, values: dict[str, object]) -> None:
    import json

    head = "[[socket]]" if table == "socket" else f"[{table}]"
    text = SERVICE + "\n".join([head, *(f"{key} = {json.dumps(value)}" for key, value in values.items())])
    read(text, "x.toml", UnitDocument)
    parse_unit(text, "/u/x.toml")
