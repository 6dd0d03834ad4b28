"""``appliance unit``: list, start, stop, restart, reload; status, files, logs; verify and plan without a daemon."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from appliance.cli.unit_work import path_of
from appliance.errors import ApplianceError

_HANDLING = {
    "kill": "send a signal to a unit's processes",
    "try-restart": "restart units, but only those that are up",
    "reload-or-restart": "reload units that can, restart the others",
    "clean": "remove directories of units that are down: runtime and cache, or --what",
    "freeze": "stop all processes of units where they are",
    "thaw": "let the processes of frozen units go on",
    "is-active": "whether units are up: active, activating, inactive, failed, ...; exit code 0 if one is, else 3",
    "is-failed": "whether units failed; exit code 0 if one did, else 1",
    "is-enabled": "whether units start by themselves: enabled, disabled, masked, static; exit code 0 or 1",
    "show": "facts about a unit as KEY=VALUE, by systemd's names",
}
_VERBS = {
    "list": "every unit and how it is",
    "status": "one unit in full, with its last lines",
    "start": "start units, and what they require and want; waits until they are ready",
    "stop": "stop units, and those that require them; they stay down until somebody starts them",
    "restart": "stop and start units",
    "reset-failed": "forget that units failed, and try them again",
    "reload": "read the unit files anew: shows what would start, stop, restart, then does it",
    "cat": "the unit's file",
    "logs": "what units wrote (all: appliance logs)",
    "verify": "check unit files, without a daemon; exit code 2 when one is not valid",
    "convert": "turn unit files of systemd into ours; what has no equal becomes a comment",
    "security": "how exposed units are, and by what, without a daemon",
    "plan": "what a start, stop or restart would do, and in which order; without a daemon, by the files alone",
    "enable": "let units start by themselves; --now starts them",
    "disable": "let units start only when asked for; --now stops them",
    "mask": "let nothing start units",
    "unmask": "undo mask",
    "edit": "edit a unit's file; it is checked before it is saved",
    "wait": "wait until a unit is ready, healthy, over, stopped; exit code 6 when the time is over",
    "run": "run a command as a unit, with all fences; its exit code is ours",
    **_HANDLING,
    "graph": "how units are tied to each other, as DOT (or --svg)",
    "top": "what each unit uses, live",
}
_EXAMPLES = """Examples:
  appliance unit list
  appliance unit list --timers
  appliance unit status web
  appliance unit start web db
  appliance unit stop web
  appliance unit restart web
  appliance unit reload --dry-run
  appliance unit logs -f -n 20 web
  appliance unit logs --since 1h web
  appliance unit verify ./web.toml /lib/systemd/system/nginx.service
  appliance unit convert --write /lib/systemd/system/nginx.service
  appliance unit security web
  appliance unit plan stop web
  appliance unit enable --now web@1
  appliance unit wait web --for healthy --timeout 30s
  appliance unit kill -s SIGUSR1 web
  appliance unit is-active web
  appliance unit run -p resources.memory_max=1G -- make test
  appliance unit graph | dot -Tsvg"""
_WORK = ("start", "stop", "restart", "plan", "enable", "disable", "mask", "unmask", "wait", "graph")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, words in _VERBS.items():
        verb = verbs.add_parser(name, help=words, description=words)
        if name in _WORK:
            from appliance.cli.unit_work import add_work

            add_work(verb, name)
        elif name in _HANDLING:
            from appliance.cli.unit_handling import add_handling

            add_handling(verb, name)
        elif name == "run":
            from appliance.cli.unit_run import add_run

            add_run(verb)
        elif name == "convert":
            from appliance.cli.unit_convert import add_convert

            add_convert(verb)
        elif name == "edit":
            from appliance.cli.unit_edit import add_edit

            add_edit(verb)
        elif name == "top":
            verb.add_argument("--once", action="store_true", help="one table, and done")
            verb.add_argument("--interval", type=float, default=2.0, help="seconds between two tables (2)")
        elif name == "list":
            verb.add_argument("patterns", nargs="*", metavar="PATTERN", help='only such names, as "web*"')
            verb.add_argument("--state", default="", help="only units in these states, with commas between")
            verb.add_argument(
                "-t", "--type", default="", help="only service, target, oneshot, timer, socket, path, ..."
            )
            verb.add_argument("--failed", action="store_true", help="only failed ones")
        elif name == "reset-failed":
            verb.add_argument("names", nargs="+", metavar="NAME")
        elif name == "security":
            verb.add_argument("names", nargs="*", metavar="NAME", help="these in full; without one, all in short")
        elif name == "logs":
            from appliance.cli.unit_logs import add_logs

            add_logs(verb)
        elif name in ("status", "cat"):
            verb.add_argument("name", metavar="NAME")
        elif name == "verify":
            verb.add_argument("files", nargs="*", metavar="FILE", help="these, instead of the units directory")
        if name == "reload":
            verb.add_argument(
                "name", nargs="?", metavar="NAME", help="ask this unit to read its own configuration anew"
            )
            verb.add_argument("--dry-run", action="store_true", help="only show")
        if name == "list":
            verb.add_argument("--timers", action="store_true", help="when each timer rang last and rings next")


def run(args: argparse.Namespace) -> int:
    """``list`` when no verb is given."""
    verb = args.verb or "list"
    if verb in _WORK:
        from appliance.cli.unit_work import run_work

        return run_work(args, _directory(args))
    if verb in _HANDLING:
        from appliance.cli.unit_handling import run_handling

        return run_handling(args)
    if verb == "run":
        from appliance.cli.unit_run import run_run

        return run_run(args)
    if verb == "convert":
        from appliance.cli.unit_convert import run_convert

        return run_convert(args, _directory(args))
    if verb == "edit":
        from appliance.cli.unit_edit import run_edit

        return run_edit(args, _directory(args))
    if verb == "top":
        from appliance.cli.unit_top import run_top

        return run_top(args)
    if verb == "logs":
        from appliance.cli.unit_logs import run_logs

        return run_logs(args)
    if verb == "status":
        from appliance.cli import unit_status

        return unit_status.run(args)
    if verb == "reset-failed":
        return _ask(args, verb)
    if verb == "security":
        from appliance.cli import unit_security

        return unit_security.run(args, _directory(args))
    acts = {
        "list": _list,
        "reload": _reload,
        "cat": _cat,
        "verify": _verify,
    }
    return acts[verb](args)


def _list(args: argparse.Namespace) -> int:
    if getattr(args, "timers", False):
        from appliance.cli import unit_timers

        return unit_timers.run(args)
    from appliance.cli.client import call
    from appliance.cli.render import show

    filters = _filters(args)
    none = "no such units" if filters else "no units"
    show(args, call(args.layout, "GET", f"/v1/units{filters}"), lambda answer: _list_text(answer, none))
    return 0


def _filters(args: argparse.Namespace) -> str:
    from urllib.parse import urlencode

    states = [getattr(args, "state", ""), "failed" if getattr(args, "failed", False) else ""]
    asked = {
        "state": ",".join(filter(None, states)), "type": getattr(args, "type", ""),
        "pattern": ",".join(getattr(args, "patterns", ())),
    }  # fmt: skip
    words = urlencode({key: value for key, value in asked.items() if value}, safe=",*?")
    return f"?{words}" if words else ""


def _list_text(answer: dict[str, Any], none: str) -> str:
    from appliance.cli.render import age, state, table

    rows = [
        (
            one["name"], state(one["state"]), age(one["seconds"]), one["pid"], one["restarts"] or "", one["health"],
            _remark(one),
        )
        for one in answer["units"]
    ]  # fmt: skip
    text = table(("unit", "state", "for", "pid", "restarts", "health", "about"), rows) if rows else none
    return "\n".join([text, *(_finding_text(one) for one in answer.get("findings", ()))])


def _remark(unit: dict[str, Any]) -> str:
    if unit.get("flapping"):
        return f"flapping, {unit['restarts_lately']} restarts within 10 minutes: {unit['last_exit'] or unit['reason']}"
    if unit["state"] in ("ready", "reloading", "exited") and unit["health"] != "unhealthy":
        changed = " (its file was changed: unit reload)" if unit["changed"] else ""
        return f"{unit['description']}{changed}"
    return str((unit["health_reason"] if unit["health"] == "unhealthy" else unit["reason"]) or unit["description"])


def _finding_text(finding: dict[str, Any]) -> str:
    from appliance.schema import Finding

    return str(Finding(**{name: finding[name] for name in Finding.__dataclass_fields__ if name in finding}))


def _ask(args: argparse.Namespace, verb: str) -> int:
    from appliance.cli.client import call
    from appliance.cli.render import show
    from appliance.cli.unit_work import short_text

    units = [call(args.layout, "POST", path_of(name, f"/{verb}"), {}, timeout=60.0) for name in args.names]
    show(args, units, lambda data: "\n".join(map(short_text, data)))
    return 0


def _reload(args: argparse.Namespace) -> int:
    from appliance.cli.client import call
    from appliance.cli.render import show

    if args.name:
        show(
            args, call(args.layout, "POST", path_of(args.name, "/reload"), {}), lambda unit: f"{unit['name']}: reloaded"
        )
        return 0
    plan = call(args.layout, "POST", "/v1/units/reload", {"dry_run": True})
    if args.output == "table":
        print(_reload_text(plan))
    if not args.dry_run:
        plan = call(args.layout, "POST", "/v1/units/reload", {"dry_run": False})
    if args.output == "json":
        show(args, plan, str)
    return 2 if any(one.get("severity") == "error" for one in plan["findings"]) else 0


def _reload_text(plan: dict[str, Any]) -> str:
    from appliance.cli.render import paint

    signs = (("start", "+", "green"), ("stop", "-", "red"), ("restart", "~", "yellow"), ("changed", "=", "grey"))
    lines = [
        paint(
            f"{sign} {word} {name}" if word != "changed" else f"{sign} {name}: not running, its new file is loaded",
            colour,
        )
        for word, sign, colour in signs
        for name in plan[word]
    ]
    lines += [
        f"    {one['unit']}: {one['key']}: {one['before'] or 'not set'} -> {one['after'] or 'not set'}"
        for one in plan.get("keys", ())
    ]
    lines += [_finding_text(one) for one in plan["findings"]]
    return "\n".join([*lines, f"{len(plan['unchanged'])} unchanged"])


def _cat(args: argparse.Namespace) -> int:
    from appliance.cli.client import call
    from appliance.cli.render import show

    text = call(args.layout, "GET", path_of(args.name, "/file"), headers={"Accept": "text/plain"})
    show(args, text, str)
    return 0


def _directory(args: argparse.Namespace) -> str:
    from appliance import settings

    try:
        return settings.load(args.layout, args.config).require().units.directory or args.layout.units
    except ApplianceError:  # `config check` is there for that
        return str(args.layout.units)


def _verify(args: argparse.Namespace) -> int:
    from appliance.cli.render import show
    from appliance.units import graph_findings, graph_of, read_unit_file, read_unit_files

    if args.files:
        read = [read_unit_file(path) for path in args.files]
        findings: Sequence[Any] = [finding for _, _, found in read for finding in found]
        names = [name for name, _, _ in read]
    else:
        found = read_unit_files(_directory(args))
        graph = graph_of(found)
        findings = [*found.findings, *graph_findings(graph, found.units)]
        names = [*found.units, *found.unreadable]
    errors = sum(one.severity == "error" for one in findings)
    report = {"ok": not errors, "units": sorted(names), "findings": [asdict(one) for one in findings]}

    def text(_: Any) -> str:
        count = f"{len(names)} unit file{'' if len(names) == 1 else 's'}"
        return "\n".join([*map(str, findings), f"{count}, {errors or 'no'} error{'' if errors == 1 else 's'}"])

    show(args, report, text)
    return 2 if errors else 0
