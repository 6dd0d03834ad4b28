"""``appliance status``: one screen."""

from __future__ import annotations

import argparse

from appliance.cli.parser import a_duration

EXAMPLES = """Examples:
  appliance status
  appliance status -o json | jq .ready
  appliance status --wait 30s && echo serving     (exit code 6: not ready by then)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--wait", type=a_duration, metavar="TIME", help="wait so long for the node to be ready (30s, 5m)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the picture; exit code 3 when nothing runs here, 6 when --wait ends without readiness."""
    import json

    from appliance.cli.client import call_raw

    if args.wait:
        from appliance.cli.waiting import wait_ready
        from appliance.schema import parse_duration

        ready, raw = wait_ready(args.layout, parse_duration(args.wait))
    else:
        ready, raw = True, call_raw(args.layout, "GET", "/v1/status")[0]
    if args.output == "json":
        print(raw.decode().rstrip("\n"))
    else:
        from appliance.cli.screen import screen

        print(screen(json.loads(raw)))
    return 0 if ready else 6
