r"""Words of a value: quotes, C escapes, as systemd's extract_first_word() cuts them. Pure."""

from __future__ import annotations

import re

from appliance.errors import InputError
from appliance.systemd.lines import BLANK

_SIMPLE = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'",
    "s": " ",
}  # fmt: skip
_CODES = (
    re.compile(r"x([0-9a-fA-F]{2})"),
    re.compile(r"u([0-9a-fA-F]{4})"),
    re.compile(r"U([0-9a-fA-F]{8})"),
)
_OCTAL = re.compile(r"[0-7]{3}")


class Words:
    """A value, eaten word by word."""

    def __init__(self, text: str) -> None:
        self.text = text.lstrip(BLANK)
        self.strange = ""  # the first escape that is none

    @property
    def is_over(self) -> bool:
        """Nothing is left."""
        return not self.text

    def take(self, count: int) -> None:
        """Leave out so many characters, and the blanks that follow."""
        self.text = self.text[count:].lstrip(BLANK)

    def is_next(self, word: str) -> bool:
        """Whether that stands there, unquoted and by itself."""
        return self.text.startswith(word) and self.text[len(word) : len(word) + 1] in ("", *BLANK)

    def next_word(self, *, escapes: bool = True, separators: str = BLANK) -> str:
        """The next one. Raises InputError for a quote that is not closed."""
        text, at, quote = self.text, 0, ""
        word = bytearray()
        while at < len(text):
            letter = text[at]
            at += 1
            if letter == "\\" and escapes:
                if at == len(text):
                    word += b"\\"
                    break
                value, length = _escape(text, at)
                if value is None:
                    self.strange = self.strange or text[at - 1 : at + 1]
                    value, length = b"\\" + _bytes(text[at]), 1
                word += value
                at += length
            elif quote:
                if letter == quote:
                    quote = ""
                else:
                    word += _bytes(letter)
            elif letter in "'\"":
                quote = letter
            elif letter in separators:
                break
            else:
                word += _bytes(letter)
        else:
            if quote:
                raise InputError(f"found a {quote} that is not closed")
        self.text = text[at:].lstrip(separators)
        return word.decode(errors="replace")


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")


def _escape(text: str, at: int) -> tuple[bytes | None, int]:
    """What the escape means, and its length without the backslash; None when there is none like that."""
    if (simple := _SIMPLE.get(text[at])) is not None:
        return simple.encode(), 1
    for pattern in _CODES:
        if found := pattern.match(text, at):
            code = int(found[1], 16)
            if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                return None, 0
            return (bytes([code]) if text[at] == "x" else chr(code).encode()), len(found[0])
    if found := _OCTAL.match(text, at):
        code = int(found[0], 8)
        return (bytes([code]), 3) if 0 < code < 256 else (None, 0)
    return None, 0


def unescaped(text: str) -> str:
    """With what its escapes stand for; quotes are plain. Of an escape that is none the backslash stays."""
    at, found = 0, bytearray()
    while at < len(text):
        value, length = _escape(text, at + 1) if text[at] == "\\" and at + 1 < len(text) else (None, 0)
        found += _bytes(text[at]) if value is None else value
        at += 1 + length
    return found.decode(errors="replace")


def split_words(text: str, *, escapes: bool = True, separators: str = BLANK) -> list[str]:
    """All of them. Raises InputError."""
    words = Words(text)
    found = []
    while not words.is_over:
        found.append(words.next_word(escapes=escapes, separators=separators))
    return found
