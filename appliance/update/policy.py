"""What a publisher says beside the bytes: waves of a release, and a channel's rules. Signed like everything else. Pure.

A host decides by itself whether a wave has reached it: its own seed and the version give it a place from 0 to 1, and
it is in as soon as the fraction of a wave that has begun is above its place. The place of a host never moves, the
fractions of one release only rise, and the clock that is asked only goes forward: who is in stays in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from appliance.errors import InputError
from appliance.host import clock
from appliance.update.product import PRODUCT
from appliance.update.version import parse_version

POLICY_FIELD = "x-appliance"  # of a channel's signed metadata; other TUF clients pass over it
_WAVES_MAX = 100
_TEXT_MAX = 1000


@dataclass(frozen=True)
class Wave:
    """From ``start`` on, that fraction of all hosts may take the release."""

    start: float
    fraction: float


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The rules of one channel, for every release in it."""

    paused: str = ""  # why; empty: not paused
    minimum: str = ""  # no host takes anything older, and who runs something older does not wait for a wave
    yanked: Mapping[str, str] = field(default_factory=dict)  # version -> why: nobody takes it any more
    dead_ends: Mapping[str, str] = field(default_factory=dict)  # version -> what a person must do: no way on from it

    def yanked_why(self, version: str) -> str:
        """Why that version was withdrawn; empty when it was not."""
        return _why(self.yanked, version)

    def dead_end_why(self, version: str) -> str:
        """What people on that version must do; empty when it is no dead end."""
        return _why(self.dead_ends, version)


NO_POLICY = Policy()


def _why(versions: Mapping[str, str], version: str) -> str:
    wanted = parse_version(version)
    return next((said for name, said in versions.items() if parse_version(name) == wanted), "")


def place_of(seed: str, version: str) -> float:
    """The place of this host among all, from 0 to 1, for that version: other hosts are first the next time."""
    digest = hashlib.sha256(f"{seed}\0{version}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def wave_opens(waves: Sequence[Wave], place: float) -> float | None:
    """When the release is for a host at that place; 0 when there are no waves; None: no wave reaches so far."""
    if not waves:
        return 0.0
    return next((wave.start for wave in waves if place < wave.fraction or wave.fraction >= 1.0), None)


def parse_waves(value: object) -> tuple[Wave, ...]:
    """From signed metadata or from JSON. Raises InputError: starts and fractions must rise."""
    if not value:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > _WAVES_MAX:
        raise InputError(f"cannot read waves: they must be a list of at most {_WAVES_MAX}")
    waves: list[Wave] = []
    for one in value:
        try:
            wave = Wave(parse_time(one["start"]), float(one["fraction"]))
        except (TypeError, KeyError, ValueError) as exc:
            raise InputError(f"cannot read wave {one!r}: it needs a start and a fraction") from exc
        if not 0.0 < wave.fraction <= 1.0:
            raise InputError(f"cannot read wave {one!r}: its fraction must be above 0 and at most 1")
        if waves and (wave.start < waves[-1].start or wave.fraction <= waves[-1].fraction):
            raise InputError("cannot read waves: each must start after the one before and reach more hosts")
        waves.append(wave)
    return tuple(waves)


def waves_to_json(waves: Sequence[Wave]) -> list[dict[str, Any]]:
    """Plain values. The fraction is a string: the canonical JSON that is signed knows no floats."""
    return [{"start": format_time(wave.start), "fraction": f"{wave.fraction:.6g}"} for wave in waves]


def parse_policy(value: object, product: str = PRODUCT) -> Policy:
    """From a channel's signed metadata: the rules of one product there. Raises InputError."""
    if product != PRODUCT:
        value = _products(value).get(product)
    if value is None:
        return Policy()
    if not isinstance(value, Mapping):
        raise InputError("cannot read the channel's rules: they are no object")
    minimum = str(value.get("minimum") or "")
    if minimum:
        parse_version(minimum)
    return Policy(
        paused=str(value.get("paused") or "")[:_TEXT_MAX], minimum=minimum,
        yanked=_parse_whys(value.get("yanked")), dead_ends=_parse_whys(value.get("dead_ends")),
    )  # fmt: skip


def _parse_whys(value: object) -> dict[str, str]:
    if not isinstance(value or {}, Mapping):
        raise InputError("cannot read the channel's rules: versions and reasons are no object")
    found = {str(version): str(why)[:_TEXT_MAX] for version, why in dict(value or {}).items()}  # type: ignore[call-overload]
    for version in found:
        parse_version(version)
    return found


def with_policy(value: object, policy: Policy, product: str = PRODUCT) -> dict[str, Any]:
    """A channel's metadata with other rules for one product; those of the others stay."""
    others = _products(value)
    mine = policy_to_json(policy)
    if product != PRODUCT:
        kept = {name: said for name, said in {**others, product: mine}.items() if said}
        top = {name: said for name, said in dict(value or {}).items() if name != "products"}  # type: ignore[call-overload]
        return {**top, **({"products": kept} if kept else {})}
    return {**mine, **({"products": others} if others else {})}


def _products(value: object) -> dict[str, Any]:
    found = value.get("products") if isinstance(value, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """Plain values, without what is empty."""
    said = {
        "paused": policy.paused, "minimum": policy.minimum,
        "yanked": dict(policy.yanked), "dead_ends": dict(policy.dead_ends),
    }  # fmt: skip
    return {name: value for name, value in said.items() if value}


def parse_time(text: object) -> float:
    """RFC 3339 with a zone, as seconds since 1970. Raises InputError."""
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError as exc:
        raise InputError(f"cannot read time {text!r}: it must look like 2026-11-22T08:00:00Z") from exc
    if moment.tzinfo is None:
        raise InputError(f"cannot read time {text!r}: its zone is missing (add Z for UTC)")
    return moment.astimezone(UTC).timestamp()


def format_time(seconds: float) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return clock.timestamp(seconds).partition(".")[0] + "Z"
