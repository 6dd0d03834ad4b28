"""``appliance update-worker``: what the daemon starts to ask a repository. Not for people."""

from __future__ import annotations

import argparse
import json
import sys
import time

from appliance.update import KINDS, PRODUCT, Product, Task, parse_transport, work

HIDDEN = True
_LOCK_SECONDS = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the daemon says; the repository comes by standard input."""
    parser.add_argument("verb", choices=("refresh", "download"))
    parser.add_argument("--channel", required=True)
    parser.add_argument("--path", default="")
    parser.add_argument("--product", default=PRODUCT)
    parser.add_argument("--kind", default="binary", choices=KINDS)
    parser.add_argument("--trust-root", default="")


def run(args: argparse.Namespace) -> int:
    """One JSON object on stdout."""
    transport = parse_transport(sys.stdin.readline().strip())
    task = Task(
        layout=args.layout, verb=args.verb, transport=transport, channel=args.channel, path=args.path,
        product=Product(args.product, args.kind), trust_root=args.trust_root,
    )  # fmt: skip
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        answer = work(task)
        # A worker of a daemon that was killed ends with its next piece; until then it holds the lock.
        if answer.get("kind") != "conflict" or time.monotonic() > until:
            break
        time.sleep(0.1)
    print(json.dumps(answer), flush=True)
    return 0 if answer["event"] != "error" else 1
