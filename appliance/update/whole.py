"""A file that has no index, fetched from end to end; it is gone on with where an attempt was cut off."""

from __future__ import annotations

from collections.abc import Callable

from appliance.errors import UnavailableError, UntrustedError
from appliance.host.failpoint import reach
from appliance.host.slots import RealSlotCalls, file_size
from appliance.update.fetch import Fetcher
from appliance.update.offer import Offer
from appliance.update.progress import Progress
from appliance.update.slots import Slots

_SYNC_BYTES = 8 << 20


def fetch_whole(
    fetcher: Fetcher, url: str, offer: Offer, partial: str, *, progress: Progress, alive: Callable[[], None]
) -> None:
    """``partial`` is the signed file then, synced. What came stays there when it is not.

    Raises UntrustedError (wrong bytes, too many), UnavailableError (too few, no room, no server).
    """
    calls = RealSlotCalls()
    while True:
        have = file_size(partial)
        if have > offer.length:
            calls.remove(partial)
            have = 0
        resumed = have > 0
        if have < offer.length or not resumed:
            start, pieces = fetcher.open_at(url, have)
            if start < have:
                calls.remove(partial)
                have, resumed = 0, False
            progress.present, progress.to_fetch = have, progress.fetched + offer.length - have
            progress.enter("downloading", offer.length)
            unsynced = 0
            for piece in pieces:
                if have + len(piece) > offer.length:
                    calls.remove(partial)
                    raise UntrustedError(f"cannot take {url}: it is longer than the {offer.length} bytes signed")
                alive()
                calls.write_at(partial, have, piece, mode=0o755)
                have += len(piece)
                reach("update.fetch.whole")
                progress.present = have
                progress.receive(len(piece))
                unsynced += len(piece)
                if unsynced >= _SYNC_BYTES:
                    calls.sync(partial)
                    unsynced = 0
            if have < offer.length:
                raise UnavailableError(f"cannot download {url}: it ended after {have} of {offer.length} bytes")
        calls.sync(partial)
        found, _ = Slots(calls, "").measure(partial)
        if found == offer.sha256:
            return
        calls.remove(partial)
        if not resumed:
            fetcher.blame(f"sha256 {found}")
            raise UntrustedError(
                f"cannot take {url}: its sha256 is {found}, signed is {offer.sha256} (damaged or tampered with)"
            )
