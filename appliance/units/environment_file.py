"""Files of variables, as systemd reads them (EnvironmentFile= in systemd.exec(5)). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IN_DOUBLE = '"\\`$'


def parse_environment_file(text: str) -> Mapping[str, str]:
    """NAME=VALUE lines; quotes group, a backslash at the end of a line goes on with the next; the rest is ignored."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        line_end = text.find("\n", at)
        line_end = len(text) if line_end < 0 else line_end
        head = text[at:line_end].lstrip()
        name, equals, _ = head.partition("=")
        if head[:1] in ("#", ";") or not equals or not _NAME.fullmatch(name.strip()):
            at = line_end + 1
            while head.endswith("\\") and head[:1] not in ("#", ";") and at < len(text):  # not ours, all of it
                line_end = text.find("\n", at)
                line_end = len(text) if line_end < 0 else line_end
                head, at = text[at:line_end], line_end + 1
            continue
        found[name.strip()], at = _value(text, text.index("=", at) + 1)
    return found


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins there, and where the next line does."""
    value, kept, quote = "", 0, ""  # ``kept``: so much of it may not be stripped
    while at < len(text) and text[at] in " \t":
        at += 1
    while at < len(text):
        letter = text[at]
        at += 1
        if quote:
            if letter == quote:
                quote, kept = "", len(value)
            elif letter == "\\" and quote == '"' and at < len(text):
                following = text[at]
                at += 1
                if following != "\n":
                    value += following if following in _IN_DOUBLE else f"\\{following}"
            else:
                value += letter
        elif letter == "\n":
            break
        elif letter in "'\"" and len(value) == kept:
            quote = letter
        elif letter == "\\" and at < len(text):
            following = text[at]
            at += 1
            if following != "\n":
                value, kept = value + following, len(value) + 1
        else:
            value += letter
    return value[:kept] + value[kept:].rstrip(" \t\r"), at
