"""Tables, colours, ages and sizes for people. Colour only where a person looks, and never with NO_COLOR."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

if TYPE_CHECKING:
    import argparse

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "grey": "90", "bold": "1"}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_GOOD = {"ready", "running", "active", "blessed", "current", "ok", "idle", "done", "exited"}
_BUSY = {"starting", "waiting", "stopping", "backoff", "trial", "downloading", "checking", "verifying", "activating"}


def show(args: argparse.Namespace, data: Any, table_function: Callable[[Any], str]) -> None:
    """Print as JSON or as ``table_function`` says, whichever ``-o`` asks for."""
    text = json.dumps(data, indent=2, ensure_ascii=False) if args.output == "json" else table_function(data)
    print(text.rstrip("\n"))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns two blanks apart, as wide as their widest cell; empty cells as "-"."""
    cells = [[paint(header.upper(), "grey") for header in headers]]
    cells += [[_cell(one) for one in row] for row in rows]
    widths = [max(_width(row[number]) for row in cells) for number in range(len(headers))]
    lines = []
    for row in cells:
        padded = [text + " " * (width - _width(text)) for text, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def paint(text: str, colour: str) -> str:
    """The text in that colour, when colours are wanted."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if text and has_colour() else text


def has_colour() -> bool:
    """Whether standard output is a terminal whose owner wants colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def state(word: str) -> str:
    """A state's word in its colour."""
    if word in _GOOD:
        return paint(word, "green")
    if word in _BUSY:
        return paint(word, "yellow")
    return paint(word, "red") if word.startswith(("fail", "denied", "error")) else word


def clean(text: str) -> str:
    """Without control characters: what a unit or a peer wrote must not drive the terminal."""
    return _UNPRINTABLE.sub("?", text)


def age(seconds: float) -> str:
    """Two units at most: "3d 4h", "12m 5s", "now"."""
    if seconds < 1:
        return "now"
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(filter(None, parts))


def size(count: float) -> str:
    """About three digits and a unit of 1024, as settings write it: "512", "35.2M"."""
    number = float(count)
    for unit in ("", "K", "M", "G", "T"):
        if abs(number) < 1024 or unit == "T":
            return f"{number:.0f}{unit}" if unit == "" or number >= 100 else f"{number:.1f}{unit}"
        number /= 1024
    raise AssertionError("unreachable")


def cut(line: str, width: int) -> str:
    """The line in at most ``width`` columns, colours kept whole."""
    if _width(line) <= width:
        return line
    kept, used = "", 0
    for piece in re.split(f"({_ANSI.pattern})", line):
        if _ANSI.fullmatch(piece):
            kept += piece
            continue
        for character in piece:
            used += _width(character)
            if used >= width:
                break
            kept += character
        if used >= width:
            break
    return kept + "…" + ("\x1b[0m" if "\x1b[" in kept else "")


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    text = str(value)
    return text if "\x1b[" in text else clean(text)


def _width(text: str) -> int:
    plain = _ANSI.sub("", text)
    return len(plain) if plain.isascii() else sum(2 if east_asian_width(one) in "WF" else 1 for one in plain)
