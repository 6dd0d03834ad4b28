"""The short-lived child that talks to the network and parses what strangers wrote. Prints one JSON object.

``refresh`` verifies the metadata and prints what the channel offers; ``download`` does that too, then fetches one
target, going on where an earlier one stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from appliance.errors import ApplianceError, InputError, NotFoundError, UnavailableError, UntrustedError
from appliance.host import files
from appliance.host.failpoint import reach
from appliance.host.layout import Layout
from appliance.host.slots import RealSlotCalls, architecture, file_size, parent_pid
from appliance.payload import INDEX_SIZE_MAX, Index, parse_index
from appliance.update.download import Assembly
from appliance.update.fetch import fetch_bytes, fetcher_for
from appliance.update.mirrors import KeptMirrors
from appliance.update.offer import Offer, download_path, offer_to_json, worth_telling
from appliance.update.policy import policy_to_json
from appliance.update.product import OURS, Product
from appliance.update.progress import Progress, keeper
from appliance.update.seeds import seeds_of
from appliance.update.settings import without_secret
from appliance.update.slots import Slots
from appliance.update.transport import Transport, plain_transport
from appliance.update.trust import Repository
from appliance.update.whole import fetch_whole

_INDEX, _PACK = ".index", ".pack"  # as release/indexing.py names them


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the worker was started for. ``repository``: when there is no more to say than that."""

    layout: Layout
    verb: str
    channel: str
    path: str = ""
    repository: str = ""
    transport: Transport | None = None
    product: Product = OURS
    trust_root: str = ""  # empty: the host's


def work(task: Task) -> dict[str, Any]:
    """The answer, or the error as an object: the daemon raises it again."""
    try:
        return _work(task)
    except ApplianceError as exc:
        message, where = without_secret(exc.message), without_secret(exc.where)
        return {"event": "error", "kind": exc.kind, "message": message, "where": where}


def _work(task: Task) -> dict[str, Any]:
    layout, product = task.layout, task.product
    place = product.directory(layout)
    with ExitStack() as closing:
        closing.callback(files.lock(place + "/lock").release)
        repository = _refreshed(task, closing)
        offers = repository.offers(task.channel, architecture(), product)
        if task.verb == "refresh":
            return {
                "event": "offers", "offers": [offer_to_json(offer) for offer in worth_telling(offers)],
                "policy": policy_to_json(repository.policy(task.channel, product)), "time": repository.now,
                "clock": repository.clock_problem, "valid_until": repository.valid_until,
                "timestamp": files.sha256_file(repository.timestamp_file), "repaired": repository.repaired,
            }  # fmt: skip
        for offer in offers:
            if offer.path == task.path:
                progress = Progress(tell=keeper(product.progress(layout)))
                seeds = seeds_of(product, layout)
                if product.is_bundle:
                    closing.callback(files.remove, place + "/seed")
                file = download(
                    repository, offer, place + "/download", parent=parent_pid, seeds=seeds, progress=progress
                )
                return {"event": "downloaded", "file": file, "fetched": progress.fetched}
        raise UntrustedError(f"cannot download {task.path}: the channel does not offer it any more")


def _refreshed(task: Task, closing: ExitStack) -> Repository:
    """The repository, from the first mirror whose metadata can be trusted: one may lag behind."""
    transport = task.transport or plain_transport(task.repository)
    trust_root = files.read_bytes(task.trust_root or task.layout.trust_root, size_max=1 << 20)
    place = task.product.directory(task.layout)
    mirrors = KeptMirrors(place + "/mirrors.json", [place.url for place in transport.places])
    for left in reversed(range(len(transport.places))):
        fetcher = fetcher_for(transport, mirrors)
        closing.callback(fetcher[0].close)
        repository = Repository(
            repository=transport.repository, trust_root=trust_root, directory=place + "/metadata",
            fetcher=fetcher,
        )  # fmt: skip
        try:
            repository.refresh()
            reach("update.fetch.metadata")
            return repository
        except UntrustedError as exc:
            fetcher[0].blame(exc.message)
            if not left:
                raise
    raise AssertionError("no place to fetch from")


