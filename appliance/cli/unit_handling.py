"""``appliance unit kill, clean, freeze, thaw, try-restart, reload-or-restart, is-active, is-failed, is-enabled, show``.

The questions answer in systemd's words and with its exit codes, for scripts that were written for systemctl.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from appliance.errors import NotFoundError

_ASKED = ("is-active", "is-failed", "is-enabled")
_ACTIVE = {
    "ready": "active", "reloading": "reloading", "exited": "active", "starting": "activating",
    "waiting": "activating", "backoff": "activating", "stopping": "deactivating", "failed": "failed",
}  # fmt: skip
_SUB = {
    "ready": "running", "reloading": "reload", "exited": "exited", "starting": "start", "waiting": "start",
    "backoff": "auto-restart", "stopping": "stop", "failed": "failed",
}  # fmt: skip
_KINDS = (".service", ".timer", ".socket", ".path", ".target")
_ACTIONS_SECONDS = 24 * 3600.0


def add_handling(verb: argparse.ArgumentParser, name: str) -> None:
    """The arguments of one of these verbs."""
    if name == "show":
        verb.add_argument("name", metavar="NAME")
        verb.add_argument(
            "-p", "--property", action="append", default=[], metavar="KEY", help="only these, with commas between"
        )
        verb.add_argument("-P", dest="values", default="", metavar="KEY", help="as -p KEY --value")
        verb.add_argument("--value", action="store_true", help="only the value")
        return
    verb.add_argument("names", nargs="+", metavar="NAME")
    if name == "kill":
        verb.add_argument("-s", "--signal", default="SIGTERM", help="which one (SIGTERM)")
        verb.add_argument(
            "--kill-whom", "--kill-who", dest="whom", default="all", choices=("all", "main", "control"), help="(all)"
        )
    elif name == "clean":
        verb.add_argument(
            "--what", default="", help="runtime, state, cache, logs, configuration, all; several with commas"
        )
    elif name in _ASKED:
        verb.add_argument("-q", "--quiet", action="store_true", help="only the exit code")


def run_handling(args: argparse.Namespace) -> int:
    """One of these verbs."""
    if args.verb in _ASKED:
        return _ask(args)
    if args.verb == "show":
        return _show(args)
    if args.verb == "clean":
        return _clean(args)
    from appliance.cli.client import call
    from appliance.cli.render import show
    from appliance.cli.unit_work import path_of, short_text

    body = {"signal": args.signal, "whom": args.whom} if args.verb == "kill" else {}
    units = [
        call(args.layout, "POST", path_of(name, f"/{args.verb}"), body, timeout=_ACTIONS_SECONDS) for name in args.names
    ]
    show(args, units, lambda data: "\n".join(f"{short_text(one)}{', frozen' * one['frozen']}" for one in data))
    return 0


def _clean(args: argparse.Namespace) -> int:
    from appliance.cli.client import call
    from appliance.cli.render import show
    from appliance.cli.unit_work import path_of

    body = {"what": [word.strip() for word in args.what.split(",") if word.strip()]}
    gone = [path for name in args.names for path in call(args.layout, "POST", path_of(name, "/clean"), body)["removed"]]
    show(args, {"removed": gone}, lambda data: "\n".join(f"removed {path}" for path in data["removed"]) or "nothing")
    return 0


def _picture(args: argparse.Namespace, name: str) -> dict[str, Any] | None:
    from appliance.cli.client import call
    from appliance.cli.unit_work import path_of

    try:
        found: dict[str, Any] = call(args.layout, "GET", path_of(name))
    except NotFoundError:
        return None
    return found


def active_word(unit: Mapping[str, Any] | None) -> str:
    """As systemd's ActiveState."""
    if unit is None:
        return "inactive"
    if _has_failed_trigger(unit):
        return "failed"
    if unit["state"] == "exited" and not unit.get("lasts", True):
        return "inactive"
    return _ACTIVE.get(unit["state"], "inactive")


