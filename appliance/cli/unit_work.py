"""``appliance unit start, stop, restart, plan, enable, disable, mask, unmask, wait, graph``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from appliance.cli.parser import a_duration
from appliance.errors import InputError, NotFoundError, NotRunningError, NotYetError, UnavailableError

SECONDS_MAX = 24 * 3600.0  # a oneshot may take its time
_ACTIONS = ("start", "stop", "restart")


def add_work(verb: argparse.ArgumentParser, name: str) -> None:
    """The arguments of one of these verbs."""
    if name == "wait":
        verb.add_argument("name", metavar="NAME")
        verb.add_argument("--for", dest="goal", default="ready", choices=("ready", "healthy", "exit", "stopped"))
        verb.add_argument("--timeout", type=a_duration, default="60s", help='at most so long, as "30s" (60s)')
        return
    if name == "graph":
        verb.add_argument("names", nargs="*", metavar="NAME", help="only these, and what they are tied to")
        verb.add_argument("--svg", action="store_true", help="a picture instead of DOT")
        return
    words = "[start|stop|restart] NAME" if name == "plan" else "NAME"
    verb.add_argument("names", nargs="+", metavar=words)
    if name in _ACTIONS:
        verb.add_argument("--no-wait", action="store_true", help="return as soon as it is under way")
    if name in ("enable", "disable", "mask"):
        verb.add_argument("--now", action="store_true", help="and start it" if name == "enable" else "and stop it")


def run_work(args: argparse.Namespace, directory: str) -> int:
    """One of these verbs."""
    match args.verb:
        case "plan":
            return _plan(args, directory)
        case "wait":
            return _wait(args)
        case "graph":
            return _graph(args, directory)
        case "start" | "stop" | "restart":
            return _transact(args)
        case _:
            return _enable(args, directory)


def _transact(args: argparse.Namespace) -> int:
    from appliance.cli.client import call
    from appliance.cli.render import show

    asked = {"verb": args.verb, "names": args.names, "wait": not args.no_wait}
    call(args.layout, "POST", "/v1/unit-transactions", asked, timeout=SECONDS_MAX)
    units = []
    for name in args.names:
        try:
            units.append(call(args.layout, "GET", path_of(name)))
        except NotFoundError:  # one that is forgotten as soon as it is at rest
            units.append({"name": name, "state": "stopped", "reason": "at rest, and forgotten"})
    show(args, units, lambda data: "\n".join(map(short_text, data)))
    return 0


def short_text(unit: dict[str, Any]) -> str:
    """One line: how it is, and why."""
    return f"{unit['name']}: {unit['state']}" + (f" ({unit['reason']})" if unit["reason"] else "")


def _plan(args: argparse.Namespace, directory: str) -> int:
    from appliance.cli.render import show

    verb, names = (args.names[0], args.names[1:]) if args.names[0] in _ACTIONS else ("", args.names)
    if not names:
        raise InputError(f"cannot plan: {verb} what? name a unit")
    found = _computed(args, directory, verb or "start", names, ask=bool(verb))
    steps = found["steps"]
    waves: dict[int, list[str]] = {}
    for step in steps:
        waves.setdefault(step["wave"], []).append(step["unit"])
    pulled = [step["unit"] for step in steps if step["unit"] not in names and step["action"] == "start"]
    report = {**found, "waves": list(waves.values()), "pulled_in": pulled}

    def text(_: Any) -> str:
        if not verb:
            lines = [f"{number}. {', '.join(wave)}" for number, wave in waves.items()]
        else:
            lines = [f"{step['wave']}. {step['action']} {step['unit']} ({step['why']})" for step in steps]
            lines += [f"=  {name}: nothing to do" for name in found["unchanged"]]
        return "\n".join([*lines, *(f"!  without {one['unit']}: {one['why']}" for one in found["left_out"])])

    show(args, report, text)
    return 0


def _computed(args: argparse.Namespace, directory: str, verb: str, names: Sequence[str], *, ask: bool) -> Any:
    """By the daemon, which knows what is up; without one, of the files alone, as if nothing were (or all, to stop)."""
    from dataclasses import asdict

    from appliance.cli.client import call
    from appliance.units import graph_of, plan, read_unit_files, standings_of

    if ask:
        asked = {"verb": verb, "names": list(names), "dry_run": True}
        try:
            return call(args.layout, "POST", "/v1/unit-transactions", asked)
        except NotRunningError:
            pass
    graph = graph_of(read_unit_files(directory, names))
    plain = [name.removesuffix(".service") or name for name in names]
    action: Any = verb
    try:
        return asdict(plan(action, plain, graph, standings_of(graph.names, up=verb != "start")))
    except InputError as exc:
        raise exc if ask else type(exc)(exc.message.replace("cannot start", "cannot plan", 1)) from None


def _wait(args: argparse.Namespace) -> int:
    from urllib.parse import quote

    from appliance.cli.client import call
    from appliance.cli.render import show
    from appliance.schema import parse_duration

    seconds = parse_duration(args.timeout)
    query = f"/wait?for={args.goal}&timeout={quote(args.timeout)}"
    found = call(args.layout, "GET", path_of(args.name, query), timeout=seconds + 60)
    show(args, found, lambda data: short_text(data["unit"]))
    if found["met"]:
        return 0
    if found["hopeless"]:
        raise UnavailableError(f"cannot wait for {args.name}: it will not be {args.goal}: {found['unit']['reason']}")
    raise NotYetError(f"cannot wait any longer for {args.name}: not {args.goal} within {args.timeout}")


def _graph(args: argparse.Namespace, directory: str) -> int:
    from urllib.parse import quote

    from appliance.cli.client import call

    if args.output == "json":
        from appliance.cli.render import show

        show(args, {"units": _tied(_ties(args, directory), args.names)}, str)
        return 0
    query = f"?format={'svg' if args.svg else 'dot'}&names={quote(','.join(args.names))}"
    try:
        text = call(args.layout, "GET", f"/v1/unit-graph{query}")
    except NotRunningError:
        from appliance.units import draw_files

        text = draw_files(directory, args.names, as_picture=args.svg)
    print(text, end="")
    return 0


_TIES = ("requires", "wants", "after", "before")


def _ties(args: argparse.Namespace, directory: str) -> dict[str, dict[str, Any]]:
    """Each unit with whom its file names; of the files alone where no node runs."""
    from appliance.cli.client import call

    try:
        units = call(args.layout, "GET", "/v1/units")["units"]
    except NotRunningError:
        from appliance.units import read_unit_files

        found = read_unit_files(directory).units
        units = [
            {"name": name, **{tie: getattr(unit.document.unit, tie) for tie in _TIES}} for name, unit in found.items()
        ]
    return {one["name"]: {"name": one["name"], **{tie: list(one[tie]) for tie in _TIES}} for one in units}


def _tied(units: dict[str, dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Those names and who is tied to them; all when none is named."""
    for name in names:
        if name not in units:
            raise NotFoundError(f"cannot draw {name}: there is no such unit")
    wanted = set(names)
    for name, one in units.items():
        others = {other for tie in _TIES for other in one[tie]}
        if name in names:
            wanted |= others
        elif others & set(names):
            wanted.add(name)
    return [one for name, one in sorted(units.items()) if name in wanted or not names]


