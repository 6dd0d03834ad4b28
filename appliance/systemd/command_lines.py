"""``ExecStart=`` and its kin: prefixes, words, several commands in one line. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from appliance.errors import InputError
from appliance.schema import quote
from appliance.systemd.words import Words

_VARIABLE_MARK = "$"


@dataclass(frozen=True)
class Line:
    """One command."""

    words: tuple[str, ...]
    ignore_failure: bool = False
    privileged: bool = False  # +: as root, without any fence
    as_root: bool = False  # !: as root, within the fences
    expand: bool = True  # no colon
    argv0: str | None = None  # @

    @property
    def is_plain(self) -> bool:
        """A list of words says it all."""
        prefixed = self.ignore_failure or self.privileged or self.as_root or self.argv0 is not None
        return not prefixed and not self._is_expanded

    @property
    def _is_expanded(self) -> bool:
        return self.expand and any(_VARIABLE_MARK in word for word in self.words)

    def table(self) -> dict[str, Any]:
        """As our files write a command that is not plain."""
        found: dict[str, Any] = {"command": list(self.words)}
        if self.argv0 is not None:
            found["argv0"] = self.argv0
        for key in ("ignore_failure", "privileged", "as_root"):
            if getattr(self, key):
                found[key] = True
        if self._is_expanded:
            found["expand"] = True
        return found


def as_toml(lines: list[Line]) -> list[Any]:
    """Lists where words are enough for all of them, else tables."""
    if all(line.is_plain for line in lines):
        return [list(line.words) for line in lines]
    return [line.table() for line in lines]


def read_commands(value: str) -> tuple[list[Line], list[str]]:
    """The commands of one assignment, and what is odd about them. Raises InputError."""
    words = Words(value)
    found: list[Line] = []
    odd: list[str] = []
    while not words.is_over:
        if words.is_next(";"):
            words.take(1)
            continue
        line, wrong = _read_command(words)
        if not wrong:
            found.append(line)
        elif line.ignore_failure:
            odd.append(f"{wrong}; ignored")
        else:
            raise InputError(wrong)
    if words.strange:
        odd.append(f"{words.strange} is no escape, and left as it is")
    return found, odd


def _read_command(words: Words) -> tuple[Line, str]:
    """And what is wrong with its program."""
    first = words.next_word()
    prefixes, program = _cut_prefixes(first)
    arguments: list[str] = []
    while not words.is_over:
        if words.is_next(";"):
            words.take(1)
            break
        if words.is_next("\\;"):
            words.take(2)
            arguments.append(";")
            continue
        arguments.append(words.next_word())
    ignore = "-" in prefixes
    argv0 = None
    if "@" in prefixes:
        if not arguments:
            raise InputError(f"found {quote(first)}, but no name for the program follows it")
        argv0 = arguments.pop(0)
    line = Line(
        words=(program, *arguments),
        ignore_failure=ignore,
        privileged="+" in prefixes,
        as_root=prefixes.count("!") == 1,
        expand=":" not in prefixes,
        argv0=argv0,
    )
    return line, _program_problem(program)


def _cut_prefixes(word: str) -> tuple[str, str]:
    """Each at most once, but for ``!!``, which means nothing where the kernel knows ambient capabilities."""
    seen = ""
    for at, letter in enumerate(word):
        may = letter in "-@:+!" and (letter not in seen or (letter == "!" and seen.count("!") < 2))
        if may and ((letter == "+" and "!" in seen) or (letter == "!" and "+" in seen)):
            may = False
        if not may:
            return seen, word[at:]
        seen += letter
    return seen, ""


def _program_problem(program: str) -> str:
    if not program:
        return "found an empty program name, expected a path or a name to look up in PATH"
    if program.endswith("/"):
        return f"found {quote(program)}, which is a directory, not a program"
    if "/" in program and not program.startswith("/"):
        return f"found the relative path {quote(program)}, expected an absolute one, or a name to look up in PATH"
    return ""