def _has_failed_trigger(unit: Mapping[str, Any]) -> bool:
    """Of a unit that is nothing but that: it was called too often, and has given up."""
    own = [one for one in unit.get("triggers", ()) if one["name"] == unit["name"]]
    return unit["type"] == "target" and any(one["state"] == "failed" for one in own)


def _ask(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    found = {name: _picture(args, name) for name in args.names}
    if args.verb == "is-enabled":
        words = {name: "not-found" if unit is None else str(unit["enabled"]) for name, unit in found.items()}
        good = any(word in ("enabled", "static", "transient") for word in words.values())
    else:
        words = {name: active_word(unit) for name, unit in found.items()}
        wanted = ("failed",) if args.verb == "is-failed" else ("active", "reloading")
        good = any(word in wanted for word in words.values())
    if not args.quiet:
        show(args, words, lambda data: "\n".join(data.values()))
    if good:
        return 0
    if args.verb == "is-active":
        return 4 if all(unit is None for unit in found.values()) else 3
    return 1


def _show(args: argparse.Namespace) -> int:
    from appliance.cli.render import clean, show

    wanted = [word for one in (*args.property, args.values) for word in one.split(",") if word]
    facts = facts_of(args.name, _picture(args, args.name))
    facts = {key: facts.get(key, "") for key in wanted} if wanted else facts
    bare = args.value or bool(args.values)
    show(
        args,
        facts,
        lambda data: "\n".join(clean(value) if bare else f"{key}={clean(value)}" for key, value in data.items()),
    )
    return 0


def facts_of(name: str, unit: Mapping[str, Any] | None) -> dict[str, str]:
    """As ``systemctl show``."""
    whole = _whole_name(name)
    if unit is None:
        return {"Id": whole, "LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
    usage, end, active = unit.get("usage") or {}, unit.get("exit") or {}, active_word(unit)
    named = _whole_name(unit["name"])
    code = {"signal": end.get("signal")} if end.get("signal") else {}
    facts: dict[str, Any] = {
        "Id": named,
        "Description": unit["description"] or named,
        "LoadState": "masked" if unit["enabled"] == "masked" else "loaded",
        "ActiveState": active,
        "SubState": {"inactive": "dead", "failed": "failed"}.get(active) or _SUB[unit["state"]],
        "UnitFileState": unit["enabled"],
        "FragmentPath": unit["file"],
        "DropInPaths": " ".join(unit["drop_ins"]),
        "NeedDaemonReload": "yes" if unit["changed"] else "no",
        "Type": unit["type"],
        "MainPID": unit["pid"] or 0,
        "ControlPID": unit["control_pid"] or 0,
        "NRestarts": unit["restarts"],
        "Result": "trigger-limit-hit" if _has_failed_trigger(unit) else end.get("result", "success"),
        "ExecMainCode": (2 if code else 1) if code or end.get("code") is not None else 0,
        "ExecMainStatus": _signal_number(end["signal"]) if code else end.get("code") or 0,
        "StatusText": unit["status_text"],
        "StatusErrno": unit["error_number"],
        "InvocationID": unit["invocation"],
        "NFileDescriptorStore": unit["stored_descriptors"],
        "FreezerState": "frozen" if unit["frozen"] else "running",
        "MemoryCurrent": _or_not_set(usage.get("memory_bytes")),
        "TasksCurrent": _or_not_set(usage.get("tasks")),
        "CPUUsageNSec": _or_not_set(usage.get("cpu_seconds"), 1e9),
        **{key: " ".join(map(_whole_name, unit[key.lower()])) for key in ("Requires", "Wants", "After", "Before")},
        "TriggeredBy": " ".join(one["name"] for one in unit["triggers"] if one["name"] != unit["name"]),
    }
    return {key: str(value) for key, value in facts.items()}


def _whole_name(name: str) -> str:
    return name if name.endswith(_KINDS) else f"{name}.service"


def _signal_number(name: str) -> int:
    import signal

    return int(getattr(signal, name, 0))


def _or_not_set(value: float | None, factor: float = 1.0) -> str:
    return "[not set]" if value is None else str(round(value * factor))