def _enable(args: argparse.Namespace, directory: str) -> int:
    from appliance.cli.client import call

    now = bool(getattr(args, "now", False))
    body = {"now": True} if now else {}
    changed = []
    try:
        for name in args.names:
            call(args.layout, "POST", path_of(name, f"/{args.verb}"), body, timeout=SECONDS_MAX)
            changed.append(name)
    except NotRunningError as exc:
        if now:
            raise exc
        _enable_without_daemon(args, directory)
    if args.output == "json":
        import json

        print(json.dumps({"verb": args.verb, "names": args.names}))
    else:
        print("\n".join(f"{name}: {_SAID[args.verb]}" for name in args.names))
    return 0


_SAID = {"enable": "enabled", "disable": "disabled", "mask": "masked", "unmask": "unmasked"}


def _enable_without_daemon(args: argparse.Namespace, directory: str) -> None:
    from appliance.units import change_enablement, enabled_with, enablement_file, read_unit_files

    names = [name.removesuffix(".service") or name for name in args.names]
    found = read_unit_files(directory, names)
    names = enabled_with(found, names, args.verb)
    found = read_unit_files(directory, names)
    for name in names:
        if name not in found.units and name not in found.unreadable and args.verb != "unmask":
            raise NotFoundError(f"cannot {args.verb} {name}: no file {directory}/{name}.toml", where=directory)
    change_enablement(enablement_file(args.layout), args.verb, names)


def path_of(name: str, rest: str = "") -> str:
    """Of a unit in the API."""
    from urllib.parse import quote

    return f"/v1/units/{quote(name, safe='')}{rest}"


def tree_lines(processes: Sequence[dict[str, Any]]) -> list[str]:
    """Who started whom, as systemctl status draws it."""
    from appliance.cli.render import clean, cut

    known = {one["pid"] for one in processes}
    children: dict[int, list[dict[str, Any]]] = {}
    for one in processes:
        children.setdefault(one["parent"] if one["parent"] in known else 0, []).append(one)
    lines: list[str] = []

    def draw(parent: int, lead: str) -> None:
        some = children.get(parent, [])
        for one in some:
            last = one is some[-1]
            lines.append(f"{lead}{'└─' if last else '├─'}{one['pid']} {cut(clean(one['command']), 100)}")
            draw(one["pid"], f"{lead}{'  ' if last else '│ '}")

    draw(0, "")
    return lines
