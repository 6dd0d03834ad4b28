"""Who holds updates back, why, and until when. Pure.

A person says so (``update hold``), and that is kept in the store. A unit puts a file into the run directory: its text
is the reason, a line ``for = 2h`` says how long, counted from when the file was written; else a day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from appliance.errors import InputError
from appliance.schema import parse_duration

SECONDS_MAX = 90 * 86400.0
FILE_SECONDS = 86400.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_FOR = re.compile(r"\s*for\s*=\s*\"?([0-9a-z.]+)\"?\s*")


@dataclass(frozen=True, kw_only=True)
class Hold:
    """``since`` and ``until`` in seconds since 1970."""

    name: str
    why: str
    since: float
    until: float
    source: str = "person"  # or file

    def holds(self, now: float) -> bool:
        """A clock that went back before it was said is no reason to hold for ever: then it holds no more."""
        return self.since - 86400.0 <= now < self.until


def make_hold(name: str, why: str, seconds: float, now: float) -> Hold:
    """Raises InputError."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"cannot hold updates: the name {name[:80]!r} must be letters, digits, dots, dashes, at most 64"
        )
    if not why.strip():
        raise InputError("cannot hold updates: say --why, for whoever wonders")
    if not 1 <= seconds <= SECONDS_MAX:
        raise InputError("cannot hold updates: it must be for at least 1s and at most 90 days")
    return Hold(name=name, why=why.strip()[:1000], since=now, until=now + seconds)


def hold_of_file(name: str, text: str, modified: float) -> Hold:
    """What a file in the run directory says. What it says wrongly holds for a day: whoever wrote it meant to hold."""
    seconds, why = FILE_SECONDS, []
    for line in text.splitlines():
        if match := _FOR.fullmatch(line):
            try:
                seconds = min(parse_duration(match[1]), SECONDS_MAX)
            except InputError:
                why.append(line)
        else:
            why.append(line)
    said = " ".join(" ".join(why).split())[:1000]
    return Hold(name=name, why=said or "no reason given", since=modified, until=modified + seconds, source="file")


def with_hold(holds: Iterable[Hold], hold: Hold) -> tuple[Hold, ...]:
    """In place of an older one of that name."""
    return (*(one for one in holds if one.name != hold.name), hold)


def holds_to_json(holds: Iterable[Hold]) -> list[dict[str, Any]]:
    """Plain values."""
    return [asdict(hold) for hold in holds]


def parse_holds(value: object) -> tuple[Hold, ...]:
    """What was kept; a single one that cannot be read is left out."""
    found = []
    for one in value if isinstance(value, list) else []:
        if not isinstance(one, Mapping):
            continue
        try:
            found.append(
                Hold(name=str(one["name"]), why=str(one["why"]), since=float(one["since"]), until=float(one["until"]))
            )
        except (KeyError, TypeError, ValueError):
            continue
    return tuple(found)
