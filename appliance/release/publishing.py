"""Sign what changed, write it beside what is published, and make it the published state by one rename: the timestamp.

Every other file has a name that nothing refers to yet, so an attempt that fails leaves the repository as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuf.api._payload import MetaFile, TargetFile
from tuf.api.metadata import Metadata

from appliance.errors import ApplianceError, ConflictError, CorruptError, InputError, NotFoundError
from appliance.host import clock, files
from appliance.host.slots import RealSlotCalls, link_or_copy
from appliance.release.keys import KeyRing
from appliance.release.repository import CHANNELS, Contents, load, metadata_path, target_file
from appliance.release.staging import Staged, forget_staged, staged_file, staged_releases
from appliance.update import PRODUCT, target_path

_DAY = 86400.0
_RENEW_SECONDS = 30 * _DAY  # what expires sooner is signed again, if its keys are here


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """For how long each kind of metadata is believed, in seconds."""

    root: float = 365 * _DAY
    targets: float = 365 * _DAY
    channel: float = 365 * _DAY
    snapshot: float = 30 * _DAY
    timestamp: float = 30 * _DAY

    def of(self, role: str) -> float:
        """By role."""
        return self.channel if role in CHANNELS else float(getattr(self, role))


def publish(
    directory: str, keys: KeyRing, *, expiry: Expiry = Expiry(), fresh: Contents | None = None, now: float | None = None
) -> list[Staged]:
    """Publish what is staged, and believe the rest anew. ``fresh`` is a repository that ``create`` made.

    Raises InputError (keys missing), CorruptError (staged bytes damaged); the repository is unchanged then.
    """
    lock = files.lock(f"{directory}/.publishing")
    try:
        moment = clock.wall_seconds() if now is None else now
        contents = fresh or load(directory)
        staged = staged_releases(directory)
        changed: set[str] = {"root", "targets", *contents.channels} if fresh else set()
        new = [release for release in staged if _put_target(contents, release)]
        changed |= {release.channel for release in new}
        for name in ("root", "targets", *contents.channels):
            role, payload = contents.role(name), contents.payload(name)
            if payload.expires.timestamp() - moment < _RENEW_SECONDS and keys.may_sign(role.keyids, role.threshold):
                changed.add(name)
        _publish(contents, keys, changed, new, expiry=expiry, now=moment, first=fresh is not None)
        forget_staged(directory)
        return new
    finally:
        lock.release()


def rotate(directory: str, keys: KeyRing, key_name: str, *, expiry: Expiry = Expiry()) -> str:
    """Replace a role's key (``root-2`` for one of root's) by a new one; returns the new key's name."""
    lock = files.lock(f"{directory}/.publishing")
    try:
        contents = load(directory)
        old = keys.named(key_name)
        role = "root" if key_name.startswith("root-") else key_name.partition("_")[0]
        try:
            keyids = contents.role(role).keyids
        except ValueError as exc:
            raise InputError(f"cannot rotate {key_name}: there is no role {role}") from exc
        if old is None or old.keyid not in keyids:
            raise NotFoundError(f"cannot rotate {key_name}: {keys.directory} holds no such key that signs {role} now")
        number = 2
        while files.exists(f"{keys.directory}/{role}_{number}.pem"):
            number += 1
        new_name = f"{role}_{number}"
        if role not in contents.channels:
            contents.previous_root = load(directory).root
        key = keys.make(new_name)
        delegator = contents.targets if role in contents.channels else contents.root
        delegator.revoke_key(old.keyid, role)
        delegator.add_key(key, role)
        changed = {role, "targets"} if role in contents.channels else {role, "root"}
        _publish(contents, keys, changed - {"snapshot", "timestamp"}, [], expiry=expiry, now=clock.wall_seconds())
        return new_name
    finally:
        lock.release()


def _put_target(contents: Contents, release: Staged) -> bool:
    """Into its role; False when it is published already (a publish was cut off after its rename)."""
    path = target_path(release.channel, release.version, release.architecture)
    there = contents.channels[release.channel].targets.get(path)
    if there is not None:
        if there.hashes.get("sha256") != release.sha256:
            raise ConflictError(f"cannot publish {path}: it is published with other bytes")
        return False
    custom = {
        "product": PRODUCT, "version": release.version, "architecture": release.architecture, "kind": "binary",
        "notes": release.notes, **({"floor": release.floor} if release.floor else {}),
    }  # fmt: skip
    target = TargetFile(release.length, {"sha256": release.sha256}, path, {"custom": custom})
    contents.channels[release.channel].targets[path] = target
    return True


def _publish(
    contents: Contents,
    keys: KeyRing,
    changed: Iterable[str],
    new: Iterable[Staged],
    *,
    expiry: Expiry,
    now: float,
    first: bool = False,
) -> None:
    calls = RealSlotCalls()
    directory = contents.directory
    order = [name for name in ("root", "targets", *contents.channels) if name in set(changed)]
    signed: dict[str, bytes] = {}

    def sign(name: str) -> None:
        payload = contents.payload(name)
        payload.version += 0 if first else 1
        payload.expires = datetime.fromtimestamp(now + expiry.of(name), UTC).replace(microsecond=0)
        signed[name] = _signed(name, payload, contents, keys)

    for name in order:  # all signing before any writing: a key that is missing changes nothing
        sign(name)
    metas = contents.snapshot.meta
    for name in ("targets", *contents.channels):
        if name in signed:
            metas[f"{name}.json"] = MetaFile.from_data(contents.payload(name).version, signed[name], ["sha256"])
    sign("snapshot")
    contents.timestamp.snapshot_meta = MetaFile.from_data(
        contents.snapshot.version, signed["snapshot"], ["sha256"]
    )  # fmt: skip
    sign("timestamp")

    written: list[str] = []
    try:
        for release in new:
            source = staged_file(directory, release.sha256)
            _check_bytes(calls, source, release)
            path = target_path(release.channel, release.version, release.architecture)
            target = target_file(directory, path, release.sha256)
            try:
                link_or_copy(source, target)
                written.append(target)
            except ConflictError:
                _check_bytes(calls, target, release)  # an attempt that was cut off wrote it
            calls.sync(target)
            folder = target.rpartition("/")[0]
            while folder != directory:
                calls.sync_directory(folder)
                folder = folder.rpartition("/")[0]
        # Hosts look for the next root by number: it comes last but one.
        for name in [*(name for name in order if name != "root"), "snapshot", *(["root"] if "root" in order else [])]:
            path = metadata_path(directory, name, contents.payload(name).version)
            written.append(path)
            files.write_atomic(path, signed[name])
        files.write_atomic(metadata_path(directory, "timestamp", 0), signed["timestamp"])
    except ApplianceError:
        for path in reversed(written):
            calls.remove(path)
        raise


def _signed(name: str, payload: Any, contents: Contents, keys: KeyRing) -> bytes:
    metadata = Metadata(payload)
    role = contents.role(name)
    signers = {signer.public_key.keyid: signer for signer in keys.signers(name, role.keyids, role.threshold)}
    if name == "root" and contents.previous_root is not None:
        before = contents.previous_root.get_delegated_role("root")
        for signer in keys.signers("root (by the keys before)", before.keyids, before.threshold):
            signers[signer.public_key.keyid] = signer
    for signer in signers.values():
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def _check_bytes(calls: RealSlotCalls, path: str, release: Staged) -> None:
    if files.sha256_file(path) != release.sha256 or files.file_stat(path).size != release.length:
        raise CorruptError(f"cannot publish {release.version}: {path} is not what was added", where=path)
