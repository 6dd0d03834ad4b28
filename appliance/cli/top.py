"""``appliance top``: the status screen, live. Redrawn on events; between them only the ages move."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import sys
import termios
import textwrap
import threading
import time
import tty
from collections.abc import Iterator

from appliance.cli.client import call_raw, stream
from appliance.cli.render import cut, paint
from appliance.cli.screen import screen
from appliance.errors import ApplianceError, InputError
from appliance.host.layout import Layout

_TICK_SECONDS = 1.0
_GATHER_SECONDS = 0.1  # events that come together make one look
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the terminal's other screen, cursor hidden


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None but the global ones."""
    parser.epilog = "Keys:\n  q  quit\n\nExample:\n  appliance top"


def run(args: argparse.Namespace) -> int:
    """Draw until q or Ctrl-C."""
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise InputError("cannot draw: this is not a terminal; use `appliance status`")
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    threading.Thread(target=_listen, args=(args.layout, wake_write), daemon=True).start()
    with _drawing():
        text, taken = _look(args.layout), time.monotonic()
        while True:
            _draw(text, time.monotonic() - taken)
            ready, _, _ = select.select([sys.stdin, wake_read], [], [], _TICK_SECONDS)
            if sys.stdin in ready and os.read(sys.stdin.fileno(), 64)[:1] in (b"q", b"Q", b"\x03", b"\x04", b""):
                return 0
            if wake_read in ready:
                time.sleep(_GATHER_SECONDS)
                os.read(wake_read, 1 << 16)
                text, taken = _look(args.layout), time.monotonic()


def _look(layout: Layout) -> bytes | str:
    try:
        return call_raw(layout, "GET", "/v1/status", timeout=5.0)[0]
    except ApplianceError as error:
        return str(error)


def _draw(taken: bytes | str, seconds: float) -> None:
    columns, rows = shutil.get_terminal_size()
    if isinstance(taken, str):
        lines = [paint(line, "red") for line in textwrap.wrap(taken, columns)]
    else:
        lines = [cut(line, columns) for line in screen(json.loads(taken), seconds_later=seconds).split("\n")]
    lines = lines[: rows - 1]
    lines.append(paint("q quit", "grey"))
    sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[K\x1b[J")
    sys.stdout.flush()


def _listen(layout: Layout, wake: int) -> None:
    """Runs in a thread: one byte for every event, and for every change between running and not."""
    while True:
        with contextlib.suppress(ApplianceError):
            for line in stream(layout, "/v1/events", headers={"Accept": "text/event-stream"}):
                if line.startswith(b"data:"):
                    _wake(wake)
        _wake(wake)
        time.sleep(_TICK_SECONDS)


def _wake(wake: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.write(wake, b".")


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    old = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, old)
