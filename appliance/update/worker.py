"""The short-lived child that talks to the network and parses what strangers wrote. Prints one JSON object.

``refresh`` verifies the metadata and prints what the channel offers; ``download`` does that too, then fetches one
target, going on where an earlier one stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from appliance.errors import ApplianceError, UnavailableError, UntrustedError
from appliance.host import files
from appliance.host.layout import Layout
from appliance.host.slots import RealSlotCalls, architecture, file_size, parent_pid
from appliance.update.offer import Offer, download_path, newest_first, offer_to_json
from appliance.update.settings import without_secret
from appliance.update.slots import Slots
from appliance.update.trust import Repository

_SYNC_BYTES = 8 << 20
_OFFERS_MAX = 200  # the daemon reads at most a MiB of us


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the worker was started for."""

    layout: Layout
    verb: str
    repository: str
    channel: str
    path: str = ""


def work(task: Task) -> dict[str, Any]:
    """The answer, or the error as an object: the daemon raises it again."""
    try:
        return _work(task)
    except ApplianceError as exc:
        message, where = without_secret(exc.message), without_secret(exc.where)
        return {"event": "error", "kind": exc.kind, "message": message, "where": where}


def _work(task: Task) -> dict[str, Any]:
    with ExitStack() as closing:
        closing.callback(files.lock(task.layout.update + "/lock").release)
        trust_root = files.read_bytes(task.layout.trust_root, size_max=1 << 20)
        repository = Repository(
            repository=task.repository, trust_root=trust_root, directory=task.layout.update + "/metadata"
        )
        closing.callback(repository.close)
        repository.refresh()
        offers = repository.offers(task.channel, architecture())
        if task.verb == "refresh":
            found = newest_first(offers)[:_OFFERS_MAX]
            return {"event": "offers", "offers": [offer_to_json(offer) for offer in found]}
        for offer in offers:
            if offer.path == task.path:
                file = download(repository, offer, task.layout.update + "/download", parent=parent_pid)
                return {"event": "downloaded", "file": file}
        raise UntrustedError(f"cannot download {task.path}: the channel does not offer it any more")


def download(repository: Repository, offer: Offer, directory: str, *, parent: Callable[[], int] = lambda: 0) -> str:
    """Fetch the offer's file and verify it; a ``.partial`` is kept for the next attempt. Returns the path.

    Raises UntrustedError (wrong bytes, too many), UnavailableError (too few, no room, no server).
    """
    calls = RealSlotCalls()
    target, url = repository.locate(offer.path)
    if target.length != offer.length or target.hashes.get("sha256") != offer.sha256:
        raise UntrustedError(f"cannot download {offer.path}: its role and its delegation disagree")
    final = download_path(directory, offer)
    partial = final + ".partial"
    slots = Slots(calls, directory)  # for its measure
    calls.make_directory(directory)
    if file_size(final) == offer.length and slots.measure(final)[0] == offer.sha256:
        return final
    for name in files.list_directory(directory):  # other versions' leftovers
        if not name.startswith(offer.sha256):
            calls.remove(f"{directory}/{name}")
    started_by = parent()
    while True:
        have = file_size(partial)
        if have > offer.length:
            calls.remove(partial)
            have = 0
        resumed = have > 0
        if have < offer.length or not resumed:
            start, pieces = repository.fetcher.open_at(url, have)
            if start < have:
                calls.remove(partial)
                have, resumed = 0, False
            unsynced = 0
            for piece in pieces:
                if have + len(piece) > offer.length:
                    calls.remove(partial)
                    raise UntrustedError(f"cannot take {url}: it is longer than the {offer.length} bytes signed")
                if parent() != started_by:
                    raise UnavailableError(f"cannot download {url}: the appliance that wanted it is gone")
                calls.write_at(partial, have, piece)
                have += len(piece)
                unsynced += len(piece)
                if unsynced >= _SYNC_BYTES:
                    calls.sync(partial)
                    unsynced = 0
            if have < offer.length:
                raise UnavailableError(f"cannot download {url}: it ended after {have} of {offer.length} bytes")
        calls.sync(partial)
        found, _ = slots.measure(partial)
        if found == offer.sha256:
            calls.rename(partial, final)
            calls.sync_directory(directory)
            return final
        calls.remove(partial)
        if not resumed:
            raise UntrustedError(
                f"cannot take {url}: its sha256 is {found}, signed is {offer.sha256} (damaged or tampered with)"
            )
