"""What is wrong with a document, and where: the words for people. Pure."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, order=True)
class Finding:
    """One thing to mend; ``str()`` is the line that editors and people understand."""

    file: str
    line: int
    column: int
    path: str
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """``file:line:column: path: message``, on one line whatever a file is called."""
        path = f"{self.path}: " if self.path else ""
        warning = "warning: " if self.severity == "warning" else ""
        line = f"{self.where}: {warning}{path}{self.message}"
        return line if line.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)

    @property
    def where(self) -> str:
        """``file:line:column``."""
        return f"{self.file}:{self.line}:{self.column}"


def format_path(path: Iterable[str | int]) -> str:
    """``update.window[0].start``; a key that TOML would quote is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if BARE_KEY.fullmatch(part) else quote(part))
    return text


def quote(text: str, *, size_max: int = 60) -> str:
    """As TOML would write it, on one line, cut when long."""
    return json.dumps(text if len(text) <= size_max else text[: size_max - 3] + "...", ensure_ascii=False)


def describe(value: object) -> str:
    """``the integer 10``, ``the string "x"``: what was found."""
    match value:
        case bool():
            return f"the boolean {str(value).lower()}"
        case int():
            return f"the integer {value}" if abs(value) < 1 << 64 else "a huge integer"
        case float():
            return f"the float {value}"
        case str():
            return f"the string {quote(value)}"
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case dict():
            return "a table"
        case datetime.date() | datetime.time():
            return f"the date or time {value}"
        case _:
            return f"a {type(value).__name__}"


def did_you_mean(word: str, allowed: Sequence[str]) -> str:
    """``did you mean "interval"?`` or nothing."""
    from difflib import get_close_matches

    folded = {name.lower(): name for name in allowed}
    close = get_close_matches(word.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    close = close or get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f'did you mean "{folded[close[0]]}"?' if close else ""
