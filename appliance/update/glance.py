"""The usual check costs one small request and no process: the timestamp is fetched, and it is the same as before.

A publisher that changes anything signs a new timestamp, so the same bytes mean that the last full check still holds,
until something of it expires. A server that hides a change gains nothing that it could not have by serving all of its
past; how long that works is bounded by what expires, as ever. Waves and denied versions are judged anew each time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from appliance.errors import ApplianceError
from appliance.host import clock, files
from appliance.update.fetch import fetch_bytes, fetcher_for
from appliance.update.settings import UpdateSettings
from appliance.update.transport import transport_of
from appliance.update.version import parse_version

_SIZE_MAX = 16384  # as python-tuf allows for a timestamp
_FULL_CHECK_SECONDS = 86400.0  # the last time known is kept by full checks


@dataclass(frozen=True)
class _Kept:
    settings: UpdateSettings
    trust: str  # sha256 of the trust root
    answer: dict[str, Any]
    checked: float


class Glance:
    """The last full answer, for as long as it holds. ``unchanged`` blocks: it is for a thread."""

    def __init__(self, trust_root: str, running: str) -> None:
        self._trust_root, self._running = trust_root, parse_version(running)
        self._kept: _Kept | None = None

    def remember(self, settings: UpdateSettings, answer: dict[str, Any]) -> None:
        """After a full check. Only what a later check needs: what is newer."""
        self._kept = None
        if not answer.get("timestamp") or not answer.get("valid_until"):
            return
        offers = [one for one in answer.get("offers", ()) if parse_version(str(one["version"])) > self._running]
        if not offers and answer.get("offers"):
            offers = answer["offers"][:1]  # which version is the newest is said to people
        try:
            trust = files.sha256_file(self._trust_root)
        except ApplianceError:
            return
        self._kept = _Kept(settings, trust, {**answer, "offers": offers, "repaired": ""}, clock.monotonic_seconds())

    def unchanged(self, settings: UpdateSettings) -> dict[str, Any] | None:
        """The answer again, if the repository says the same; None: ask in full. Never raises."""
        kept = self._kept
        if kept is None or kept.settings != settings:
            return None
        answer = kept.answer
        now = max(clock.wall_seconds(), float(answer.get("time", 0)))
        if now >= float(answer["valid_until"]) or clock.monotonic_seconds() - kept.checked > _FULL_CHECK_SECONDS:
            return None
        try:
            if files.sha256_file(self._trust_root) != kept.trust:
                return None
            fetcher, base = fetcher_for(transport_of(settings))
            try:
                data = fetch_bytes(fetcher, base + "/metadata/timestamp.json", size_max=_SIZE_MAX)
            finally:
                fetcher.close()
        except ApplianceError:  # the full check says what is wrong, and tries the mirrors
            return None
        if hashlib.sha256(data).hexdigest() != answer["timestamp"]:
            return None
        return {**answer, "time": now}
