"""A command in a unit file: a list of words, a line to be cut as a shell would, or a table; and several of them. Pure.

``reload = "kill -HUP $MAINPID"``, ``stop = ["/bin/x", "stop"]``, ``pre_start = [["mkdir", "/x"], ["chown", ...]]``,
``pre_start = [{ command = ["/bin/x"], ignore_failure = true, privileged = true, expand = true }]``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE = re.compile(r"\$\{(" + _NAME + r")\}|\$(" + _NAME + r")|\$\$")
_BRACED = re.compile(r"\$\{(" + _NAME + r")\}|\$\$")
_OURS = ("MAINPID", "SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS")
_OWN = re.compile(r"\$\{(" + "|".join(_OURS) + r")\}|\$(" + "|".join(_OURS) + r")(?![A-Za-z0-9_])")


def _check_command(argv: tuple[str, ...]) -> str | None:
    if not argv[0]:
        return "found an empty program name, expected a path or a name to look up in PATH"
    if "/" in argv[0] and not argv[0].startswith("/"):
        return f'found the relative path "{argv[0]}", expected an absolute path or a bare name to look up in PATH'
    return None


COMMAND: Mapping[str, Any] = {"min": 1, "split": True, "check": _check_command, "example": '["/usr/bin/sleep", "1h"]'}


@dataclass(frozen=True, kw_only=True)
class CommandTable:
    """One command, and how it is run; systemd writes these as prefixes: - + ! @ and, for no ``expand``, a colon."""

    command: tuple[str, ...] = field(metadata=COMMAND)
    ignore_failure: bool = False
    privileged: bool = False  # as root, whatever user the unit is, and without its fences
    as_root: bool = False  # as root, within its fences
    argv0: str | None = None  # another name for the program to see
    expand: bool = False  # $NAME and ${NAME} of the environment, as systemd does


Lines = tuple[str, ...] | tuple[tuple[str, ...] | CommandTable, ...] | CommandTable


def lines_problem(lines: Lines) -> str | None:
    """What is wrong with the first bad one."""
    if isinstance(lines, CommandTable) or not lines:
        return None
    if isinstance(lines[0], str):
        return _check_command(tuple(str(word) for word in lines))
    for number, one in enumerate(lines):
        if isinstance(one, tuple) and (wrong := _check_command(one) if one else "found an empty list"):
            return f"command {number + 1}: {wrong}"
    return None


LINES: Mapping[str, Any] = {"split": True}


def as_lines(lines: Lines) -> tuple[CommandTable, ...]:
    """One shape for all of them."""
    if isinstance(lines, CommandTable):
        return (lines,)
    if not lines:
        return ()
    if isinstance(lines[0], str):
        return (CommandTable(command=tuple(str(word) for word in lines)),)
    return tuple(
        CommandTable(command=one) if isinstance(one, tuple) else one for one in lines if not isinstance(one, str)
    )


def expand_words(line: CommandTable, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The words to run. Without ``expand`` only what we ourselves set for such commands is put in: $MAINPID and so on.

    With it, as in systemd: ``${NAME}`` anywhere in a word, ``$NAME`` as a whole word becomes none, one or several
    words, ``$$`` is a dollar, and what is not set is empty.
    """
    if not line.expand:
        return tuple(_OWN.sub(lambda it: environment.get(it[1] or it[2], it[0]), word) for word in line.command)
    words: list[str] = []
    for number, word in enumerate(line.command):
        whole = _VARIABLE.fullmatch(word)
        if number and whole and whole[2]:
            words += environment.get(whole[2], "").split()
        else:
            words.append(_BRACED.sub(lambda it: environment.get(it[1], "") if it[1] else "$", word))
    return tuple(words)
