"""A tree of TOML values into frozen dataclasses, collecting every problem on the way. Pure.

The dataclass is the schema: its field types say what is allowed, and ``field(metadata=...)`` may add
``min`` and ``max`` (inclusive), ``pattern`` (full match) with ``what`` (what the pattern means, for people),
``check`` (value -> what is wrong, or None), ``split`` (a string is cut into a list as a shell would cut it) and
``example`` (for the message when it is missing or of the wrong type).
A method ``problems(self)`` yields (path below the section, message) for rules between fields; so does ``warnings``.
A key that is a Python word is written with a trailing underscore in the class: ``global_`` reads ``global``.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from appliance.errors import InputError
from appliance.schema.findings import describe, did_you_mean, format_path, quote
from appliance.schema.positions import Path
from appliance.schema.quantities import DURATION_MAX, Quantity, format_duration, format_size, parse_duration, parse_size

BAD: Final = object()
_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}
_PLURALS = {str: "strings", int: "integers", float: "numbers", bool: "booleans"}
_NO_RULES: Mapping[str, Any] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Problem:
    """A finding that does not know its place yet."""

    path: str
    message: str
    is_warning: bool = False


class Conversion:
    """One reading of one tree; ``problems`` fills as it goes."""

    def __init__(self, *, is_whole: bool = True) -> None:
        self.problems: list[Problem] = []
        self._is_whole = is_whole  # a file that does not parse hides what would be missing without it

    def to_section(self, table: Mapping[str, Any], wanted: type, path: Path = ()) -> Any:
        """An instance of the dataclass, or BAD."""
        known = section_fields(wanted)
        for key in table:
            if key not in known:
                self._add((*path, key), _unknown(key, known, wanted, path))
        arguments = {}
        good = True
        for key, (name, hint, field) in known.items():
            if key in table:
                arguments[name] = self._convert(table[key], hint, (*path, key), field.metadata)
                good &= arguments[name] is not BAD
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                if self._is_whole:
                    self._add((*path, key), f"missing; expected {expected(hint, field.metadata)}")
                good = False
        if not good:
            return BAD
        section = wanted(**arguments)
        before = len(self.problems)
        for method, is_warning in (("problems", False), ("warnings", True)):
            for inner, message in getattr(section, method, tuple)():
                dot = "." if path and inner and not inner.startswith("[") else ""
                self.problems.append(Problem(format_path(path) + dot + inner, message, is_warning))
        return BAD if any(not problem.is_warning for problem in self.problems[before:]) else section

    def _add(self, path: Path, message: str) -> Any:
        self.problems.append(Problem(format_path(path), message))
        return BAD

    def _convert(self, value: Any, wanted: Any, path: Path, rules: Mapping[str, Any]) -> Any:
        kind = get_origin(wanted)
        if kind is Annotated:
            inner, *marks = get_args(wanted)
            quantity = next((mark for mark in marks if isinstance(mark, Quantity)), None)
            if quantity is None:
                return self._convert(value, inner, path, rules)
            return self._quantity(value, quantity, path, rules)
        if kind in (Union, types.UnionType):
            return self._any_of(value, wanted, path, rules)
        if kind is Literal:
            return self._literal(value, get_args(wanted), path)
        if kind is tuple:
            return self._list(value, wanted, path, rules)
        if isinstance(kind, type) and issubclass(kind, Mapping):
            return self._mapping(value, wanted, path, rules)
        if dataclasses.is_dataclass(wanted):
            if not isinstance(value, dict):
                return self._wrong(value, wanted, path, rules)
            section = self.to_section(value, wanted, path)  # type: ignore[arg-type]
            return section if section is BAD else self._check(section, path, rules)
        return self._plain(value, wanted, path, rules)

    def _wrong(self, value: Any, wanted: Any, path: Path, rules: Mapping[str, Any]) -> Any:
        return self._add(path, f"found {describe(value)}, expected {expected(wanted, rules)}")

    def _plain(self, value: Any, wanted: Any, path: Path, rules: Mapping[str, Any]) -> Any:
        if wanted is Any:
            return value
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            return self._wrong(value, wanted, path, rules)
        if wanted is str and "\0" in value:
            return self._add(path, f"found {describe(value)}, which holds a NUL character; no program can be given one")
        if wanted is float and not math.isfinite(value):
            return self._wrong(value, wanted, path, rules)
        return self._check(value, path, rules)

    def _quantity(self, value: Any, mark: Quantity, path: Path, rules: Mapping[str, Any]) -> Any:
        if mark.kind == "size" and type(value) is int and value >= 0:
            return self._check(value, path, rules, show=format_size)
        if not isinstance(value, str):
            return self._add(path, f"found {describe(value)}, expected {_expected_quantity(mark, rules, value)}")
        try:
            if mark.kind == "size":
                return self._check(parse_size(value), path, rules, show=format_size)
            return self._check(parse_duration(value, infinity=mark.infinity), path, rules, show=format_duration)
        except InputError as error:
            return self._add(path, f"found {quote(value)}, {error.message}")

    def _literal(self, value: Any, allowed: tuple[Any, ...], path: Path) -> Any:
        if any(type(value) is type(one) and value == one for one in allowed):
            return value
        words = [one for one in allowed if isinstance(one, str)]
        guess = did_you_mean(value, words) if isinstance(value, str) and words else ""
        found = quote(value) if isinstance(value, str) else describe(value)
        return self._add(path, "; ".join(filter(None, (f"found {found}, expected {_one_of(allowed)}", guess))))

    def _list(self, value: Any, wanted: Any, path: Path, rules: Mapping[str, Any]) -> Any:
        item = get_args(wanted)[0]
        if isinstance(value, str) and rules.get("split"):
            from shlex import split

            try:
                value = split(value)
            except ValueError as error:
                return self._add(path, f"found {quote(value)}, which cannot be cut into words: {error}")
        if not isinstance(value, list):
            return self._wrong(value, wanted, path, rules)
        item_rules = {name: rules[name] for name in ("pattern", "what") if name in rules}
        items = [self._convert(one, item, (*path, number), item_rules) for number, one in enumerate(value)]
        if any(one is BAD for one in items):
            return BAD
        return self._check(tuple(items), path, {k: v for k, v in rules.items() if k != "pattern"})

    def _mapping(self, value: Any, wanted: Any, path: Path, rules: Mapping[str, Any]) -> Any:
        if not isinstance(value, dict):
            return self._wrong(value, wanted, path, rules)
        inner = get_args(wanted)[1]
        items = {key: self._convert(one, inner, (*path, key), _NO_RULES) for key, one in value.items()}
        if any(one is BAD for one in items.values()):
            return BAD
        return self._check(items, path, rules)

    def _any_of(self, value: Any, wanted: Any, path: Path, rules: Mapping[str, Any]) -> Any:
        choices = [one for one in get_args(wanted) if one is not type(None)]
        attempts = []
        for choice in choices:
            attempt = Conversion(is_whole=self._is_whole)
            result = attempt._convert(value, choice, path, rules)
            if result is not BAD:
                self.problems += attempt.problems
                return result
            attempts.append(attempt)
        if rules.get("split") and isinstance(value, str):
            choices = [choice for choice in choices if get_origin(choice) is tuple] or choices
        fitting = [one for one, choice in zip(attempts, choices, strict=False) if _could_be(value, choice)]
        if len(attempts) == 1 or len(fitting) == 1:
            self.problems += (fitting or attempts)[0].problems
            return BAD
        return self._wrong(value, wanted, path, rules)

    def _check(self, value: Any, path: Path, rules: Mapping[str, Any], show: Any = str) -> Any:
        low, high = rules.get("min"), rules.get("max")
        measured = len(value) if isinstance(value, str | tuple | Mapping) else value
        if (low is not None and measured < low) or (high is not None and measured > high):
            bounds = " and ".join(
                f"{word} {show(bound)}" for word, bound in (("at least", low), ("at most", high)) if bound is not None
            )
            if measured is not value:
                found = f"a length of {measured}"
            else:
                found = show(value) if show is not str else describe(value)
            return self._add(path, f"found {found}, expected {bounds}")
        pattern = rules.get("pattern")
        if pattern and isinstance(value, str) and not re.fullmatch(pattern, value):
            what = rules.get("what") or f"text that matches {pattern}"
            return self._add(path, f"found {quote(value)}, expected {what}")
        check = rules.get("check")
        if check and (wrong := check(value)):
            return self._add(path, wrong)
        return value


@cache
def section_fields(wanted: type) -> dict[str, tuple[str, Any, dataclasses.Field[Any]]]:
    """TOML key -> (field name, type, field) of a dataclass."""
    hints = get_type_hints(wanted, include_extras=True)
    return {one.name.rstrip("_"): (one.name, hints[one.name], one) for one in dataclasses.fields(wanted) if one.init}


def expected(wanted: Any, rules: Mapping[str, Any] = _NO_RULES) -> str:
    """What is allowed there, for people."""
    kind, arguments = get_origin(wanted), get_args(wanted)
    if kind is Annotated:
        mark = next((one for one in arguments[1:] if isinstance(one, Quantity)), None)
        return _expected_quantity(mark, rules, None) if mark else expected(arguments[0], rules)
    if kind in (Union, types.UnionType):
        texts = [expected(one, rules) for one in arguments if one is not type(None)]
        return " or ".join(dict.fromkeys(texts))
    if kind is Literal:
        return _one_of(arguments)
    example = f" such as {rules['example']}" if "example" in rules else ""
    if kind is tuple:
        inner = arguments[0]
        plural = _PLURALS.get(inner) or ("tables" if dataclasses.is_dataclass(inner) else "values")
        return f"a list of {plural}{example}"
    if (isinstance(kind, type) and issubclass(kind, Mapping)) or dataclasses.is_dataclass(wanted):
        return f"a table{example}"
    return (rules.get("what") or _NAMES.get(wanted, "a value")) + example


def _expected_quantity(mark: Quantity, rules: Mapping[str, Any], value: Any) -> str:
    if mark.kind == "size":
        return f"a size such as {rules.get('example', chr(34) + '256M' + chr(34))}"
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < DURATION_MAX
    guess = f'"{format_duration(float(value))}" (a string with a unit)' if number else rules.get("example", '"10m"')
    return f"a duration such as {guess}" + (' or "infinity"' if mark.infinity else "")


def _one_of(allowed: tuple[Any, ...]) -> str:
    words = [quote(one) if isinstance(one, str) else str(one).lower() for one in allowed]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _could_be(value: Any, wanted: Any) -> bool:
    kind = get_origin(wanted)
    if kind is Annotated:
        return isinstance(value, str)
    if kind is Literal:
        return any(type(value) is type(one) for one in get_args(wanted))
    if kind is tuple:
        return isinstance(value, list)
    if dataclasses.is_dataclass(wanted) or (isinstance(kind, type) and issubclass(kind, Mapping)):
        return isinstance(value, dict)
    return type(value) is wanted


def _unknown(key: str, known: Mapping[str, Any], wanted: type, path: Path) -> str:
    owners = [name for name, (_, hint, _) in known.items() if key in _inner_keys(hint)]
    hint = f"it belongs to [{format_path((*path, owners[0]))}]" if owners else did_you_mean(key, list(known))
    allowed = ", ".join(sorted(known)) if known else "nothing"
    return f"unknown key{'; ' + hint if hint else ''} (allowed: {allowed})"


def _inner_keys(hint: Any) -> frozenset[str]:
    for one in (hint, *get_args(hint)):
        if isinstance(one, type) and dataclasses.is_dataclass(one):
            return frozenset(section_fields(one))
    return frozenset()
