"""Where each key of a TOML text stands. Pure.

tomli gives values without places. This scanner walks a text that tomli has already accepted, understands only as much
as it needs to find the keys, and knows nothing of types; Hypothesis holds it against tomli (tests/schema).
"""

from __future__ import annotations

from bisect import bisect_right

import tomli

Path = tuple[str | int, ...]
_BLANK = " \t\r\n"


def find_positions(text: str) -> dict[Path, tuple[int, int]]:
    """Line and column (from 1) of every key, table header and array item; of a valid TOML text only."""
    scanner = _Scanner(text)
    scanner.scan_document()
    breaks = [index for index, character in enumerate(text) if character == "\n"]
    places = {}
    for path, offset in scanner.offsets.items():
        line = bisect_right(breaks, offset - 1)
        places[path] = (line + 1, offset - (breaks[line - 1] if line else -1))
    return places


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text + "\n"
        self.size = len(text)
        self.at = 0
        self.offsets: dict[Path, int] = {}
        self._last_item: dict[Path, int] = {}  # of arrays of tables

    def scan_document(self) -> None:
        here: Path = ()
        while True:
            self._skip_blank()
            if self.at >= self.size:
                return
            here = self._scan_header() if self.text[self.at] == "[" else self._scan_pair(here)

    def _scan_header(self) -> Path:
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        keys = self._scan_key()
        self.at += 2 if is_array else 1
        path: Path = ()
        for number, (key, offset) in enumerate(keys, 1):
            path = (*path, key)
            self.offsets.setdefault(path, offset)
            if number == len(keys):
                if is_array:
                    self._last_item[path] = self._last_item.get(path, -1) + 1
                else:
                    self.offsets[path] = offset  # where it is defined, rather than where it was first implied
            if path in self._last_item:
                path = (*path, self._last_item[path])
                self.offsets.setdefault(path, offset)
        return path

    def _scan_pair(self, here: Path) -> Path:
        path = here
        for key, offset in self._scan_key():
            path = (*path, key)
            self.offsets.setdefault(path, offset)
        self.at += 1  # the "="
        self._scan_value(path)
        return here

    def _scan_key(self) -> list[tuple[str, int]]:
        """Dotted key; ends at the first character after it that is neither blank nor a dot."""
        parts = []
        while True:
            self._skip(" \t")
            start = self.at
            quote = self.text[start]
            if quote in "\"'":
                self._skip_string(quote)
                raw = self.text[start : self.at]
                parts.append((tomli.loads(f"k={raw}")["k"] if "\\" in raw else raw[1:-1], start))
            else:
                while self.text[self.at] not in " \t.=]":
                    self.at += 1
                parts.append((self.text[start : self.at], start))
            self._skip(" \t")
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def _scan_value(self, path: Path) -> None:
        self._skip(" \t")
        first = self.text[self.at]
        if first in "\"'":
            self._skip_string(first * 3 if self.text.startswith(first * 3, self.at) else first)
        elif first == "[":
            self._scan_array(path)
        elif first == "{":
            self._scan_inline_table(path)
        else:
            while self.text[self.at] not in ",]}#\n":
                self.at += 1

    def _scan_array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while True:
            self._skip_blank(",")
            if self.text[self.at] == "]":
                break
            self.offsets[(*path, number)] = self.at
            self._scan_value((*path, number))
            number += 1
        self.at += 1

    def _scan_inline_table(self, path: Path) -> None:
        self.at += 1
        while True:
            self._skip_blank(",")
            if self.text[self.at] == "}":
                break
            self._scan_pair(path)
        self.at += 1

    def _skip_string(self, quotes: str) -> None:
        self.at += len(quotes)
        while not self.text.startswith(quotes, self.at):
            self.at += 2 if quotes[0] == '"' and self.text[self.at] == "\\" else 1
        self.at += len(quotes)
        if len(quotes) == 3:  # up to two more belong to the text: """he said "no"""""
            for _ in range(2):
                if self.text[self.at] == quotes[0]:
                    self.at += 1

    def _skip(self, characters: str) -> None:
        while self.at < self.size and self.text[self.at] in characters:
            self.at += 1

    def _skip_blank(self, more: str = "") -> None:
        """Blanks, line ends and comments (and commas, between items)."""
        while True:
            self._skip(_BLANK + more)
            if self.at >= self.size or self.text[self.at] != "#":
                return
            self.at = self.text.index("\n", self.at)
