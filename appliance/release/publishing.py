"""What a publisher does to a repository, each under one lock and in one commit: publish, renew, change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from securesystemslib.signer._key import Key
from tuf.api._payload import TargetFile

from appliance.errors import ConflictError, InputError, NotFoundError
from appliance.host import files
from appliance.release.committing import Expiry, commit, publishing_time
from appliance.release.keys import KeyRing
from appliance.release.repository import Contents, load, locked
from appliance.release.staging import Staged, forget_staged, staged_releases

_RENEW_SECONDS = 30 * 86400.0  # what expires sooner is signed again, if its keys are here
_NO_EXPIRY = Expiry()
Change = Callable[[Contents], set[str]]
"""Changes metadata in memory; answers which roles must be signed for that."""


def publish(
    directory: str,
    keys: KeyRing,
    *,
    expiry: Expiry = _NO_EXPIRY,
    fresh: Contents | None = None,
    now: float | None = None,
    dry_run: bool = False,
) -> list[Staged]:
    """Publish what is staged, and believe the rest anew. ``fresh`` is a repository that ``create`` made.

    Raises InputError (keys missing), CorruptError (staged bytes damaged); the repository is unchanged then.
    """
    with locked(directory):
        moment = publishing_time() if now is None else now
        contents = fresh or load(directory)
        staged = staged_releases(directory)
        changed: set[str] = {"root", "targets", *contents.channels} if fresh else set()
        new = [release for release in staged if _put_target(contents, release)]
        changed |= {release.channel for release in new} | due(contents, keys, moment)
        commit(
            contents, keys, changed, new, expiry=expiry, now=moment, first=fresh is not None, dry_run=dry_run
        )  # fmt: skip
        if not dry_run:
            forget_staged(directory)
        return new


def refresh(
    directory: str,
    keys: KeyRing,
    *,
    expiry: Expiry = _NO_EXPIRY,
    within: float = _RENEW_SECONDS,
    now: float | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Sign the timestamp and the snapshot anew, and what else expires ``within``, if its keys are here; for cron.

    Returns the roles that are signed anew.
    """
    with locked(directory):
        moment = publishing_time() if now is None else now
        contents = load(directory)
        changed = due(contents, keys, moment, within)
        commit(contents, keys, changed, expiry=expiry, now=moment, dry_run=dry_run)
        return [name for name in ("root", "targets", *contents.channels) if name in changed] + ["snapshot", "timestamp"]


def change(
    directory: str, keys: KeyRing, how: Change, *, expiry: Expiry = _NO_EXPIRY, dry_run: bool = False
) -> Contents:
    """Load, change, sign, publish."""
    with locked(directory):
        contents = load(directory)
        changed = how(contents)
        commit(contents, keys, changed, expiry=expiry, now=publishing_time(), dry_run=dry_run)
        return contents


def due(contents: Contents, keys: KeyRing, now: float, within: float = _RENEW_SECONDS) -> set[str]:
    """What expires soon and can be signed anew by the keys that are here."""
    found = set()
    for name in ("root", "targets", *contents.channels):
        role, payload = contents.role(name), contents.payload(name)
        if payload.expires.timestamp() - now < within and keys.may_sign(role.keyids, role.threshold):
            found.add(name)
    return found


def rotate(directory: str, keys: KeyRing, key_name: str, *, expiry: Expiry = _NO_EXPIRY, dry_run: bool = False) -> str:
    """Replace a role's key (``root-2`` for one of root's) by a new one; returns the new key's name."""
    old = keys.named(key_name)
    role = "root" if key_name.startswith("root-") else key_name.partition("_")[0]
    number = 2
    while any(files.exists(f"{keys.directory}/{role}_{number}.{ending}") for ending in ("pem", "pub", "signer")):
        number += 1
    new_name = f"{role}_{number}"

    def how(contents: Contents) -> set[str]:
        try:
            keyids = contents.role(role).keyids
        except ValueError as exc:
            raise InputError(f"cannot rotate {key_name}: there is no role {role}") from exc
        if old is None or old.keyid not in keyids:
            raise NotFoundError(f"cannot rotate {key_name}: {keys.directory} holds no such key that signs {role} now")
        _prepare(contents, role)
        key = keys.make(new_name)
        revoke_key(contents, role, old.keyid, threshold=0)
        return add_key(contents, role, key, threshold=0)

    with _made_key(keys, new_name, dry_run=dry_run):
        change(directory, keys, how, expiry=expiry, dry_run=dry_run)
    return new_name


