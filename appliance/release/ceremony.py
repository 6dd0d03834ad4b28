"""A new root without root keys on this machine: export what is to be signed, carry it to each key holder, import it.

What is carried is one file, the next root as TUF writes it: holders add their signatures to it one after the other (or
to copies: import takes several), on machines that never see a network. Only the import needs the online keys.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tuf.api._payload import Root
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from appliance.errors import ConflictError, InputError
from appliance.host import files
from appliance.release.committing import Expiry, add_signatures, check_thresholds, commit, publishing_time
from appliance.release.keys import KeyRing
from appliance.release.publishing import add_key, find_key, revoke_key
from appliance.release.repository import Contents, load, locked
from appliance.release.signers import read_public
from appliance.update import format_time

_SIZE_MAX = 1 << 20
_TOPS = ("root", "targets", "snapshot", "timestamp")


def export_payload(
    directory: str,
    out: str,
    *,
    add: Iterable[tuple[str, str]] = (),
    revoke: Iterable[tuple[str, str]] = (),
    thresholds: Mapping[str, int] = {},
    expiry: Expiry,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write the next root, unsigned. ``add``: (role, file of a public key); ``revoke``: (role, key id or its start).

    Raises InputError, NotFoundError, ConflictError (the file exists).
    """
    if files.exists(out):
        raise ConflictError(f"cannot write {out}: it exists", where=out)
    contents = load(directory)
    before = contents.root
    contents.root = copy.deepcopy(before)
    for role, key in revoke:
        _check_role(role)
        revoke_key(contents, role, find_key(contents, role, key), threshold=0)
    for role, path in add:
        _check_role(role)
        add_key(contents, role, read_public(files.read_bytes(path, size_max=1 << 16), path), threshold=0)
    for role, threshold in thresholds.items():
        _check_role(role)
        contents.root.roles[role].threshold = threshold
    check_thresholds(contents)
    contents.root.version += 1
    expires = publishing_time() + expiry.root
    contents.root.expires = datetime.fromtimestamp(expires, UTC).replace(microsecond=0)
    if not dry_run:
        files.write_atomic(out, Metadata(contents.root).to_bytes())
    return {"payload": out, **_difference(before, contents.root)}


def sign_payload(file: str, keys: KeyRing, names: Sequence[str] = (), *, dry_run: bool = False) -> dict[str, Any]:
    """Add the signatures of root keys that are here (those named, or all that are root's or called so)."""
    metadata = _read(file)
    if missing := sorted({*names} - {*keys.names.values()}):
        raise InputError(f"cannot sign {file}: {keys.directory} holds no key {', '.join(missing)}", where=file)
    wanted = set(metadata.signed.roles["root"].keyids)
    mine = [
        keyid for keyid, name in keys.names.items()
        if (name in names if names else keyid in wanted or name.startswith(("root-", "root_")))
    ]  # fmt: skip
    if not mine:
        raise InputError(f"cannot sign {file}: {keys.directory} holds no root key", where=file)
    add_signatures(metadata, keys.signers("root", mine, 1))
    if not dry_run:
        files.write_atomic(file, metadata.to_bytes())
    return {"signed_by": sorted(keys.names[keyid] for keyid in mine), **_state(metadata)}


def import_payload(
    directory: str, payloads: Sequence[str], keys: KeyRing, *, expiry: Expiry, dry_run: bool = False
) -> dict[str, Any]:
    """Publish the signed root. Raises InputError: too few signatures, of old or new keys; ConflictError: not the next.

    Copies of one payload that were signed apart are put together.
    """
    found = [_read(file) for file in payloads]
    metadata = found[0]
    for other in found[1:]:
        if other.signed.to_dict() != metadata.signed.to_dict():
            raise InputError(f"cannot import {payloads[0]}: the files are not copies of one payload")
        metadata.signatures.update(other.signatures)
    with locked(directory):
        contents = load(directory)
        before, root, now = contents.root, metadata.signed, publishing_time()
        if root.version != before.version + 1:
            raise ConflictError(
                f"cannot import {payloads[0]}: it is root version {root.version}, {before.version + 1} comes next"
            )
        if root.expires.timestamp() <= now:
            raise InputError(f"cannot import {payloads[0]}: it expired on {format_time(root.expires.timestamp())}")
        _check_signed("the present root", before, metadata)
        _check_signed("the new root", root, metadata)
        known = {*before.roles["root"].keyids, *root.roles["root"].keyids}
        for keyid in [keyid for keyid in metadata.signatures if keyid not in known]:
            del metadata.signatures[keyid]
        contents.previous_root, contents.root = before, root
        commit(contents, keys, {"root"}, expiry=expiry, now=now, dry_run=dry_run, signed_root=metadata.to_bytes())
    return _difference(before, root)


def _check_signed(whose: str, root: Root, metadata: Metadata[Root]) -> None:
    result = root.get_verification_result("root", metadata.signed_bytes, metadata.signatures)
    if not result:
        raise InputError(
            f"cannot import the root: {len(result.signed)} of the {result.threshold} signatures that {whose} needs "
            f"are there (missing keys: {', '.join(keyid[:12] for keyid in result.unsigned)})"
        )


def _read(file: str) -> Metadata[Root]:
    try:
        return Metadata[Root].from_bytes(files.read_bytes(file, size_max=_SIZE_MAX))
    except (RepositoryError, ValueError, TypeError) as exc:
        raise InputError(f"cannot read {file}: it is no root of a repository: {exc}", where=file) from exc


def _check_role(role: str) -> None:
    if role not in _TOPS:
        raise InputError(f'cannot change role "{role}" by a root: allowed are {", ".join(_TOPS)}')


def _state(metadata: Metadata[Root]) -> dict[str, Any]:
    root = metadata.signed
    result = root.get_verification_result("root", metadata.signed_bytes, metadata.signatures)
    return {
        "version": root.version, "expires": format_time(root.expires.timestamp()),
        "signatures": len(result.signed), "threshold": result.threshold,
        "missing": sorted(keyid[:16] for keyid in result.unsigned),
        "roles": {
            role: f"{one.threshold} of {', '.join(keyid[:16] for keyid in one.keyids)}"
            for role in _TOPS for one in (root.roles[role],)
        },
    }  # fmt: skip


def _difference(before: Root, root: Root) -> dict[str, Any]:
    """What whoever signs should look at."""
    changes = []
    for role in _TOPS:
        old, new = before.roles[role], root.roles[role]
        changes += [f"{role}: adds key {keyid[:16]}" for keyid in new.keyids if keyid not in old.keyids]
        changes += [f"{role}: revokes key {keyid[:16]}" for keyid in old.keyids if keyid not in new.keyids]
        if old.threshold != new.threshold:
            changes.append(f"{role}: threshold {old.threshold} -> {new.threshold}")
    return {
        "version": root.version, "expires": format_time(root.expires.timestamp()),
        "changes": changes or ["nothing but a later expiry"],
    }  # fmt: skip


def roles_of(contents: Contents, keys: KeyRing | None) -> list[dict[str, Any]]:
    """Who signs what: for ``release key list``."""
    found = []
    for role in ("root", "targets", *contents.channels, "snapshot", "timestamp"):
        one = contents.role(role)
        for keyid in one.keyids:
            here = keys is not None and keyid in keys.names
            found.append(
                {
                    "role": role, "id": keyid, "threshold": one.threshold, "keys": len(one.keyids),
                    "name": keys.names[keyid] if here and keys else "",
                    "kind": keys.kinds[keyid] if here and keys else "not here",
                }
            )  # fmt: skip
    return found
