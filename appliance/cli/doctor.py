"""``appliance doctor``: can this host run everything, and what is missing."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None but the global ones."""
    parser.epilog = (
        "Exit code 1: something keeps it from running. Warnings are only said.\n\nExample:\n  appliance doctor"
    )


def run(args: argparse.Namespace) -> int:
    """Look at everything and say it."""
    from appliance.cli.checks import check_host
    from appliance.cli.render import paint, show, table

    checks = check_host(args.layout, args.config)
    bad = sum(one.state == "bad" for one in checks)
    warnings = sum(one.state == "warn" for one in checks)

    def text(data: Any) -> str:
        colours = {"ok": "green", "warn": "yellow", "bad": "red"}
        rows = [(one.name, paint(one.state, colours[one.state]), one.found) for one in checks]
        lines = [table(("check", "", "found"), rows)]
        lines += [f"{paint(one.name, colours[one.state])}: {one.remedy}" for one in checks if one.remedy]
        if bad:
            lines.append(f"this host cannot run it: {bad} to mend")
        else:
            told = f", with {warnings} warning{'s'[: warnings > 1]}" if warnings else ""
            lines.append(f"this host can run it{told}")
        return "\n".join(lines)

    show(args, {"ok": not bad, "checks": [asdict(one) for one in checks]}, text)
    return 1 if bad else 0
