"""The lines of a unit file of systemd: sections, assignments, continuations, comments. Pure.

As systemd reads them (systemd.syntax(7)): what it cannot read is a warning and left out; only a broken section header
is an error, for nobody can tell what the lines below it belong to.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.schema import Finding, quote

BLANK = " \t\n\r"
_COMMENTS = ("#", ";")


@dataclass(frozen=True)
class Assignment:
    """``Key=value`` below ``[Section]``, and where its key stands."""

    section: str
    key: str
    value: str
    file: str = ""
    line: int = 1
    column: int = 1

    @property
    def path(self) -> str:
        """``Service.ExecStart``."""
        return f"{self.section}.{self.key}" if self.section else self.key

    def finding(self, message: str, *, is_error: bool = False) -> Finding:
        """Something to say about it."""
        return Finding(self.file, self.line, self.column, self.path, message, "error" if is_error else "warning")


@dataclass(frozen=True)
class Lines:
    """All of a file that can be read."""

    assignments: tuple[Assignment, ...]
    findings: tuple[Finding, ...]


def read_lines(text: str, file: str, sections: frozenset[str]) -> Lines:
    """The assignments in these sections, in their order; other sections are warned of, unless they begin with X-."""
    assignments: list[Assignment] = []
    findings: list[Finding] = []
    section, is_ignored = "", False
    for number, column, line in _logical_lines(text):
        if line.startswith("["):
            name = line[1:-1]
            if not line.endswith("]") or len(line) < 2 or not name.isprintable() or set(name) & set("[]\"'\\"):
                message = f"found {quote(line)}, expected a section such as [Service]"
                findings.append(Finding(file, number, column, "", message))
                break
            section, is_ignored = name, name not in sections
            if is_ignored and not name.startswith("X-"):
                message = f"unknown section, ignored with all in it (known here: {', '.join(sorted(sections))})"
                findings.append(Finding(file, number, column, f"[{name}]", message, "warning"))
            continue
        if not section:
            message = f"found {quote(line)} outside of any section, ignored"
            findings.append(Finding(file, number, column, "", message, "warning"))
            continue
        if is_ignored:
            continue
        key, equals, value = line.partition("=")
        if not equals:
            message = f"found {quote(line)}, which has no =; ignored"
            findings.append(Finding(file, number, column, f"[{section}]", message, "warning"))
            continue
        assignments.append(Assignment(section, key.strip(BLANK), value.strip(BLANK), file, number, column))
    return Lines(tuple(assignments), tuple(findings))


def _logical_lines(text: str) -> list[tuple[int, int, str]]:
    r"""Number and column of each line's first character, and the line: continuations joined, comments gone.

    A comment in the midst of a continued line is left out, and does not end it.
    """
    found: list[tuple[int, int, str]] = []
    begun: list[str] = []
    first = 0
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if raw.lstrip(BLANK).startswith(_COMMENTS):
            continue
        line = raw.removesuffix("\r")
        if not begun:
            first = number
        body = line.rstrip("\\")
        if (len(line) - len(body)) % 2:
            begun.append(f"{line[:-1]} ")
            continue
        _add(found, first, "".join((*begun, line)))
        begun = []
    if begun:
        _add(found, first, "".join(begun))
    return found


def _add(found: list[tuple[int, int, str]], number: int, line: str) -> None:
    stripped = line.strip(BLANK)
    if stripped:
        found.append((number, len(line) - len(line.lstrip(BLANK)) + 1, stripped))
