"""``appliance uninstall``: stop it and forget the service. Settings, units and state stay where they are."""

from __future__ import annotations

import argparse

from appliance.cli.install import add_shared_arguments, carry_out, service_name
from appliance.cli.service_file import is_at_work, plan_uninstall


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """As install."""
    parser.epilog = "Settings, units and state stay.\n\nExample:\n  appliance uninstall --dry-run"
    add_shared_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Do it, or print it."""
    plan = plan_uninstall(args.init, service_name(args), at_work=args.dry_run or is_at_work(args.init))
    return carry_out(args, plan, "uninstall")
