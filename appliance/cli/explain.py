"""``appliance explain [NAME]...``: everything that is refused or waits, why, and what helps."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from appliance.errors import ApplianceError, NotFoundError

_EPILOG = """NAME is a unit, a service of the appliance, store, settings, files or update. Of one that is named
it is also said when nothing is the matter with it.

Examples:
  appliance explain
  appliance explain web
  appliance explain update -o json"""
_WELL = ("ready", "reloading", "exited")
_PASSED_BY_HAND = {"hold", "window", "strategy", "users", "loop"}  # gates that `update apply --now` passes
_Row = dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whom to explain."""
    parser.epilog = _EPILOG
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; without one: all that has something")


def run(args: argparse.Namespace) -> int:
    """0 whatever there is to say; 4 when there is nobody of that name."""
    from appliance.cli.client import call
    from appliance.cli.render import show
    from appliance.schema import did_you_mean

    status = call(args.layout, "GET", "/v1/status")
    try:
        gates = call(args.layout, "GET", "/v1/update/explain")
    except ApplianceError as error:
        gates = [{"name": "update", "open": False, "reason": error.message, "opens": ""}]
    rows = list(explained(status, gates, time.time()))
    for name in args.names:
        if name not in _names(status):
            guess = did_you_mean(name, sorted(_names(status)))
            raise NotFoundError(f"cannot explain {name}: no unit, service or part is called so{guess and '; ' + guess}")
        if not any(row["what"] == name for row in rows):
            rows.append(_row(name, "well", "nothing of it is refused or waits"))
    if args.names:
        rows = [row for row in rows if row["what"] in args.names]
    show(args, rows, _text)
    return 0


def explained(status: Mapping[str, Any], gates: Iterable[Mapping[str, Any]], now: float) -> Iterator[_Row]:
    """What is not as it could be, the gravest first. Pure."""
    settings = status.get("settings") or {}
    if settings.get("problem"):
        yield _row("settings", "refused", f"{settings['problem']}; the old ones are kept", "appliance config check")
    for service in status.get("services") or ():
        if service["state"] != "ready":
            yield _row(service["name"], service["state"], service["reason"])
    store = status.get("store") or {}
    if store.get("problem"):
        yield _row("store", str(store.get("state") or "closed"), store["problem"])
    for unit in status.get("units") or ():
        yield from _of_unit(unit, now)
    by_file = {unit["file"]: unit["name"] for unit in status.get("units") or () if unit.get("file")}
    for finding in status.get("findings") or ():
        where = f"{finding['file']}:{finding['line']}:{finding['column']}"
        path = f"{finding['path']}: " if finding.get("path") else ""
        is_warning = finding.get("severity") == "warning"
        helps = "" if is_warning else "appliance unit verify, or config check"
        what = by_file.get(finding["file"], "files")
        yield _row(what, "warning" if is_warning else "refused", f"{where}: {path}{finding['message']}", helps)
    yield from _of_update(status.get("update") or {}, gates)


def _of_unit(unit: Mapping[str, Any], now: float) -> Iterator[_Row]:
    name, state, reason = unit["name"], unit["state"], unit.get("reason") or ""
    if unit.get("changed"):
        yield _row(name, state, "its file was changed since it was loaded", "appliance unit reload")
    if unit.get("health") == "unhealthy":
        yield _row(name, "unhealthy", unit.get("health_reason") or "", f"appliance unit logs {name}")
    if unit.get("flapping"):
        why = f"{unit.get('restarts_lately')} restarts within 10 minutes: {unit.get('last_exit') or reason}"
        yield _row(name, "flapping", why, f"appliance unit logs {name}")
    elif state in ("failed", "backoff"):
        helps = f"appliance unit reset-failed {name}" if state == "failed" else f"appliance unit logs {name}"
        yield _row(name, state, reason or unit.get("last_exit") or "", helps)
    elif state not in (*_WELL, "stopped"):
        yield _row(name, state, reason)
    if state == "stopped":
        yield from _of_stopped(unit, now)


def _of_stopped(unit: Mapping[str, Any], now: float) -> Iterator[_Row]:
    name, enabled = unit["name"], unit.get("enabled", "enabled")
    if enabled == "masked":
        yield _row(name, "masked", "nothing may start it", f"appliance unit unmask {name}")
    elif unit.get("desired") == "down":
        yield _row(name, "stopped", "a person stopped it; that lasts", f"appliance unit start {name}")
    elif unit.get("triggers"):
        from appliance.cli.unit_timers import trigger_text

        for one in unit["triggers"]:
            yield _row(name, "waiting", trigger_text(one, now), f"appliance unit start {name}")
    elif enabled == "disabled":
        yield _row(name, "disabled", "it starts only when asked for", f"appliance unit enable --now {name}")
    elif reason := unit.get("reason") or unit.get("called"):
        yield _row(name, "stopped", reason, f"appliance unit start {name}")


def _of_update(update: Mapping[str, Any], gates: Iterable[Mapping[str, Any]]) -> Iterator[_Row]:
    if not update.get("repository"):
        yield _row("update", "off", update.get("reason") or update.get("problem") or "no repository is set")
        return
    if update.get("last_error"):
        times = f" ({update['failures']} times in a row)" if update.get("failures", 0) > 1 else ""
        retry = f"tried again at {update['next_check']}" if update.get("next_check") else ""
        yield _row("update", "failed", f"{update['last_error']}{times}", retry)
    for gate in gates:
        if not gate["open"]:
            opens = f"opens at {gate['opens']}" if gate.get("opens") else ""
            by_hand = "appliance update apply --now" if gate["name"] in _PASSED_BY_HAND else ""
            yield _row("update", f"{gate['name']} shut", gate["reason"], "; ".join(filter(None, (opens, by_hand))))
    for version in update.get("denied") or ():
        yield _row("update", "denied", f"{version} was rolled back here", f"appliance update apply --force {version}")


def _names(status: Mapping[str, Any]) -> set[str]:
    of_lists = {one["name"] for key in ("services", "units") for one in status.get(key) or ()}
    return of_lists | {"settings", "files", "store", "update"}


def _row(what: object, state: object, why: object, helps: str = "") -> _Row:
    return {"what": str(what), "state": str(state), "why": str(why), "helps": helps}


def _text(rows: list[_Row]) -> str:
    from appliance.cli.render import clean, paint, state

    lines = []
    for one in rows:
        lines.append(f"{paint(clean(one['what']), 'bold')}: {state(one['state'])}: {clean(one['why'])}".rstrip(": "))
        if one["helps"]:
            lines.append(f"    {paint('what helps:', 'grey')} {clean(one['helps'])}")
    return "\n".join(lines) or "nothing is refused, and nothing waits"
