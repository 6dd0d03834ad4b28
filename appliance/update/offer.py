"""What a channel offers, and which of it this host takes. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.errors import ConflictError, InputError, NotFoundError, UntrustedError
from appliance.update.version import parse_version

PRODUCT = "appliance"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Offer:
    """A signed target that is a release for this host."""

    path: str
    version: str
    sha256: str
    length: int
    floor: str = ""
    notes: str = ""


def target_path(channel: str, version: str, architecture: str) -> str:
    """Where a release of ours lies below ``targets``."""
    return f"{channel}/{version}/{architecture}/{PRODUCT}"


def offer_of_target(
    path: str, *, length: int, sha256: str, custom: object, channel: str, architecture: str
) -> Offer | None:
    """The offer that a signed target makes; None when it is for another product, kind or architecture.

    Raises UntrustedError when a signed target contradicts itself.
    """
    if not isinstance(custom, Mapping) or (custom.get("product"), custom.get("kind")) != (PRODUCT, "binary"):
        return None
    if custom.get("architecture") != architecture:
        return None
    version = str(custom.get("version", ""))
    try:
        parse_version(version)
        floor = str(custom.get("floor") or "")
        if floor:
            parse_version(floor)
    except InputError as exc:
        raise UntrustedError(f"cannot take {path}: its signed metadata says {exc.message}", where=path) from exc
    if path != target_path(channel, version, architecture) or not _SHA256.fullmatch(sha256):
        raise UntrustedError(f"cannot take {path}: its signed metadata says it is version {version!r}", where=path)
    return Offer(path, version, sha256, length, floor, str(custom.get("notes") or "")[:1000])


def offer_to_json(offer: Offer) -> dict[str, Any]:
    """Plain values."""
    return {
        "path": offer.path, "version": offer.version, "sha256": offer.sha256, "length": offer.length,
        "floor": offer.floor, "notes": offer.notes,
    }  # fmt: skip


def parse_offer(value: object) -> Offer:
    """The offer that ``offer_to_json`` made. Raises InputError."""
    if not isinstance(value, Mapping):
        raise InputError("cannot read offer: it is no object")
    try:
        offer = Offer(
            str(value["path"]), str(value["version"]), str(value["sha256"]), int(value["length"]),
            str(value.get("floor", "")), str(value.get("notes", "")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"cannot read offer: {exc!r}") from exc
    parse_version(offer.version)
    if not _SHA256.fullmatch(offer.sha256) or offer.length < 1:
        raise InputError("cannot read offer: bad sha256 or length")
    return offer


def newest_first(offers: Iterable[Offer]) -> list[Offer]:
    """By version."""
    return sorted(offers, key=lambda offer: parse_version(offer.version), reverse=True)


def download_path(directory: str, offer: Offer) -> str:
    """Where a fetched file lies: by its content, so that two versions never mix."""
    return f"{directory}/{offer.sha256}"


@dataclass(frozen=True)
class Choice:
    """The offer to take, or why there is none; ``refused`` when the channel went backwards."""

    offer: Offer | None
    reason: str
    refused: bool = False


def choose(offers: Iterable[Offer], *, running: str, denied: Collection[tuple[str, str]], channel: str) -> Choice:
    """The newest offer above the running version that is not denied and whose floor we have passed."""
    known = newest_first(offers)
    if not known:
        return Choice(None, f"channel {channel} offers nothing for this host")
    here = parse_version(running)
    held: list[str] = []
    for offer in known:
        if parse_version(offer.version) <= here:
            break
        if is_denied(offer, denied):
            held.append(f"{offer.version} is denied: it was rolled back here (update apply --force {offer.version})")
        elif offer.floor and parse_version(offer.floor) > here:
            held.append(f"{offer.version} needs {offer.floor} first")
        else:
            return Choice(offer, "; ".join(held))
    if held:
        return Choice(None, "; ".join(held))
    newest = known[0].version
    if parse_version(newest) < here:
        return Choice(
            None,
            f"cannot take {newest} of channel {channel}: it is older than the running {running}, "
            f"and nobody asked for a downgrade (update apply --force {newest})",
            refused=True,
        )
    return Choice(None, f"{running} is the newest in channel {channel}")


def choose_asked(
    offers: Iterable[Offer],
    wanted: str,
    *,
    running: str,
    denied: Collection[tuple[str, str]],
    channel: str,
    force: bool,
) -> Offer:
    """The offer of exactly the version that a person asked for. ``force`` takes a denied or older one too.

    Raises NotFoundError, UntrustedError (older, denied), ConflictError (floor, running already).
    """
    version, here = parse_version(wanted), parse_version(running)
    found = [offer for offer in offers if parse_version(offer.version) == version]
    if not found:
        raise NotFoundError(f"cannot apply {wanted}: channel {channel} does not offer it")
    offer = found[0]
    if version == here and not force:
        raise ConflictError(f"cannot apply {wanted}: it is running already")
    if is_denied(offer, denied) and not force:
        raise UntrustedError(f"cannot apply {wanted}: it is denied, it was rolled back here (--force takes it anyway)")
    if version < here and not force:
        raise UntrustedError(f"cannot apply {wanted}: it is older than the running {running} (--force takes it anyway)")
    if offer.floor and parse_version(offer.floor) > here and not force:
        raise ConflictError(f"cannot apply {wanted}: {offer.floor} must be passed first")
    return offer


def is_denied(offer: Offer, denied: Collection[tuple[str, str]]) -> bool:
    """By content, and by version as it is written: a version is never re-used."""
    return any(version == offer.version or sha256 == offer.sha256 for version, sha256 in denied)
