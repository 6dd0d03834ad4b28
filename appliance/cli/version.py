"""``appliance version``: which version this is. The bare word is answered by ``__main__`` already."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None but the global ones."""
    parser.epilog = "Example:\n  appliance version -o json"


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from appliance.cli.render import show
    from appliance.version import version

    show(args, {"version": version()}, lambda data: f"appliance {data['version']}")
    return 0
