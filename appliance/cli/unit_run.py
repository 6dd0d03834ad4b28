"""``appliance unit run -- COMMAND``: a command as a transient unit, with every fence, its output and its exit code."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import suppress
from typing import Any

from appliance.errors import ApplianceError, InputError

_EXAMPLES = """Examples:
  appliance unit run -- make test
  appliance unit run --unit nightly -p resources.memory_max=1G -p sandbox.private_tmp=true -- /usr/local/bin/job
  appliance unit run --detach --user daemon -- sleep 1h"""


def add_run(verb: argparse.ArgumentParser) -> None:
    """Its arguments."""
    verb.epilog = _EXAMPLES
    verb.add_argument("--unit", default="", metavar="NAME", help="the unit's name (run-...)")
    verb.add_argument("-p", "--property", action="append", default=[], metavar="TABLE.KEY=VALUE",
                      help="any key of a unit file; TABLE may be left out for [service]")  # fmt: skip
    verb.add_argument("--user", default="", help="as whom")
    verb.add_argument("--directory", default="", help="where (/)")
    verb.add_argument("-E", "--setenv", action="append", default=[], metavar="NAME=VALUE", help="into its environment")
    verb.add_argument("--description", default="", help="what it is, for people")
    verb.add_argument("--detach", action="store_true", help="do not wait; print its name")
    verb.add_argument("command", nargs="+", metavar="COMMAND")


def run_run(args: argparse.Namespace) -> int:
    """Its exit code is ours; 128 and the signal's number when a signal killed it."""
    from appliance.cli.client import call, stream
    from appliance.cli.unit_work import path_of

    body = {"unit": tables_of(args), "name": args.unit, "detach": args.detach}
    if args.detach:
        unit = call(args.layout, "POST", "/v1/unit-runs", body)
        print(json.dumps(unit) if args.output == "json" else unit["name"])
        return 0
    name = ""
    try:
        for line in stream(args.layout, "/v1/unit-runs", method="POST", body=body, timeout=None):
            said = json.loads(line)
            if isinstance(said.get("unit"), dict):  # a line says which unit it is of, too
                name = said["unit"]["name"]
                print(f"running as unit {name}", file=sys.stderr)
            elif isinstance(said.get("ended"), dict):
                return _code(said["ended"])
            elif args.output == "json":
                print(line.decode(errors="replace"), flush=True)
            else:
                print(said["text"], flush=True)
    except KeyboardInterrupt:
        if name:
            with suppress(ApplianceError):  # it may be over and forgotten
                call(args.layout, "POST", path_of(name, "/stop"), {}, timeout=600.0)
        return 130
    print(f"appliance: {name} runs on, but nobody tells any more how: the appliance stopped", file=sys.stderr)
    return 1


def tables_of(args: argparse.Namespace) -> dict[str, Any]:
    """The unit file that the arguments mean. Raises InputError."""
    import tomli

    service: dict[str, Any] = {"command": args.command, "type": "exec"}
    data: dict[str, Any] = {"unit": {}, "service": service, "restart": {"policy": "no"}}
    if args.description:
        data["unit"]["description"] = args.description
    for key, value in (("user", args.user), ("working_directory", args.directory)):
        if value:
            service[key] = value
    for word in args.setenv:
        variable, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"cannot use --setenv {word}: expected NAME=VALUE")
        service.setdefault("environment", {})[variable] = value
    for word in args.property:
        path, equals, value = word.partition("=")
        if not equals or not path:
            raise InputError(f"cannot use --property {word}: expected TABLE.KEY=VALUE")
        *tables, key = path.split(".") if "." in path else ("service", path)
        try:
            parsed = tomli.loads(f"value = {value}")["value"]
        except (tomli.TOMLDecodeError, ValueError):
            parsed = value  # a bare word: 1G, daemon
        inner = data
        for table in tables:
            inner = inner.setdefault(table, {})
            if not isinstance(inner, dict):
                raise InputError(f"cannot use --property {word}: {table} is no table")
        inner[key] = parsed
    return data


def _code(ended: dict[str, Any]) -> int:
    exit_ = ended.get("exit") or {}
    if str(ended.get("last_exit")).startswith("cannot "):  # its program never ran, so it has said nothing
        print(f"appliance: {ended['name']}: {ended['last_exit']}", file=sys.stderr)
    if exit_.get("signal"):
        with suppress(ValueError):
            return 128 + signal.Signals[exit_["signal"]].value if exit_["signal"] in signal.Signals.__members__ else 1
    if exit_.get("code"):
        return int(exit_["code"])
    if ended["state"] == "failed":
        print(f"appliance: {ended['name']}: {ended['reason']}", file=sys.stderr)
        return 1
    return 0
