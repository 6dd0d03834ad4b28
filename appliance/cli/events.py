"""``appliance events``: what happens, as it happens."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import Any

KINDS = ("service", "unit", "update", "settings", "store")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.epilog = "Examples:\n  appliance events\n  appliance events --past --kind unit -o json"
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these (may be repeated)")
    parser.add_argument("--past", action="store_true", help="first those that are still remembered")


def run(args: argparse.Namespace) -> int:
    """Print one line for each, until Ctrl-C or the end of the appliance."""
    from appliance.cli.client import stream

    query = [f"kind={','.join(args.kind)}"] if args.kind else []
    query += ["after=0"] if args.past else []
    path = "/v1/events" + ("?" + "&".join(query) if query else "")
    for name, event in parse_events(stream(args.layout, path, headers={"Accept": "text/event-stream"})):
        if name == "hello":
            continue
        if args.output == "json":
            print(json.dumps(event, ensure_ascii=False), flush=True)
        else:
            print(f"({event.get('count')} events were lost here)" if name == "lost" else sentence(event), flush=True)
    return 0


def parse_events(lines: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of each server-sent event whose data is a JSON object (the rest is keep-alive)."""
    name, data = "", []
    for raw in lines:
        line = raw.decode(errors="replace").rstrip("\r")
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif field == "event":
            name = value.removeprefix(" ")
        elif not line:
            event = json.loads("\n".join(data)) if data else None
            if isinstance(event, dict):
                yield name, event
            name, data = "", []


def sentence(event: dict[str, Any]) -> str:
    """One event for people."""
    from appliance.cli.render import clean, paint, state
    from appliance.host.clock import timestamp

    told = {name: value for name, value in event.items() if name not in ("time", "kind", "subject")}
    words = [paint(timestamp(float(event.get("time") or 0)), "grey"), str(event.get("kind")), str(event.get("subject"))]
    if "state" in told:
        words.append(state(str(told.pop("state"))))
    words += [f"{name}={clean(str(value))}" for name, value in told.items() if value not in (None, "")]
    return " ".join(words)
