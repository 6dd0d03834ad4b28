"""What changed between the unit files that are loaded and those on disk. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.schema import Finding
from appliance.units.decisions import Standing
from appliance.units.pictures import ReloadPlan
from appliance.units.unit_file import Unit


@dataclass(frozen=True)
class Loaded:
    """A unit that the daemon knows: how it stands, and which file text its process was started from."""

    standing: Standing
    digest: str


def plan_reload(
    loaded: Mapping[str, Loaded],
    on_disk: Mapping[str, Unit],
    *,
    unreadable: frozenset[str],
    stopped_by_hand: frozenset[str],
    findings: tuple[Finding, ...],
) -> ReloadPlan:
    """A unit whose new file is not valid keeps its old definition; one whose file is gone is stopped."""
    start: list[str] = []
    restart: list[str] = []
    changed: list[str] = []
    unchanged: list[str] = []
    for name, unit in sorted(on_disk.items()):
        old = loaded.get(name)
        if old is None:
            (changed if name in stopped_by_hand else start).append(name)
        elif old.digest == unit.digest:
            unchanged.append(name)
        elif old.standing.state.is_up or old.standing.state.is_active:
            restart.append(name)
        elif old.standing.desired:
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
    )
