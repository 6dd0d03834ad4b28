"""What changed between the unit files that are loaded and those on disk. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.schema import Finding, to_plain
from appliance.units.decisions import Standing
from appliance.units.pictures import KeyChange, ReloadPlan
from appliance.units.unit_file import Unit


@dataclass(frozen=True)
class Loaded:
    """A unit that the daemon knows: how it stands, and which file text its process was started from."""

    standing: Standing
    digest: str
    unit: Unit | None = None


def plan_reload(
    loaded: Mapping[str, Loaded],
    on_disk: Mapping[str, Unit],
    *,
    unreadable: frozenset[str],
    stopped_by_hand: frozenset[str],
    findings: tuple[Finding, ...],
    on_demand: frozenset[str] = frozenset(),
) -> ReloadPlan:
    """A unit whose new file is not valid keeps its old definition; one whose file is gone is stopped."""
    start: list[str] = []
    restart: list[str] = []
    changed: list[str] = []
    unchanged: list[str] = []
    for name, unit in sorted(on_disk.items()):
        old = loaded.get(name)
        if old is None:
            (changed if name in stopped_by_hand or name in on_demand else start).append(name)
        elif old.digest == unit.digest:
            unchanged.append(name)
        elif old.standing.state.is_up or old.standing.state.is_active:
            restart.append(name)
        elif old.standing.desired and name not in on_demand:
            start.append(name)
        else:
            changed.append(name)
    gone = sorted(loaded.keys() - on_disk.keys() - unreadable)
    unchanged += sorted(loaded.keys() & unreadable)
    return ReloadPlan(
        start=tuple(start),
        stop=tuple(gone),
        restart=tuple(restart),
        changed=tuple(changed),
        unchanged=tuple(sorted(unchanged)),
        findings=findings,
        keys=tuple(
            change
            for name in sorted((*restart, *changed, *start))
            if (old := loaded.get(name)) is not None and old.unit is not None
            for change in _changes(name, old.unit, on_disk[name])
        ),
    )


def _changes(name: str, before: Unit, after: Unit) -> Iterator[KeyChange]:
    old, new = (dict(_flat(to_plain(unit.document), "")) for unit in (before, after))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield KeyChange(unit=name, key=key, before=_words(old.get(key)), after=_words(new.get(key)))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    for key, one in value.items():
        where = f"{path}.{key}" if path else key
        if isinstance(one, dict):
            yield from _flat(one, where)
        else:
            yield where, one


def _words(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
