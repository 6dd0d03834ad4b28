"""What a channel offers to this host. Pure; which of it is taken, ``choosing`` says."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from appliance.errors import InputError, UntrustedError
from appliance.update.policy import Wave, parse_waves, waves_to_json
from appliance.update.product import OURS, Product
from appliance.update.version import parse_version

_OFFERS_MAX, _NOTES_MAX = 1500, 50
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
    waves: tuple[Wave, ...] = ()
    paused: str = ""  # why
    barrier: bool = False  # every older host must run this version before a newer one


def target_path(channel: str, version: str, architecture: str, product: Product = OURS) -> str:
    """Where a release lies below ``targets``."""
    return f"{channel}/{version}/{architecture}/{product.file}"


def offer_of_target(
    path: str, *, length: int, sha256: str, custom: object, channel: str, architecture: str, product: Product = OURS
) -> Offer | None:
    """The offer that a signed target makes; None when it is for another product, kind or architecture.

    Raises UntrustedError when a signed target contradicts itself.
    """
    if not isinstance(custom, Mapping) or (custom.get("product"), custom.get("kind")) != (product.name, product.kind):
        return None
    made_for = str(custom.get("architecture", ""))
    if not product.fits(made_for, architecture):
        return None
    version = str(custom.get("version", ""))
    try:
        parse_version(version)
        floor = str(custom.get("floor") or "")
        if floor:
            parse_version(floor)
        waves = parse_waves(custom.get("waves"))
    except InputError as exc:
        raise UntrustedError(f"cannot take {path}: its signed metadata says {exc.message}", where=path) from exc
    if path != target_path(channel, version, made_for, product) or not _SHA256.fullmatch(sha256):
        raise UntrustedError(f"cannot take {path}: its signed metadata says it is version {version!r}", where=path)
    return Offer(
        path, version, sha256, length, floor, str(custom.get("notes") or "")[:1000],
        waves, str(custom.get("paused") or "")[:1000], bool(custom.get("barrier")),
    )  # fmt: skip


def offer_to_json(offer: Offer) -> dict[str, Any]:
    """Plain values."""
    said = {
        "floor": offer.floor, "notes": offer.notes, "waves": waves_to_json(offer.waves), "paused": offer.paused,
        "barrier": offer.barrier,
    }  # fmt: skip
    return {
        "path": offer.path, "version": offer.version, "sha256": offer.sha256, "length": offer.length,
        **{name: value for name, value in said.items() if value},
    }  # fmt: skip


def parse_offer(value: object) -> Offer:
    """The offer that ``offer_to_json`` made. Raises InputError."""
    if not isinstance(value, Mapping):
        raise InputError("cannot read offer: it is no object")
    try:
        offer = Offer(
            str(value["path"]), str(value["version"]), str(value["sha256"]), int(value["length"]),
            str(value.get("floor", "")), str(value.get("notes", "")), parse_waves(value.get("waves")),
            str(value.get("paused", "")), bool(value.get("barrier")),
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


def worth_telling(offers: Iterable[Offer]) -> list[Offer]:
    """What the daemon is told, newest first: it reads at most a MiB. No step that others need is left out."""
    known = newest_first(offers)
    told = [offer if number < _NOTES_MAX else replace(offer, notes="") for number, offer in enumerate(known)]
    if len(told) <= _OFFERS_MAX:
        return told
    floors = {offer.floor for offer in told if offer.floor}
    steps = [offer for offer in told[_OFFERS_MAX:] if offer.barrier or offer.version in floors]
    return [*told[:_OFFERS_MAX], *steps[:_OFFERS_MAX]]


def download_path(directory: str, offer: Offer) -> str:
    """Where a fetched file lies: by its content, so that two versions never mix."""
    return f"{directory}/{offer.sha256}"


def is_denied(offer: Offer, denied: Collection[tuple[str, str]]) -> bool:
    """By content, and by version as it is written: a version is never re-used."""
    return any(version == offer.version or sha256 == offer.sha256 for version, sha256 in denied)
