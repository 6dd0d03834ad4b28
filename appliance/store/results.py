"""What the store answers, as plain data. ``revision`` is always the store's revision at which the answer held."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class KeyValue(NamedTuple):
    """A key at one revision. ``version`` counts writes since it was created; a delete starts it anew."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class RangeResult:
    """``count`` ignores limit and filters; ``more`` says that the limit cut something off."""

    kvs: tuple[KeyValue, ...]
    more: bool
    count: int
    revision: int


class PutResult(NamedTuple):
    """``prev`` only when asked for and there was one."""

    revision: int
    prev: KeyValue | None = None


class DeleteResult(NamedTuple):
    """``prev`` only when asked for."""

    revision: int
    deleted: int
    prev: tuple[KeyValue, ...] = ()


class TxnResult(NamedTuple):
    """``responses`` answer the operations of the branch that was taken, in order."""

    revision: int
    succeeded: bool
    responses: tuple[RangeResult | PutResult | DeleteResult | TxnResult, ...]


class EventKind(enum.IntEnum):
    """Numbers as in mvccpb."""

    PUT = 0
    DELETE = 1


class Event(NamedTuple):
    """One key changed. A delete's ``kv`` has only key and mod_revision. ``prev`` when asked for and still kept."""

    kind: EventKind
    kv: KeyValue
    prev: KeyValue | None = None


class WatchBatch(NamedTuple):
    """Events of one or more whole revisions, in order; ``revision`` is the last of them: resume from the next."""

    revision: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How the store is.

    ``state`` is closed, open, full (no room on the disk: writes are refused until there is), nospace (the quota was
    reached: writes are refused until the alarm is disarmed), corrupt (damage was met: clients' writes are refused
    until the alarm is disarmed) or failed (disk error: writes are refused until it was opened anew); ``problem`` says
    it in words.
    """

    state: str
    problem: str
    revision: int
    compacted_revision: int
    keys: int
    watchers: int
    waiting_writers: int
    segments: int
    size_bytes: int
    batches: int
    writes: int
    checkpoint_revision: int