def add_role_key(
    directory: str,
    keys: KeyRing,
    role: str,
    name: str,
    make: Callable[[], Key],
    *,
    threshold: int = 0,
    expiry: Expiry = _NO_EXPIRY,
    dry_run: bool = False,
) -> None:
    """One more key for a role: ``make`` makes or connects it, named ``name``. ``threshold`` 0 leaves that as it is."""
    keys.check_free(name)

    def how(contents: Contents) -> set[str]:
        _prepare(contents, role)
        return add_key(contents, role, make(), threshold=threshold)

    with _made_key(keys, name, dry_run=dry_run):
        change(directory, keys, how, expiry=expiry, dry_run=dry_run)


def revoke_role_key(
    directory: str,
    keys: KeyRing,
    role: str,
    key: str,
    *,
    threshold: int = 0,
    expiry: Expiry = _NO_EXPIRY,
    dry_run: bool = False,
) -> str:
    """Take a key (its file's name, its id or the start of that) from a role; returns its id."""
    taken = ""

    def how(contents: Contents) -> set[str]:
        nonlocal taken
        _prepare(contents, role)
        taken = find_key(contents, role, key, keys)
        return revoke_key(contents, role, taken, threshold=threshold)

    change(directory, keys, how, expiry=expiry, dry_run=dry_run)
    return taken


def find_key(contents: Contents, role: str, key: str, keys: KeyRing | None = None) -> str:
    """The id of a key that signs the role. Raises NotFoundError."""
    named = keys.named(key) if keys is not None else None
    found = [
        keyid for keyid in contents.role(role).keyids
        if (named is not None and keyid == named.keyid) or (len(key) >= 6 and keyid.startswith(key))
    ]  # fmt: skip
    if len(found) != 1:
        raise NotFoundError(f"cannot revoke {key}: {len(found)} keys of {role} are called so (release key list)")
    return found[0]


def _prepare(contents: Contents, role: str) -> None:
    """Before a role's keys change: remember the root that hosts have now."""
    if role not in ("root", "targets", "snapshot", "timestamp", *contents.channels):
        raise InputError(f"cannot change the keys of {role}: there is no role {role}")
    if role not in contents.channels and contents.previous_root is None:
        contents.previous_root = copy.deepcopy(contents.root)


def add_key(contents: Contents, role: str, key: Key, *, threshold: int) -> set[str]:
    """In memory. Raises InputError for a threshold that cannot be reached."""
    delegator = contents.targets if role in contents.channels else contents.root
    delegator.add_key(key, role)
    return _set_threshold(contents, role, threshold)


def revoke_key(contents: Contents, role: str, keyid: str, *, threshold: int) -> set[str]:
    """In memory. Raises InputError when too few keys are left (unless one is added next, as ``rotate`` does)."""
    delegator = contents.targets if role in contents.channels else contents.root
    delegator.revoke_key(keyid, role)
    return _set_threshold(contents, role, threshold) if threshold or contents.role(role).keyids else set()


def _set_threshold(contents: Contents, role: str, threshold: int) -> set[str]:
    found = contents.role(role)
    found.threshold = threshold or found.threshold
    return {role, "targets" if role in contents.channels else "root"} - {"snapshot", "timestamp"}


@contextmanager
def _made_key(keys: KeyRing, name: str, *, dry_run: bool) -> Iterator[None]:
    """A key that was made for a change that did not come to pass is removed again."""
    before = keys.named(name)
    done = False
    try:
        yield
        done = not dry_run
    finally:
        if not done and before is None and keys.named(name) is not None:
            keys.forget(name)


def _put_target(contents: Contents, release: Staged) -> bool:
    """Into its role; False when it is published already (a publish was cut off after its rename)."""
    path = release.path
    there = contents.channels[release.channel].targets.get(path)
    if there is not None:
        if there.hashes.get("sha256") != release.sha256:
            raise ConflictError(f"cannot publish {path}: it is published with other bytes")
        return False
    custom: dict[str, Any] = {
        "product": release.product, "version": release.version, "architecture": release.architecture,
        "kind": release.kind,
        "notes": release.notes, **({"floor": release.floor} if release.floor else {}), **release.rules,
    }  # fmt: skip
    target = TargetFile(release.length, {"sha256": release.sha256}, path, {"custom": custom})
    contents.channels[release.channel].targets[path] = target
    for part in release.parts():
        if part.suffix:
            beside = TargetFile(part.length, {"sha256": part.sha256}, path + part.suffix)
            contents.channels[release.channel].targets[path + part.suffix] = beside
    return True
