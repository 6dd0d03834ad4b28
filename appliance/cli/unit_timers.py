"""``unit list --timers``: which timer rings next, as ``systemctl list-timers`` shows it; and triggers in a line."""

from __future__ import annotations

import argparse
import time
from typing import Any


def run(args: argparse.Namespace) -> int:
    """The soonest first; those that will not ring at the end."""
    from appliance.cli.client import call
    from appliance.cli.render import show

    answer = call(args.layout, "GET", "/v1/units")
    show(args, {"timers": timers(answer["units"], time.time())}, _text)
    return 0


def timers(units: list[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """One for each timer; ``left`` and ``passed`` in seconds. Pure."""
    found = [
        {
            "unit": one["name"],
            "activates": one["unit"],
            "state": one["state"],
            "about": one["about"],
            "next": one["next"],
            "left": one["next"] - now if one["next"] is not None else None,
            "last": one["last"],
            "passed": now - one["last"] if one["last"] is not None else None,
        }
        for unit in units
        for one in unit["triggers"]
        if one["kind"] == "timer" and one["name"] == unit["name"]
    ]
    return sorted(found, key=lambda one: (one["next"] is None, one["next"] or 0.0, one["unit"]))


def trigger_text(trigger: dict[str, Any], now: float) -> str:
    """One trigger in a line, for ``unit status``. Pure."""
    from appliance.cli.render import clean

    where = f" of {trigger['name']}" if trigger["name"] != trigger["unit"] else ""
    parts = [f"{trigger['kind']}{where}: {clean(trigger['about'])}", trigger["state"]]
    if trigger["next"] is not None:
        parts.append(f"next {_moment(trigger['next'])} ({_left(trigger['next'] - now)})")
    if trigger["last"] is not None:
        parts.append(f"last {_moment(trigger['last'])}")
    if trigger["count"]:
        parts.append(f"{trigger['count']} connection{'' if trigger['count'] == 1 else 's'}")
    return ", ".join(parts)


def _text(answer: dict[str, Any]) -> str:
    from appliance.cli.render import age, clean, table

    rows = [
        (
            _moment(one["next"]) if one["next"] is not None else "-",
            _left(one["left"]) if one["left"] is not None else one["state"],
            _moment(one["last"]) if one["last"] is not None else "-",
            "-" if one["passed"] is None else f"{age(one['passed'])} ago" if one["passed"] >= 1 else "just now",
            one["unit"],
            one["activates"],
            clean(one["about"]),
        )
        for one in answer["timers"]
    ]
    headers = ("next", "left", "last", "passed", "unit", "activates", "when")
    return table(headers, rows) if rows else "no timers"


def _left(seconds: float) -> str:
    from appliance.cli.render import age

    return f"in {age(seconds)}" if seconds >= 1 else "now"


def _moment(seconds: float) -> str:
    """In the host's own zone."""
    return time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))
