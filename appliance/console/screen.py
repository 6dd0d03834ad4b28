"""What the screen shows, as rows of plain text, and the bytes that turn one set of rows into the next. Pure.

The rows stand still at the top. Below them is a region that scrolls: whatever the machine says goes there by itself, so
that nothing is torn and a serial line that somebody records still reads as a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KEYS = "l logs   u units   s status   r refresh   c recovery console"
_SAVE, _RESTORE, _CLEAR, _TO_LINE_END = b"\x1b7", b"\x1b8", b"\x1b[2J", b"\x1b[K"
_UP = ("ready", "exited", "reloading")
_FAILED = ("failed", "backoff")


@dataclass(frozen=True, kw_only=True)
class ScreenPicture:
    """All that the screen tells. ``status``: as /v1/status; ``network``: a text for each interface."""

    status: Mapping[str, Any]
    network: Sequence[str] = ()
    emergency: str = ""
    troubles: Sequence[str] = ()
    errors: Sequence[str] = field(default_factory=tuple)  # the last ones, newest first


def rows_of(picture: ScreenPicture) -> list[str]:
    """The status screen."""
    status = picture.status
    node, update = status["node"], status["update"]
    rows = [f"Appliance {node['version']} on {node['name']}"]
    rows.append(_row("network", "; ".join(picture.network) or "no interface"))
    rows.append(_row("slots", _slots(update) or f"{node['slot'] or 'none'}, version {node['version']}"))
    rows.append(_row("health", "ready" if status["ready"] else f"NOT READY: {'; '.join(status['reasons'])}"))
    rows.append(_row("services", _services(status["services"])))
    rows.append(_row("units", _units(status["units"])))
    if update.get("state") not in (None, "", "idle", "off"):
        rows.append(_row("update", " ".join(filter(None, (update["state"], update.get("request_version"))))))
    if picture.emergency:
        rows.append(_row("EMERGENCY", f"the state is only in memory: {picture.emergency}"))
    if status["settings"]["problem"]:
        rows.append(_row("SETTINGS", f"the file is not used: {status['settings']['problem']}"))
    rows += [_row("trouble", text) for text in picture.troubles[:1]]
    rows += [_row("last error", text) for text in picture.errors[:2]]
    return [*rows, _row("keys", KEYS)]


def unit_rows(units: Sequence[Mapping[str, Any]], room: int) -> list[str]:
    """A line each, those that are not well first; what has no room is counted."""
    ordered = sorted(units, key=lambda one: (one["state"] not in _FAILED, one["state"] in _UP, one["name"]))
    lines = [f"{one['name']:<24} {one['state']:<10} {one['health']:<10} {one['reason']}" for one in ordered]
    if len(lines) > room:
        lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more"]
    return lines or ["no units"]


def fit(row: str, columns: int) -> str:
    """One line of printable characters, never wider than the terminal: the last column is left free."""
    text = "".join(one if one.isprintable() else " " for one in row)
    return text if len(text) < columns else text[: columns - 4] + "..."


def whole(rows: Sequence[str], lines: Sequence[str] | None, size: tuple[int, int]) -> bytes:
    """Everything anew: rows pinned above, the last of ``lines`` below; None: what stands there may stay."""
    height, columns = size
    rows = rows[: height - 4]
    top = len(rows) + 2
    drawn = ["\x1b[r", _CLEAR.decode() if lines is not None else "", "\x1b[H"]
    drawn += [f"{fit(row, columns)}\x1b[K\n" for row in (*rows, "-" * (columns - 1))]
    drawn.append(f"\x1b[{top};{height}r\x1b[{top if lines is not None else height};1H")
    drawn += [f"{fit(line, columns)}\n" for line in (lines or ())[-(height - top) :]]
    return "".join(drawn).encode()


def changed(old: Sequence[str], new: Sequence[str], size: tuple[int, int]) -> bytes | None:
    """Only the rows that differ. None: their number does, so draw the whole."""
    if len(old) != len(new):
        return None
    drawn = [
        f"\x1b[{number};1H{fit(row, size[1])}".encode() + _TO_LINE_END + b"\n"
        for number, (before, row) in enumerate(zip(old, new, strict=True), 1)
        if before != row and number <= size[0] - 4
    ]
    return _SAVE + b"".join(drawn) + _RESTORE if drawn else b""


def _row(name: str, text: str) -> str:
    return f" {name:<11} {text}"


def _slots(update: Mapping[str, Any]) -> str:
    texts = []
    for slot in update.get("slots", ()):
        how = "running, " if slot["running"] else ""
        if slot["version"]:
            tries = "good" if slot["blessed"] else f"on trial, {slot['tries']} tries left"
            if not slot["blessed"] and not slot.get("priority", 1):
                tries = "given up"
            texts.append(f"{slot['name']}: {slot['version']} ({how}{tries})")
        else:
            texts.append(f"{slot['name']}: empty")
    return "; ".join(texts)


def _services(services: Sequence[Mapping[str, Any]]) -> str:
    ready = sum(one["state"] == "ready" for one in services)
    missing = ", ".join(f"{one['name']} {one['state']}" for one in services if one["state"] != "ready")
    return f"{ready} of {len(services)} ready" + (f": {missing}" if missing else "")


def _units(units: Sequence[Mapping[str, Any]]) -> str:
    if not units:
        return "none"
    failed = [one for one in units if one["state"] in _FAILED]
    text = f"{sum(one['state'] in _UP for one in units)} up of {len(units)}"
    return text + (f", {len(failed)} FAILED: " + ", ".join(one["name"] for one in failed) if failed else "")
