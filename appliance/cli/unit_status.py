"""``appliance unit status NAME``: one unit in full, with its last lines."""

from __future__ import annotations

import argparse
import time
from typing import Any

from appliance.cli.unit_work import path_of, tree_lines
from appliance.errors import ApplianceError


def run(args: argparse.Namespace) -> int:
    """3 when it is not up, as systemctl's."""
    import json

    from appliance.cli.client import call, stream
    from appliance.cli.render import show

    unit = call(args.layout, "GET", path_of(args.name))
    lines = [json.loads(line) for line in stream(args.layout, path_of(args.name, "/logs?lines=10"), timeout=30.0)]
    try:
        unit["processes"] = call(args.layout, "GET", path_of(args.name, "/processes"))["processes"]
    except ApplianceError:  # only whoever may control units may see command lines
        unit["processes"] = []
    show(args, {**unit, "log": lines}, _status_text)
    return 0 if unit["state"] in ("ready", "reloading", "exited") else 3


def _status_text(unit: dict[str, Any]) -> str:
    from appliance.cli.render import age, clean, state

    now = time.time()
    frozen = ", frozen," if unit.get("frozen") else ""
    facts = {
        "about": unit["description"],
        "file": unit["file"] + (" (changed since the start: unit reload)" if unit["changed"] else ""),
        "state": f"{state(unit['state'])}{frozen} for {age(unit['seconds'])}: {clean(unit['reason'])}",
        "wanted": _wanted_text(unit),
        "main pid": f"{unit['pid']}, kept together by {unit['tracking']}" if unit["pid"] else "",
        "step": f"{unit['phase']}, pid {unit['control_pid']}" if unit.get("control_pid") else "",
        "says": clean(unit["status_text"]),
        "uses": _usage_text(unit.get("usage") or {}),
        "health": " ".join(filter(None, (unit["health"], clean(unit["health_reason"])))),
        "restarts": _restarts_text(unit),
        "last exit": _exit_text(unit),
        "requires": " ".join(unit["requires"]),
        "wants": " ".join(unit["wants"]),
        "after": " ".join(unit["after"]),
        "before": " ".join(unit["before"]),
        "invocation": unit.get("invocation", ""),
        "log lost": _lost_text(unit),
    }
    lines = [f"unit {unit['name']}", *(f"  {name + ':':<11} {value}" for name, value in facts.items() if value)]
    if unit["triggers"]:
        from appliance.cli.unit_timers import trigger_text

        lines += [f"  {'triggers:':<11} {trigger_text(one, now)}" for one in unit["triggers"]]
    if unit.get("processes"):
        lines += [f"  {'processes:':<11} {line}" if not number else f"  {'':<11} {line}"
                  for number, line in enumerate(tree_lines(unit["processes"]))]  # fmt: skip
    for moment in unit["history"][-5:]:
        ago = age(now - moment["time"])
        ago = "just now" if ago == "now" else f"{ago} ago"
        lines.append(f"    {ago:>12}  {moment['state']:<9} {clean(moment['reason'])}")
    lines += [f"  {line['time']} {clean(line['text'])}" for line in unit["log"]]
    return "\n".join(lines)


def _restarts_text(unit: dict[str, Any]) -> str:
    lately = f" (flapping: {unit['restarts_lately']} within 10 minutes)" if unit.get("flapping") else ""
    return f"{unit['restarts'] or ''}{lately}".strip()


def _lost_text(unit: dict[str, Any]) -> str:
    from appliance.cli.render import size

    words = []
    if unit["log_bytes_dropped"]:
        words.append(f"{size(unit['log_bytes_dropped'])} (disk full?)")
    if lines := unit.get("log_lines_dropped"):
        words.append(f"{lines} line{'s' * (lines != 1)} (faster than its rate)")
    return ", ".join(words)


def _exit_text(unit: dict[str, Any]) -> str:
    result = (unit.get("exit") or {}).get("result", "success")
    known = result in ("success", "exit-code", "signal", "core-dump")  # the words before say that already
    return f"{unit['last_exit']}{'' if known else f' ({result})'}" if unit["last_exit"] or not known else ""


def _wanted_text(unit: dict[str, Any]) -> str:
    words = "up" if unit["desired"] == "up" else "down (stopped by hand)"
    if unit.get("called"):
        words += f" ({unit['called']})"
    return words if unit.get("enabled", "enabled") == "enabled" else f"{words}; {unit['enabled']}"


def _usage_text(usage: dict[str, Any]) -> str:
    from appliance.cli.render import size

    words = []
    if (memory := usage.get("memory_bytes")) is not None:
        words.append(size(memory))
    if (seconds := usage.get("cpu_seconds")) is not None:
        words.append(f"{seconds:.2f} s CPU")
    if (tasks := usage.get("tasks")) is not None:
        words.append(f"{tasks} task{'s' * (tasks != 1)}")
    for key, word in (
        ("io_read_bytes", "read"), ("io_write_bytes", "written"),
        ("ip_in_bytes", "received"), ("ip_out_bytes", "sent"),
    ):  # fmt: skip
        if (value := usage.get(key)) is not None:
            words.append(f"{size(value)} {word}")
    return ", ".join(words)
