"""Pieces of HTML. Pure; whatever is text is escaped here, whatever is called ``html`` is markup of ours."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from appliance.host import clock

GOOD = {"ready", "running", "healthy", "blessed", "open"}
BAD = {"failed", "unhealthy", "corrupt", "full", "nospace", "closed"}
REST = {"stopped", "exited", "idle", "off", "none", ""}


def card(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """A titled list of terms and what they are."""
    inner = "".join(f"<dt>{escape(term)}</dt><dd>{html}</dd>" for term, html in rows)
    return f'<section class="card"><h2>{escape(title)}</h2><dl>{inner}</dl></section>'


def table(title: str, count: int, heads: Iterable[str], rows: Iterable[str], empty: str) -> str:
    """A titled table, or its word for none; roles said, since its CSS takes the display of a table away on a phone."""
    if not count:
        return f'<section class="card"><h2>{escape(title)}</h2><p class="empty">{escape(empty)}</p></section>'
    head = "".join(f'<th role="columnheader" scope="col">{escape(text)}</th>' for text in heads)
    return (
        f'<section class="card"><h2>{escape(title)} <span class="soft">{count}</span></h2>'
        f'<table role="table"><thead><tr role="row">{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></section>'
    )


def row(key: str, state: str, *cells: str) -> str:
    """One row; ``key`` and ``state`` let the script see what changed."""
    return f'<tr role="row" data-key="{escape(key)}" data-state="{escape(state)}">{"".join(cells)}</tr>'


def cell(label: str, html: str, kind: str = "") -> str:
    """One cell, with the label that a phone shows."""
    kinds = " ".join(filter(None, (kind, "" if html else "none", "zero" if html == "0" else "")))
    return f'<td role="cell" data-label="{escape(label)}" class="{kinds}"><div>{html}</div></td>'


def chip(state: str, look: str = "") -> str:
    """A state in its colour."""
    look = look or ("good" if state in GOOD else "bad" if state in BAD else "rest" if state in REST else "wait")
    return f'<span class="chip {look}">{escape(state or "none")}</span>'


def small(text: Any) -> str:
    """A remark, if there is one."""
    return f"<small>{escape(str(text))}</small>" if text else ""


def moment(value: Any) -> str:
    """A time as the script can read it, and people."""
    if not value:
        return ""
    if isinstance(value, int | float):
        try:
            value = clock.timestamp(value)
        except (ValueError, OverflowError):
            return escape(str(value))
    shown = str(value).partition(".")[0].replace("T", " ").removesuffix("Z") + " UTC"
    return f'<time datetime="{escape(str(value))}">{escape(shown)}</time>'


def percent_encoded(text: str) -> str:
    """Safe as one segment of a URL's path, and inside HTML (RFC 3986, 2.3)."""
    safe = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join(chr(byte) if chr(byte) in safe else f"%{byte:02X}" for byte in text.encode(errors="replace"))


def size_text(size: Any) -> str:
    """About three digits and a unit of 1024."""
    if not isinstance(size, int | float):
        return ""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
