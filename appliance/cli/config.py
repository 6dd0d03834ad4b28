"""``appliance config``: check, show, reload the settings."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    parser.epilog = "Examples:\n  appliance config check\n  appliance config show --running"
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    check = verbs.add_parser(
        "check",
        help="every finding with file:line:column; exit code 2 when there is one",
        description="Check the settings as `run` would read them, or each FILE by itself.",
        epilog="Examples:\n  appliance config check\n  appliance config check ./new.toml && mv new.toml ...",
    )
    check.add_argument("file", nargs="*", metavar="FILE", help="instead of the installed ones, each by itself")
    show = verbs.add_parser(
        "show",
        help="the settings with all defaults",
        description="Show the settings as `run` would read them, defaults included.",
        epilog="Examples:\n  appliance config show\n  appliance config show --running -o json",
    )
    show.add_argument("--running", action="store_true", help="those in force in the running appliance")
    verbs.add_parser(
        "reload",
        help="tell the running appliance to read its settings anew (as SIGHUP does)",
        description="A file with errors changes nothing: the old settings are kept.",
        epilog="Example:\n  appliance config check && appliance config reload",
    )


def run(args: argparse.Namespace) -> int:
    """Dispatch."""
    return {"check": _check, "show": _show, "reload": _reload}[args.verb](args)


def _check(args: argparse.Namespace) -> int:
    from appliance import settings
    from appliance.cli.render import show
    from appliance.host import files

    if args.file:
        names = tuple(args.file)
        findings = tuple(one for name in names for one in settings.check(files.read_text(name), name))
    else:
        loaded = settings.load(args.layout, args.config)
        names, findings = loaded.files, loaded.findings
    errors = sum(one.severity == "error" for one in findings)
    report = {"ok": not errors, "files": list(names), "findings": [asdict(one) for one in findings]}

    def text(data: Any) -> str:
        nothing = "" if findings else f"no {args.layout.settings_file}: all defaults"
        read = ", ".join(names) or args.config or nothing or args.layout.settings_file
        last = f"{read}: {errors or 'no'} error{'' if errors == 1 else 's'}"
        return "\n".join([*map(str, findings), last])

    show(args, report, text)
    return 2 if errors else 0


def _show(args: argparse.Namespace) -> int:
    from appliance.cli.render import show
    from appliance.schema import to_toml

    if args.running:
        from appliance.cli.client import call

        document = call(args.layout, "GET", "/v1/settings")["settings"]
    else:
        from appliance import settings

        document = settings.as_document(settings.load(args.layout, args.config).require())
    show(args, document, to_toml)
    return 0


def _reload(args: argparse.Namespace) -> int:
    from appliance.cli.client import call
    from appliance.cli.render import show

    answer = call(args.layout, "POST", "/v1/reload", {})
    refused = (answer.get("settings") or {}).get("problem")
    outcome = answer.get("reload") or {}
    problems = outcome.get("problems") or []

    def text(_: Any) -> str:
        if refused:
            return f"not used, the old settings are kept: {refused}"
        later = outcome.get("restart_needed") or []
        lines = [f"{line} (from the next start on)" if line in later else line for line in outcome.get("changed") or []]
        return "\n".join([*lines, *(f"problem: {one}" for one in problems), "settings reloaded"])

    show(args, answer, text)
    return 2 if refused else 1 if problems else 0
