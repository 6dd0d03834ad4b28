"""What a person sees while an update goes on: one line written over on a terminal, lines elsewhere, and JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

_POLL_SECONDS = 0.5
_CLEAR = "\r\x1b[K"


class Reporter:
    """Tells stderr, and with ``--progress-fd`` a descriptor: each change once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._table = args.output == "table"
        self._terminal = sys.stderr.isatty()
        self._fd: int | None = getattr(args, "progress_fd", None)
        self._said = ""
        self._sent: dict[str, Any] = {}
        self._open_line = False

    def report(self, picture: dict[str, Any]) -> None:
        """What ``/v1/update`` answers."""
        progress = picture.get("progress") or {}
        self.say(
            state_text(picture, detail=self._terminal),
            {
                "event": "state", "state": picture["state"], "version": (picture.get("available") or {}).get("version"),
                "running": picture["version"], "missing": picture["health"], **progress,
            },
        )  # fmt: skip

    def say(self, text: str, event: dict[str, Any]) -> None:
        """In words and in JSON."""
        if self._fd is not None and event != self._sent:
            self._sent = event
            with contextlib.suppress(OSError):  # nobody reads any more: the update goes on
                os.write(self._fd, json.dumps(event).encode() + b"\n")
        if not self._table or text in ("", self._said):
            return
        self._said = text
        if self._terminal:
            self._open_line = True
            print(_CLEAR + text, end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self, event: dict[str, Any] | None = None) -> None:
        """The line is left as it is."""
        if event is not None and self._fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._fd, json.dumps(event).encode() + b"\n")
        if self._open_line:
            print(_CLEAR, end="", file=sys.stderr, flush=True)
            self._open_line = False


@contextlib.contextmanager
def watched(args: argparse.Namespace, reporter: Reporter) -> Iterator[None]:
    """Report beside a call that takes long."""
    from appliance.cli.client import call
    from appliance.errors import ApplianceError

    over = threading.Event()
    path = "/v1/update" + (f"?product={args.product}" if args.product else "")

    def look() -> None:
        while not over.wait(_POLL_SECONDS):
            with contextlib.suppress(ApplianceError):
                reporter.report(call(args.layout, "GET", path, timeout=10.0))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        reporter.end()


def state_text(picture: dict[str, Any], *, detail: bool) -> str:
    """One line. Without ``detail`` it changes only with the state, and with each tenth of a download."""
    state, version = picture["state"], (picture.get("available") or {}).get("version", "")
    progress = picture.get("progress")
    if state == "downloading" and progress:
        if detail:
            return f"downloading {version}: {progress_text(progress)}"
        tenths = 10 * progress["present_bytes"] // max(1, progress["total_bytes"])
        return f"downloading {version}: {10 * tenths} %"
    if state == "trial":
        missing = "; ".join(picture["health"]) or "settling"
        return f"{picture['version']} is on trial: {missing}"
    if state == "idle":
        return ""  # what was asked for has not begun, or is over
    return f"{state} {version}".strip()


def progress_text(progress: dict[str, Any]) -> str:
    """Share, bytes of the network, rate, time left."""
    from appliance.cli.render import size

    parts = [f"{100 * progress['present_bytes'] // max(1, progress['total_bytes'])} % here"]
    if progress["to_fetch_bytes"]:
        parts.append(f"{size(progress['fetched_bytes'])} of {size(progress['to_fetch_bytes'])} fetched")
    if progress["bytes_per_second"]:
        parts.append(f"{size(progress['bytes_per_second'])}/s")
    if progress["seconds_left"]:
        seconds = round(progress["seconds_left"])
        parts.append(f"{seconds // 60}:{seconds % 60:02} left")
    if progress["trouble"]:
        parts.append(f"tried again: {progress['trouble']}")
    if progress["step"] not in ("downloading", "fetched"):
        parts.insert(0, progress["step"])
    return ", ".join(parts)
