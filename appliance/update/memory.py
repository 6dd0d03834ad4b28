"""What the agent remembers in the store: how far the update got, its history, the denied versions.

The store may be down: an update is not begun then, but a trial is still judged, and the slot record still decides.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from appliance.errors import ApplianceError
from appliance.update.picture import HistoryEntry
from appliance.update.rollout import Rollout, decode, encode
from appliance.update.switched import SETTINGS, Switched, decode_switched, encode_switched

_ROLLOUT, _HISTORY, _DENIED, _CHANNEL = "rollout", "history", "denied", "channel"
_ENTRIES_MAX = 100


class Keeper(Protocol):
    """What must last; the app gives the store's."""

    async def get(self, key: str) -> bytes | None:
        """The value."""

    async def put(self, key: str, value: bytes) -> None:
        """Durable when it returns."""


class Memory:
    """The four keys. ``problem`` says why the store could not be asked."""

    def __init__(self, keeper: Keeper, prefix: str = "update") -> None:
        self._keeper = keeper
        self._prefix = prefix
        self.problem = ""
        self.loaded = False
        self.entries: tuple[HistoryEntry, ...] = ()  # newest first
        self.switched: Switched = SETTINGS  # the channel that a person chose

    async def _get(self, name: str) -> bytes | None:
        return await self._keeper.get(f"{self._prefix}/{name}")

    async def _put(self, name: str, value: bytes) -> None:
        await self._keeper.put(f"{self._prefix}/{name}", value)

    async def read_value(self, name: str) -> dict[str, Any]:
        """A small thing of somebody's; empty when there is none, or it cannot be read. Raises UnavailableError."""
        try:
            value = json.loads(await self._get(name) or b"{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    async def write_value(self, name: str, value: Mapping[str, Any]) -> None:
        """Durable when it returns. Raises UnavailableError, CorruptError."""
        await self._put(name, json.dumps(value).encode())

    async def load(self) -> Rollout:
        """What was kept. Never raises: what cannot be read is as if nothing had been under way."""
        try:
            kept = await self._get(_ROLLOUT)
            history = await self._get(_HISTORY)
            self.switched = decode_switched(await self._get(_CHANNEL))
        except ApplianceError as exc:
            self.problem = exc.message
            return Rollout()
        self.loaded, self.problem = True, ""
        self.entries = (*self.entries, *_parse_entries(history))[:_ENTRIES_MAX]
        try:
            return decode(kept) if kept else Rollout()
        except ApplianceError as exc:  # a newer version wrote it; the record still says what to do
            self.problem = exc.message
            return Rollout()

    async def keep(self, rollout: Rollout) -> None:
        """Durable when it returns. Raises UnavailableError, CorruptError."""
        await self._put(_ROLLOUT, encode(rollout))
        self.problem = ""

    async def keep_channel(self, switched: Switched) -> None:
        """Durable when it returns. Raises UnavailableError, CorruptError."""
        await self._put(_CHANNEL, encode_switched(switched))
        self.switched = switched

    async def end_downgrade(self) -> None:
        """It was asked for once, and done. Never raises: until it is kept, an older version may be taken again."""
        if not self.switched.allow_downgrade:
            return
        try:
            await self.keep_channel(replace(self.switched, allow_downgrade=False))
        except ApplianceError as exc:
            self.problem = exc.message

    def has(self, request: str, outcome: str = "") -> bool:
        """Whether the history tells of that request (with that outcome)."""
        return any(entry.id == request and outcome in ("", entry.outcome) for entry in self.entries if request)

    async def add(self, entry: HistoryEntry) -> None:
        """Put it first; the same thing again is counted. Never raises."""
        last = self.entries[0] if self.entries else None
        if last is not None and _alike(entry, last):
            self.entries = (replace(entry, count=last.count + 1), *self.entries[1:])
        else:
            self.entries = (entry, *self.entries)[:_ENTRIES_MAX]
        try:
            await self._put(_HISTORY, json.dumps([asdict(entry) for entry in self.entries]).encode())
        except ApplianceError as exc:
            self.problem = exc.message

    async def keep_denied(self, denied: Sequence[tuple[str, str]]) -> None:
        """A copy of the record's list, for the day both copies of the record are broken. Never raises."""
        try:
            await self._put(_DENIED, json.dumps([list(item) for item in denied]).encode())
        except ApplianceError as exc:
            self.problem = exc.message

    async def denied(self) -> tuple[tuple[str, str], ...]:
        """That copy; empty when it cannot be read."""
        try:
            data = await self._get(_DENIED)
            return tuple((str(version), str(sha256)) for version, sha256 in json.loads(data or b"[]"))
        except (ApplianceError, ValueError, TypeError):
            return ()


def _alike(entry: HistoryEntry, last: HistoryEntry) -> bool:
    return last == replace(
        entry, id=last.id, time=last.time, count=last.count, size=last.size, fetched=last.fetched, seconds=last.seconds
    )


def _parse_entries(data: bytes | None) -> list[HistoryEntry]:
    """What can be read of it: a single entry that cannot is left out."""
    names, found = HistoryEntry.__dataclass_fields__.keys(), []
    try:
        kept = list(json.loads(data or b"[]"))
    except (ValueError, TypeError):
        return []
    for entry in kept:
        with contextlib.suppress(TypeError, AttributeError):
            found.append(HistoryEntry(**{name: value for name, value in entry.items() if name in names}))
    return found
