"""Which lines of the logs are wanted. Pure. No regular expressions: a reader's must not hold up the supervisor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from appliance.errors import InputError
from appliance.units.log_text import split_priority
from appliance.units.pictures import LogLine

PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_OTHER_NAMES = {"panic": 0, "error": 3, "warn": 4}
_CLAUSE = re.compile(r"([^=!<>~\s]+)\s*(!=|<=|>=|=|<|>)\s*(.*)", re.DOTALL)
_DEPTH_MAX = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """A line as it was written."""

    time: str
    unit: str
    data: bytes  # without the newline
    stream: str = ""  # "stdout" or "stderr", of a unit whose output is told apart
    invocation: str = ""  # which start of the unit wrote it, if that is known

    @property
    def written(self) -> bytes:
        """As it was written, but for its priority."""
        return split_priority(self.data)[1]

    def line(self) -> LogLine:
        """For people and programs: its priority apart, and bytes that are not UTF-8 as their hex."""
        priority, data = split_priority(self.data)
        text = data.decode(errors="backslashreplace")
        return LogLine(self.time, text, self.unit, priority, self.stream, self.invocation)


@dataclass(frozen=True)
class Clause:
    """``key=value`` about a line that is a JSON object; dots lead into inner objects."""

    path: tuple[str, ...]
    sign: str
    value: str

    def holds(self, fields: Any) -> bool:
        """A line without that field holds only for ``!=``."""
        whole = ".".join(self.path)
        if isinstance(fields, dict) and whole in fields:
            found = fields[whole]
        else:
            found = fields
            for part in self.path:
                if not isinstance(found, dict) or part not in found:
                    return self.sign == "!="
                found = found[part]
        if self.sign in ("=", "!="):
            return (_text(found) == self.value) is (self.sign == "=")
        try:
            left, right = float(found), float(self.value)
        except (TypeError, ValueError, OverflowError):
            return _in_order(_text(found), self.sign, self.value)
        return _in_order(left, self.sign, right)


def _in_order(left: Any, sign: str, right: Any) -> bool:
    before, same = left < right, left == right
    return bool({"<": before, "<=": before or same, ">": not before and not same, ">=": not before}[sign])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_clause(text: str) -> Clause:
    """Raises InputError."""
    found = _CLAUSE.fullmatch(text.strip())
    if found is None or found[1].count(".") >= _DEPTH_MAX:
        wanted = 'expected KEY=VALUE (or !=, <, <=, >, >=), such as "level=error"'
        raise InputError(f'cannot read where: found "{text[:80]}", {wanted}', where="query.where")
    return Clause(tuple(found[1].split(".")), found[2], found[3].strip())


def parse_priority(text: str) -> int:
    """The least urgent that is wanted. Raises InputError."""
    word = text.strip().lower()
    if word.isascii() and word.isdigit() and int(word) < len(PRIORITIES):
        return int(word)
    if word in PRIORITIES:
        return PRIORITIES.index(word)
    if word in _OTHER_NAMES:
        return _OTHER_NAMES[word]
    wanted = f"expected 0 to 7, or one of {', '.join(PRIORITIES)}"
    raise InputError(f'cannot read priority: found "{text[:80]}", {wanted}', where="query.priority")


@dataclass(frozen=True, kw_only=True)
class LogQuery:
    """``since`` and ``until`` as the time of a line is written; empty: no bound."""

    lines: int | None = None  # the last so many that match; None: all
    since: str = ""
    until: str = ""
    follow: bool = False
    contains: str = ""
    ignore_case: bool = False
    invert: bool = False
    where: tuple[Clause, ...] = ()
    priority: int | None = None
    stream: str = ""  # only what was written there
    invocation: str = ""  # only what that start of each unit wrote; as ``Invocations.find`` takes it

    def filter(self) -> Callable[[Entry], bool] | None:
        """Whether a line is wanted, but for its time; None: all are."""
        needle = self.contains.encode(errors="surrogateescape")
        folded = self.contains.casefold()
        if not needle and not self.where and self.priority is None and not self.stream:
            return None

        def wanted(entry: Entry) -> bool:
            if self.stream and entry.stream != self.stream:
                return False
            if needle:
                if self.ignore_case:
                    has = folded in entry.data.decode(errors="backslashreplace").casefold()
                else:
                    has = needle in entry.data
                if has is self.invert:
                    return False
            priority, data = split_priority(entry.data)
            if self.priority is not None and (6 if priority is None else priority) > self.priority:
                return False
            if not self.where:
                return True
            fields = fields_of(data)
            return fields is not None and all(clause.holds(fields) for clause in self.where)

        return wanted


def fields_of(data: bytes | str) -> dict[str, Any] | None:
    """Of a line that is a JSON object; None of any other."""
    text = data.strip()
    if not text or text[:1] not in (b"{", "{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
