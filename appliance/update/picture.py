"""What the update room shows: frozen and plain, so that ``dataclasses.asdict`` is its JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.update.record import SLOTS, SlotName, SlotRecord


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One thing that can hold an update back, and how it stands."""

    name: str
    open: bool
    reason: str
    opens: str = ""  # when it opens by itself


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One finished piece of work; equal ones in a row are counted."""

    id: str
    time: str
    from_version: str
    to_version: str
    outcome: str  # blessed | rolled back | failed | refused | downloaded | nothing new
    reason: str
    kind: str = ""  # of the error, as on the wire
    count: int = 1
    size: int = 0  # bytes of the payload
    fetched: int = 0  # of those, what came by the network
    seconds: float = 0.0  # from the request to the verdict
    by: str = ""  # itself, or a person


@dataclass(frozen=True, kw_only=True)
class SlotPicture:
    """One slot as its record entry says."""

    name: str
    version: str
    sha256: str
    running: bool
    blessed: bool
    tries: int
    priority: int
    entry: str = ""  # of an OS: the name of its boot entry
    verity: str = ""  # of an OS: the hash of its root


def picture_slots(
    record: SlotRecord, running: SlotName | None,
    describe: Callable[[SlotName], tuple[str, str]] = lambda name: ("", ""),
) -> tuple[SlotPicture, ...]:  # fmt: skip
    """Both slots."""
    return tuple(
        SlotPicture(
            name=name, version=entry.version, sha256=entry.sha256, running=name == running,
            blessed=entry.blessed, tries=entry.tries, priority=entry.priority,
            entry=describe(name)[0], verity=describe(name)[1],
        )
        for name in SLOTS
        for entry in (record.entry(name),)
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OfferPicture:
    """A version that the channel offers us."""

    version: str
    size: int
    notes: str


@dataclass(frozen=True, kw_only=True)
class ProgressPicture:
    """How far the worker is. ``present_bytes`` of the file are in place; the rest is what the network brings."""

    step: str
    total_bytes: int
    present_bytes: int
    fetched_bytes: int
    to_fetch_bytes: int
    bytes_per_second: int
    seconds_left: float | None
    trouble: str  # what went wrong and is tried again


def picture_progress(told: Mapping[str, Any]) -> ProgressPicture | None:
    """What a worker told; None when that is nothing."""
    try:
        return ProgressPicture(**told)
    except TypeError:
        return None


@dataclass(frozen=True, kw_only=True)
class HoldPicture:
    """Who holds updates back."""

    name: str
    why: str
    until: str
    source: str  # person | file


@dataclass(frozen=True, kw_only=True)
class WindowPicture:
    """The maintenance windows of the settings, as one."""

    open: bool
    opens: str  # the next one; empty while one is open
    until: str  # the one that is open; empty while none is


@dataclass(frozen=True, kw_only=True)
class UpdatePicture:
    """The whole of ``update status``."""

    enabled: bool
    reason: str  # why off; else why the last attempt failed; else empty
    state: str
    version: str
    product: str = "appliance"
    slot: str
    trial: bool
    repository: str
    channel: str
    strategy: str
    request: str  # id of the work under way, empty when none
    request_version: str
    available: OfferPicture | None
    received_bytes: int
    progress: ProgressPicture | None = None  # while it downloads
    failures: int = 0  # in a row
    last_error: str = ""  # of the last attempt; empty when it did not fail
    last_failure: str = ""  # when an attempt failed last, since the start
    checks: int = 0  # that were answered, since the start
    errors: Mapping[str, int] = field(default_factory=dict)  # per kind, since the start
    slots: tuple[SlotPicture, ...]
    denied: tuple[str, ...]
    health: tuple[str, ...]  # during a trial: what is still missing
    waiting: str = ""  # for which gate, while all else is done
    opens: str = ""  # when that opens by itself
    holds: tuple[HoldPicture, ...] = ()
    window: WindowPicture | None = None  # None: no windows are set
    gates: tuple[Gate, ...] = ()  # as ``update explain`` lists them
    last_check: str
    next_check: str
    recent: tuple[HistoryEntry, ...]  # newest first
