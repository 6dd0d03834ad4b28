"""``appliance reboot``: stop everything in order, then restart the machine. Our own OS image only."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""
    parser.epilog = "On another OS its own init does this; there it is refused.\n\nExample:\n  appliance reboot"


def run(args: argparse.Namespace) -> int:
    """Ask for it; the end follows."""
    from appliance.cli.client import call
    from appliance.cli.render import show

    answer = call(args.layout, "POST", "/v1/reboot", {})
    show(args, answer, lambda _: "units and services stop in order, then the machine restarts")
    return 0
