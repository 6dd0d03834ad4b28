"""``appliance unit top``: CPU, memory, tasks and I/O of each unit, live."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any


def run_top(args: argparse.Namespace) -> int:
    """Until interrupted; one answer with ``--once``, with JSON, or when nobody looks."""
    from appliance.cli.client import call
    from appliance.cli.render import show

    before: dict[str, Any] = {}
    then = time.monotonic()
    once = args.once or args.output == "json" or not sys.stdout.isatty()
    try:
        if once and args.output != "json":
            before, then = _units(call(args.layout, "GET", "/v1/usage")), time.monotonic()
            time.sleep(0.5)  # a share of the CPU needs two looks
        while True:
            answer = call(args.layout, "GET", "/v1/usage")
            now = time.monotonic()
            if args.output == "json":
                show(args, answer, str)
                return 0
            text = top_text(before, _units(answer), now - then)
            print(text if once else f"\x1b[H\x1b[2J{text}", flush=True)
            if once:
                return 0
            before, then = _units(answer), now
            time.sleep(max(args.interval, 0.2))
    except KeyboardInterrupt:
        return 0


def _units(answer: Any) -> dict[str, Any]:
    found = answer.get("usage", {}) if isinstance(answer, dict) else {}
    return found if isinstance(found, dict) else {one["name"]: one for one in found}


def top_text(before: dict[str, Any], now: dict[str, Any], seconds: float) -> str:
    """The busiest first."""
    from appliance.cli.render import size, table

    rows = []
    for name, one in now.items():
        old = before.get(name, {})
        cpu = _rate(one, old, "cpu_seconds", seconds)
        reads, writes = (_rate(one, old, f"io_{way}_bytes", seconds) for way in ("read", "write"))
        memory = one.get("memory_bytes")
        rows.append((-(cpu or 0.0), -(memory or 0), (
            name, "" if cpu is None else f"{100 * cpu:.1f} %", "" if memory is None else size(memory),
            "" if one.get("tasks") is None else one["tasks"],
            "" if reads is None else f"{size(reads)}/s", "" if writes is None else f"{size(writes)}/s",
        )))  # fmt: skip
    return table(("unit", "cpu", "memory", "tasks", "read", "write"), [row for *_, row in sorted(rows)])


def _rate(one: dict[str, Any], old: dict[str, Any], key: str, seconds: float) -> float | None:
    value, earlier = one.get(key), old.get(key)
    if value is None or earlier is None or seconds <= 0:
        return None
    return float(max(value - earlier, 0) / seconds)
