"""``appliance run``: the node itself, in the foreground. What init starts; what PID 1 is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

_EPILOG = """SIGTERM or SIGINT stop units and services in order, a second SIGINT at once; SIGHUP reads the
settings anew. With NOTIFY_SOCKET set it tells its parent when it is ready (sd_notify).

Examples:
  appliance run
  appliance --root ./here run        # everything below ./here: no root needed
  kill -HUP $(cat /run/appliance/lock)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None but the global ones."""
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Until it is stopped; returns its exit code."""
    from appliance.host import known_texts, process_self
    from appliance.host.signals import Signals

    signals = Signals()
    signals.take_over()  # before trio is loaded: a signal of the first 100 ms waits its turn
    process_self.pause_garbage_collection()
    process_self.know_libraries()
    known_texts.use()
    from appliance.lives import run as run_node

    return run_node(args.layout, args.config, signals)
