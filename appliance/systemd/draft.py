"""A unit file of ours in the making: tables, where each value came from, and what found no place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.errors import InputError
from appliance.schema import Finding
from appliance.systemd.lines import Assignment

_ORDER = ("unit", "install", "service", "restart", "logs", "resources", "sandbox", "limits", "timer", "path")


@dataclass
class Draft:
    """``kind``: ``.service`` and so on. Tables by their names with dots: ``unit.conditions``."""

    kind: str
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, Assignment] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    lost: list[tuple[Assignment, str]] = field(default_factory=list)  # no equal here, and what to say of it
    sockets: list[tuple[dict[str, Any], Assignment]] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)  # what only makes sense together, by directive

    def get(self, table: str, key: str, default: Any = None) -> Any:
        """What stands there."""
        return self.tables.get(table, {}).get(key, default)

    def set(self, table: str, key: str, value: Any, at: Assignment | None = None) -> None:
        """The last one counts."""
        self.tables.setdefault(table, {})[key] = value
        if at is not None:
            self.places[f"{table}.{key}"] = at

    def unset(self, table: str, key: str) -> None:
        """An empty assignment takes back what was said before."""
        self.tables.get(table, {}).pop(key, None)
        for path in [path for path in self.places if _is_at(path, f"{table}.{key}")]:
            del self.places[path]

    def extend(self, table: str, key: str, values: Iterable[Any], at: Assignment) -> None:
        """A list that grows with each assignment; a value that is there already is left as it is."""
        found = self.tables.setdefault(table, {}).setdefault(key, [])
        for value in values:
            if value not in found:
                self.places[f"{table}.{key}[{len(found)}]"] = at
                found.append(value)
        self.places.setdefault(f"{table}.{key}", at)

    def warn(self, at: Assignment, message: str) -> None:
        """It is read, but not as it was meant in every point."""
        self.findings.append(at.finding(message))

    def lose(self, at: Assignment, message: str) -> None:
        """It has no equal here: a warning, and a comment in what ``unit convert`` writes."""
        self.findings.append(at.finding(message))
        self.lost.append((at, message))

    def data(self) -> dict[str, Any]:
        """As TOML would hold it."""
        whole: dict[str, Any] = {}
        for name in sorted(self.tables, key=lambda one: (_ORDER.index(one.partition(".")[0]), one)):
            outer, dot, inner = name.partition(".")
            table = self.tables[name]
            if dot and table:
                whole.setdefault(outer, {})[inner] = table
            elif not dot:
                whole.setdefault(outer, {}).update(table)
        if self.sockets:
            whole["socket"] = [table for table, _ in self.sockets]
        return whole


def _is_at(path: str, above: str) -> bool:
    return path == above or path.startswith((f"{above}.", f"{above}["))


Handler = Callable[[Draft, Assignment], None]
Handlers = Mapping[str, Handler]


def into(table: str, key: str, read: Callable[[str], Any]) -> Handler:
    """One value; an empty one means the default."""

    def handle(draft: Draft, at: Assignment) -> None:
        if at.value:
            draft.set(table, key, read(at.value), at)
        else:
            draft.unset(table, key)

    return handle


def listed(table: str, key: str, read: Callable[[str], Iterable[Any]]) -> Handler:
    """Each assignment adds; an empty one begins anew."""

    def handle(draft: Draft, at: Assignment) -> None:
        if at.value:
            draft.extend(table, key, read(at.value), at)
        else:
            draft.unset(table, key)

    return handle


def no_equal(why: str = "") -> Handler:
    """What we cannot do."""

    def handle(draft: Draft, at: Assignment) -> None:
        if at.value:
            draft.lose(at, f"has no equal here, ignored{f': {why}' if why else ''}")

    return handle


def unless(values: frozenset[str], why: str = "") -> Handler:
    """What we cannot do; but some values ask for what is so here anyhow."""
    lost = no_equal(why)

    def handle(draft: Draft, at: Assignment) -> None:
        if at.value.lower() not in values:
            lost(draft, at)

    return handle


def note(draft: Draft, at: Assignment) -> None:
    """It changes nothing: no warning, but ``unit convert`` keeps it as a comment."""
    if at.value:
        draft.lost.append((at, ""))


def one_of(*allowed: str, **also: str) -> Callable[[str], str]:
    """A word; ``also``: other spellings of some."""

    def read(text: str) -> str:
        word = also.get(text, text)
        if word not in allowed:
            raise InputError(f'found "{text}", expected one of {", ".join(allowed)}')
        return word

    return read