def download(
    repository: Repository,
    offer: Offer,
    directory: str,
    *,
    parent: Callable[[], int] = lambda: 0,
    seeds: Iterable[str] = (),
    progress: Progress | None = None,
) -> str:
    """Fetch the offer's file and verify it; a ``.partial`` is kept for the next attempt. Returns the path.

    ``seeds``: files that may hold some of it. Raises UntrustedError (wrong bytes, too many), UnavailableError (too
    few, no room, no server).
    """
    calls = RealSlotCalls()
    progress = progress or Progress()
    target, url = repository.locate(offer.path)
    if target.length != offer.length or target.hashes.get("sha256") != offer.sha256:
        raise UntrustedError(f"cannot download {offer.path}: its role and its delegation disagree")
    final = download_path(directory, offer)
    partial = final + ".partial"
    calls.make_directory(directory)
    if file_size(final) == offer.length and Slots(calls, directory).measure(final)[0] == offer.sha256:
        return final
    for name in files.list_directory(directory):  # other versions' leftovers
        if not name.startswith(offer.sha256):
            calls.remove(f"{directory}/{name}")
    started_by = parent()

    def alive() -> None:
        if parent() != started_by:
            raise UnavailableError(f"cannot download {url}: the appliance that wanted it is gone", where=partial)

    index = _index_of(repository, offer, final + _INDEX, progress)
    if index is None:
        fetch_whole(repository.fetcher, url, offer, partial, progress=progress, alive=alive)
    else:
        pack = url if index.layout == "file" else repository.locate(offer.path + _PACK)[1]
        assembly = Assembly(
            index=index, fetcher=repository.fetcher, url=pack, path=partial, progress=progress, seeds=seeds,
            alive=alive,
        )  # fmt: skip
        try:
            assembly.run()
        except UntrustedError:
            if not assembly.fetched:  # nothing worth to be kept
                calls.remove(partial)
                calls.remove(final + _INDEX)
            raise
    reach("update.fetch.whole-file")
    calls.rename(partial, final)
    reach("update.fetch.renamed")
    calls.remove(final + _INDEX)
    calls.sync_directory(directory)
    reach("update.fetch.end")
    return final


def _index_of(repository: Repository, offer: Offer, kept: str, progress: Progress) -> Index | None:
    """The signed index; None: the repository has none, and the file is fetched whole."""
    try:
        target, url = repository.locate(offer.path + _INDEX)
    except NotFoundError:
        return None
    progress.enter("fetching the index", offer.length)
    data = b""
    if file_size(kept) == target.length and files.sha256_file(kept) == target.hashes.get("sha256"):
        data = files.read_bytes(kept, size_max=INDEX_SIZE_MAX)  # of an attempt that was cut off
    else:
        if target.length > INDEX_SIZE_MAX:
            raise UntrustedError(f"cannot take {url}: an index of {target.length} bytes is too long")
        try:
            data = fetch_bytes(repository.fetcher, url, size_max=target.length)
        except NotFoundError:
            return None
        progress.receive(len(data))
        if len(data) != target.length or hashlib.sha256(data).hexdigest() != target.hashes.get("sha256"):
            repository.fetcher.blame("its index is damaged")
            raise UntrustedError(f"cannot take {url}: it is not what was signed (damaged or tampered with)")
        files.write_atomic(kept, data, durable=False)
        reach("update.fetch.index")
    try:
        index = parse_index(data, file=url)
    except InputError as exc:
        raise UntrustedError(exc.message, where=url) from exc
    if (index.length, index.sha256) != (offer.length, offer.sha256):
        raise UntrustedError(f"cannot take {url}: it is the index of another file", where=url)
    return index
