"""The life of one update, as a table over frozen states. No I/O, no clock, no trio.

The slot record says what may run; this says how far we got and why, so that a process that was killed at any point
is followed by one that goes on by itself. The record wins wherever the two differ.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from appliance.errors import InputError
from appliance.update.offer import Offer, offer_to_json, parse_offer
from appliance.update.record import SlotName, SlotRecord, other

CUTS_MAX = 3  # trials that ended with the machine and cost no try; a version that takes it down each time is left
SWITCHES_MAX = 5  # starts of the launcher that changed nothing in the record: it does not want the new version


class Phase(enum.Enum):
    """Where the update stands."""

    IDLE = "idle"
    CHECKING = "checking"
    AVAILABLE = "available"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    CLEARING = "clearing"
    WRITING = "writing"
    VERIFYING = "verifying"
    ARMED = "armed"
    SWITCHING = "switching"
    TRIAL = "trial"
    BLESSED = "blessed"
    ROLLING_BACK = "rolling back"


class IllegalTransitionError(AssertionError):
    """Our own bug, never a fault of the outside world."""


TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.CHECKING, Phase.ROLLING_BACK}),
    Phase.CHECKING: frozenset({Phase.IDLE, Phase.AVAILABLE}),
    Phase.AVAILABLE: frozenset({Phase.IDLE, Phase.CHECKING, Phase.DOWNLOADING, Phase.ROLLING_BACK}),
    Phase.DOWNLOADING: frozenset({Phase.IDLE, Phase.DOWNLOADED}),
    Phase.DOWNLOADED: frozenset({Phase.IDLE, Phase.CHECKING, Phase.CLEARING, Phase.ROLLING_BACK}),
    Phase.CLEARING: frozenset({Phase.IDLE, Phase.WRITING}),
    Phase.WRITING: frozenset({Phase.IDLE, Phase.VERIFYING}),
    Phase.VERIFYING: frozenset({Phase.IDLE, Phase.ARMED}),
    Phase.ARMED: frozenset({Phase.SWITCHING, Phase.ROLLING_BACK}),
    Phase.SWITCHING: frozenset({Phase.TRIAL, Phase.ROLLING_BACK, Phase.SWITCHING}),
    Phase.TRIAL: frozenset({Phase.BLESSED, Phase.ROLLING_BACK}),
    Phase.BLESSED: frozenset({Phase.IDLE}),
    Phase.ROLLING_BACK: frozenset({Phase.IDLE}),
}


@dataclass(frozen=True)
class Goal:
    """What was asked for; it outlives the process that was asked."""

    id: str = ""
    verb: Literal["check", "download", "apply", "rollback"] = "apply"
    version: str = ""  # empty: the newest
    force: bool = False
    automatic: bool = True
    onward: bool = False  # a step on the way to ``version`` is done; the next follows
    source: str = ""  # a directory or a file to take instead of the repository
    now: bool = False  # a person knows that the window is shut, or that somebody holds updates


@dataclass(frozen=True)
class Rollout:
    """The state that is kept. From DOWNLOADING on there is an offer, from CLEARING on a slot."""

    phase: Phase = Phase.IDLE
    goal: Goal = Goal()
    offer: Offer | None = None
    slot: SlotName | None = None
    from_version: str = ""
    healthy_units: tuple[str, ...] = ()
    switches: int = 0
    reason: str = ""
    fetched: int = 0  # bytes that the download took from the network
    began: float = 0.0  # seconds since 1970
    boot: str = ""  # the kernel's name for the boot in which the version on trial was started last
    cuts: int = 0  # so often it got another try because the machine had gone down under it

    def to(self, phase: Phase, **changes: object) -> Rollout:
        """The next state. Raises IllegalTransitionError; nothing changes then."""
        if phase not in TRANSITIONS[self.phase]:
            raise IllegalTransitionError(f"{self.phase.value} -> {phase.value}")
        return replace(self, phase=phase, **changes)  # type: ignore[arg-type]


def encode(rollout: Rollout) -> bytes:
    """As JSON; an older and a newer version must both be able to read it."""
    goal = rollout.goal
    return json.dumps(
        {
            "phase": rollout.phase.value,
            "goal": {
                "id": goal.id, "verb": goal.verb, "version": goal.version, "force": goal.force,
                "automatic": goal.automatic, "onward": goal.onward, "source": goal.source,
                "now": goal.now,
            },
            "offer": None if rollout.offer is None else offer_to_json(rollout.offer),
            "slot": rollout.slot,
            "from_version": rollout.from_version,
            "healthy_units": list(rollout.healthy_units),
            "switches": rollout.switches,
            "reason": rollout.reason,
            "fetched": rollout.fetched,
            "began": rollout.began,
            "boot": rollout.boot,
            "cuts": rollout.cuts,
        }
    ).encode()  # fmt: skip


def decode(data: bytes) -> Rollout:
    """Raises InputError for what this version does not understand."""
    try:
        value = json.loads(data)
        goal = value["goal"]
        slot, verb = value["slot"], goal["verb"]
        if slot not in ("a", "b", None) or verb not in ("check", "download", "apply", "rollback"):
            raise ValueError(f"slot {slot!r}, verb {verb!r}")
        return Rollout(
            Phase(value["phase"]),
            Goal(
                str(goal["id"]),
                verb,
                str(goal["version"]),
                bool(goal["force"]),
                bool(goal["automatic"]),
                bool(goal.get("onward")),
                str(goal.get("source", "")),
                bool(goal.get("now")),
            ),
            None if value["offer"] is None else parse_offer(value["offer"]),
            cast(SlotName | None, slot),
            str(value["from_version"]),
            tuple(map(str, value["healthy_units"])),
            int(value["switches"]),
            str(value["reason"]),
            int(value.get("fetched", 0)),
            float(value.get("began", 0.0)),
            str(value.get("boot", "")),
            int(value.get("cuts", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InputError(f"cannot read the state of the update: {exc!r}") from exc


@dataclass(frozen=True)
class Facts:
    """What a starting process finds."""

    running: SlotName | None  # the slot whose bytes we are
    trial: bool  # the launcher spent a try on us
    record: SlotRecord | None
    boot: str = ""  # this boot; empty where it does not matter: a machine's own image is tried boot by boot


class Next(enum.Enum):
    """What a starting process does first."""

    REST = "rest"  # nothing is under way
    BEGIN = "begin"  # an interrupted apply or download starts anew; what was fetched is still there
    PROVE = "prove"  # we are on trial
    BLESSED = "blessed"  # the blessing was written, its end was not: finish it
    SWITCH = "switch"  # the other slot is armed and has tries left
    TRY_AGAIN = "try again"  # the other slot's last try ended with the machine: a power cut is not its fault
    CONDEMN_OTHER = "condemn other"  # it spent its tries and did not live
    CONDEMN_SELF = "condemn self"  # we were rolling back ourselves and were killed in between
    ROLLED_BACK = "rolled back"  # the other one condemned itself; say so


def was_cut_off(kept: Rollout, boot: str) -> bool:
    """Whether the last start of the version on trial ended because the machine did: then nobody knows what it is worth.

    A power cut and a version that makes the kernel panic look the same, so it is given only so many tries more.
    """
    return (
        kept.phase in (Phase.SWITCHING, Phase.TRIAL) and "" not in (kept.boot, boot) and kept.boot != boot
        and kept.cuts < CUTS_MAX
    )  # fmt: skip


def decide_start(kept: Rollout, facts: Facts) -> Next:
    """What to do first, from what was kept, what runs and what the record says."""
    record, running = facts.record, facts.running
    if record is None or running is None:
        return Next.REST
    mine, theirs = record.entry(running), record.entry(other(running))
    if mine.on_trial:
        # Not only when the launcher says so: an unblessed slot that runs must prove itself however it was started.
        return Next.CONDEMN_SELF if kept.phase is Phase.ROLLING_BACK and kept.slot == running else Next.PROVE
    if theirs.on_trial:
        if theirs.tries == 0:
            cut = kept.slot == other(running) and was_cut_off(kept, facts.boot)
            return Next.TRY_AGAIN if cut else Next.CONDEMN_OTHER
        if kept.phase is Phase.ROLLING_BACK and kept.slot == other(running):
            return Next.CONDEMN_OTHER
        return Next.CONDEMN_OTHER if kept.switches >= SWITCHES_MAX else Next.SWITCH
    if kept.phase in (Phase.ARMED, Phase.SWITCHING, Phase.TRIAL, Phase.BLESSED):
        if kept.slot == running and mine.blessed:
            return Next.BLESSED
        return Next.ROLLED_BACK
    if kept.phase is Phase.ROLLING_BACK:
        if kept.slot == running and mine.blessed and theirs.blessed:
            return Next.CONDEMN_SELF  # a rollback by hand that had only been asked for
        return Next.ROLLED_BACK
    if kept.phase is Phase.IDLE and kept.goal.onward:
        return Next.BEGIN
    if kept.phase is Phase.IDLE or kept.goal.verb == "check":
        return Next.REST
    if kept.phase is Phase.DOWNLOADED and kept.goal.verb == "download":
        return Next.REST
    return Next.BEGIN
