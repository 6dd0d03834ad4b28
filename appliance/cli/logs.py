"""``appliance logs``: what all units and the kernel wrote, by time."""

from __future__ import annotations

import argparse

from appliance.cli.unit_logs import add_logs, run_logs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """As ``unit logs``, of all unless some are named."""
    add_logs(parser, of_host=True)


def run(args: argparse.Namespace) -> int:
    """Print them."""
    return run_logs(args)
