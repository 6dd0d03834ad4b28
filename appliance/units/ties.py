"""What ties units together besides their own words: other names, ``[install]``, targets of every host. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from appliance.systemd import is_built_in
from appliance.units.install_section import PULLED_BY
from appliance.units.unit_file import Unit
from appliance.units.unit_section import RELATIONS, UnitSection

_NEEDS = ("requires", "requisite", "binds_to")


def other_names(units: Mapping[str, Unit]) -> Mapping[str, str]:
    """Alias -> unit. A unit's own name comes before any alias; of two with one alias the first by name has it."""
    found: dict[str, str] = {}
    for name in sorted(name for name, unit in units.items() if unit.document.install.alias):
        for alias in units[name].document.install.alias:
            if alias not in units:
                found.setdefault(alias, name)
    return found


def tied(units: Mapping[str, Unit], disabled: frozenset[str] = frozenset()) -> dict[str, UnitSection]:
    """``[unit]`` of each, by the names of units that there are, with what ``[install]`` of others adds."""
    aliases = other_names(units)
    sections = {name: unit.document.unit for name, unit in units.items()}
    more: dict[str, dict[str, list[str]]] = {}
    for name, unit in units.items():
        install = unit.document.install
        if install.pulled_by and name not in disabled:
            for key, relation in PULLED_BY.items():
                for above in getattr(install, key):
                    above = aliases.get(above, above)
                    if above in units and above != name:
                        more.setdefault(above, {}).setdefault(relation, []).append(name)
    for name, unit in units.items():  # the sockets that it is given besides are there first
        for relation in ("wants", "after") if unit.document.service is not None and unit.service.sockets else ():
            more.setdefault(name, {}).setdefault(relation, []).extend(unit.service.sockets)
    for name, section in sections.items():
        changed = _changes(section, aliases, units)
        for relation, names in more.get(name, {}).items():
            changed[relation] = tuple(dict.fromkeys((*changed.get(relation, getattr(section, relation)), *names)))
        if changed:
            sections[name] = replace(section, **changed)
    return sections


def _changes(section: UnitSection, aliases: Mapping[str, str], units: Mapping[str, Unit]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key in RELATIONS if aliases else _NEEDS:
        names = getattr(section, key)
        if not names:
            continue
        better = tuple(aliases.get(one, one) for one in names)
        if key in _NEEDS:
            better = tuple(one for one in better if one in units or not is_built_in(one))
        if better != names:
            changed[key] = better
    return changed


def is_only_named(unit: Unit, called: set[str], units: Mapping[str, Unit]) -> bool:
    """Whether it is up only when another unit asks for it; ``called``: those that triggers start."""
    install = unit.document.install
    return (unit.name in called and not install.is_at_boot) or install.waits_for(units)
