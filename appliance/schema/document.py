"""One TOML text, or several merged, into one value with all findings at their places. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import tomli

from appliance.errors import InputError
from appliance.schema.conversion import BAD, Conversion, Problem
from appliance.schema.findings import Finding, format_path, quote
from appliance.schema.positions import Path, find_positions

T = TypeVar("T")
_LAST_STEP = re.compile(r'\.?("(?:[^"\\]|\\.)*"|[A-Za-z0-9_-]+)$|\[\d+\]$')


@dataclass(frozen=True)
class Source:
    """A TOML text and the name people know it by."""

    file: str
    text: str

    @cached_property
    def positions(self) -> Mapping[str, tuple[int, int]]:
        """Place of every key by its path; found only when somebody asks."""
        try:
            tomli.loads(self.text)  # what is no TOML has no keys; to look for them would lead anywhere
            return {format_path(path): place for path, place in find_positions(self.text).items()}
        except (RecursionError, ValueError):
            return {}


@dataclass(frozen=True)
class Document(Generic[T]):
    """What was read: the value (None when anything is an error) and all that was found."""

    value: T | None
    findings: tuple[Finding, ...]
    data: Mapping[str, Any] = field(repr=False)
    sources: tuple[Source, ...] = field(repr=False)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep the value from being used."""
        return tuple(one for one in self.findings if one.severity == "error")

    def place(self, path: str) -> tuple[str, int, int]:
        """File, line, column of the key, of the nearest table around it, or of the first line."""
        return _place(self.sources, path)

    def position(self, path: str) -> tuple[int, int]:
        """Line and column of the key, as ``place``."""
        return self.place(path)[1:]


def read(text: str, file: str, into: type[T]) -> Document[T]:
    """The text as an instance of the dataclass. Never raises: all that is wrong is in the findings."""
    return read_merged([Source(file, text)], into)


def read_merged(
    sources: Sequence[Source], into: type[T], *, rewrite: Callable[[str], str] | None = None
) -> Document[T]:
    """Several texts as one: tables merge, everything else (lists too) is replaced by the later text.

    ``rewrite`` is applied to every string value before it is looked at; it may raise InputError.
    """
    data: dict[str, Any] = {}
    findings: list[Finding] = []
    sources = tuple(_normalized(one) for one in sources)
    for source in sources:
        parsed = _parse(source)
        if isinstance(parsed, Finding):
            findings.append(parsed)
        else:
            _merge(data, parsed)
    conversion = Conversion(is_whole=not findings)
    if rewrite is not None:
        data = _rewritten(data, rewrite, (), conversion.problems)
    unread = {problem.path for problem in conversion.problems}  # what else is wrong with these is no news
    number = len(conversion.problems)
    value = conversion.to_section(data, into)
    problems = [one for at, one in enumerate(conversion.problems) if at < number or one.path not in unread]
    for problem in problems:
        file, line, column = _place(sources, problem.path)
        severity: Any = "warning" if problem.is_warning else "error"
        findings.append(Finding(file, line, column, problem.path, problem.message, severity))
    order = {source.file: number for number, source in enumerate(sources)}
    findings.sort(key=lambda one: (order[one.file], one.line, one.column, one.path))
    bad = value is BAD or any(one.severity == "error" for one in findings)
    return Document(None if bad else value, tuple(findings), data, sources)


def raise_if_bad(document: Document[T]) -> T:
    """The value. Raises InputError: all findings as its message, one a line; ``where`` is the place of the first."""
    if document.value is None:
        errors = document.errors
        raise InputError("\n".join(map(str, errors)), where=errors[0].where)
    return document.value


def _normalized(source: Source) -> Source:
    return Source(source.file, source.text[1:]) if source.text.startswith("\ufeff") else source


def _parse(source: Source) -> dict[str, Any] | Finding:
    try:
        return tomli.loads(source.text)
    except tomli.TOMLDecodeError as error:
        message = f"not TOML: {error.msg[:1].lower()}{error.msg[1:]}"
        line = source.text.replace("\r\n", "\n").split("\n")[error.lineno - 1]
        if error.msg == "Invalid value":
            rest = line[error.colno - 1 :].strip()
            message += f"; a string needs quotes: {quote(rest)}" if rest else "; nothing follows the ="
        return Finding(source.file, error.lineno, error.colno, "", message)
    except RecursionError:
        return Finding(source.file, 1, 1, "", "not TOML: nested too deeply")
    except ValueError as error:  # a date that does not exist, an integer of thousands of digits
        return Finding(source.file, 1, 1, "", f"not TOML: {error}")


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        else:
            into[key] = value


def _rewritten(value: Any, rewrite: Callable[[str], str], path: Path, problems: list[Problem]) -> Any:
    match value:
        case str():
            try:
                return rewrite(value)
            except InputError as error:
                problems.append(Problem(format_path(path), error.message))
        case dict():
            return {key: _rewritten(one, rewrite, (*path, key), problems) for key, one in value.items()}
        case list():
            return [_rewritten(one, rewrite, (*path, number), problems) for number, one in enumerate(value)]
    return value


def merged_data(sources: Sequence[Source]) -> dict[str, Any]:
    """What ``read_merged`` reads of, without looking at it; what does not parse is left out."""
    data: dict[str, Any] = {}
    for source in sources:
        parsed = _parse(_normalized(source))
        if not isinstance(parsed, Finding):
            _merge(data, parsed)
    return data


def _place(sources: Sequence[Source], path: str) -> tuple[str, int, int]:
    while path:
        for source in reversed(sources):
            if place := source.positions.get(path):
                return source.file, *place
        shorter = _LAST_STEP.sub("", path)
        path = shorter if shorter != path else ""
    return (sources[0].file if sources else "", 1, 1)
