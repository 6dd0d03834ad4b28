"""Sign what changed, write it beside what is published, and make it the published state by one rename: the timestamp.

Every other file has a name that nothing refers to yet, so an attempt that fails or is killed leaves the repository as
it was. One thing has a second file that hosts look for by themselves: a new root. While keys change, everything that
hosts read first is signed by the old keys too, so the new timestamp is good under both roots, and the root comes after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from securesystemslib.signer._signer import Signer
from tuf.api._payload import MetaFile, Root
from tuf.api.metadata import Metadata

from appliance.errors import ApplianceError, ConflictError, CorruptError, InputError, UnavailableError
from appliance.host import clock, files
from appliance.host.failpoint import reach
from appliance.host.slots import RealSlotCalls, link_or_copy
from appliance.release.indexing import Part
from appliance.release.keys import KeyRing
from appliance.release.repository import CHANNELS, Contents, metadata_path, target_file
from appliance.release.staging import Staged, staged_file
from appliance.update import METADATA_LENGTH_MAX, format_time
from appliance.version import built_seconds

_DAY = 86400.0
_TOPS = ("targets", "snapshot", "timestamp")  # their keys are named by root


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


def publishing_time() -> float:
    """Now, as far as a publisher may believe its clock: not before this version was made."""
    return max(clock.wall_seconds(), built_seconds())


def commit(
    contents: Contents,
    keys: KeyRing,
    changed: Iterable[str],
    new: Sequence[Staged] = (),
    *,
    expiry: Expiry,
    now: float,
    first: bool = False,
    dry_run: bool = False,
    signed_root: bytes = b"",
) -> None:
    """Publish ``contents``. ``signed_root``: the new root was signed elsewhere, by the ceremony.

    Raises InputError (keys missing, something stays expired), CorruptError (staged bytes damaged); the repository is
    unchanged then. ``dry_run`` signs everything and writes nothing.
    """
    check_thresholds(contents)
    directory, before, wanted = contents.directory, contents.previous_root, set(changed)
    if before is not None and not _same_keys(contents.root, before, "targets"):
        wanted.add("targets")
    order = [name for name in ("root", "targets", *contents.channels) if name in wanted]
    overlap = before is None or all(_may_overlap(contents.root, before, role, keys) for role in _TOPS)
    signed: dict[str, bytes] = {}

    def sign(name: str) -> None:
        payload = contents.payload(name)
        if name == "root" and signed_root:
            signed[name] = signed_root
            return
        payload.version += 0 if first else 1
        payload.expires = datetime.fromtimestamp(now + expiry.of(name), UTC).replace(microsecond=0)
        signed[name] = sign_role(name, payload, contents, keys)

    for name in order:  # all signing before any writing: a key that is missing changes nothing
        sign(name)
    metas = contents.snapshot.meta
    for name in ("targets", *contents.channels):
        if name in signed:
            metas[f"{name}.json"] = MetaFile.from_data(contents.payload(name).version, signed[name], ["sha256"])
    sign("snapshot")
    contents.timestamp.snapshot_meta = MetaFile.from_data(contents.snapshot.version, signed["snapshot"], ["sha256"])
    sign("timestamp")
    for name, data in signed.items():
        if len(data) > METADATA_LENGTH_MAX:
            raise InputError(
                f"cannot publish: the metadata of {name} would have {len(data) >> 20} MiB, and hosts take at most "
                f"{METADATA_LENGTH_MAX >> 20} MiB (release prune --keep N)"
            )
    for name in ("root", "targets", *contents.channels):
        payload = contents.payload(name)
        if payload.expires.timestamp() <= now:
            raise InputError(
                f"cannot publish: {name} expired on {format_time(payload.expires.timestamp())}, and no host would "
                f"believe anything; {keys.directory} does not hold the keys that sign it anew"
                + (" (release root export-payload)" if name == "root" else "")
            )
    calls = RealSlotCalls()
    for release in new:
        for part in release.parts():
            check_bytes(staged_file(directory, part.sha256), part, release.version)
    if dry_run:
        return

    written: list[str] = []
    last = ["root"] if "root" in order else []
    names = [*(name for name in order if name != "root"), "snapshot", *([] if overlap and not first else last)]
    try:
        for release in new:
            _place(calls, directory, release, written)
        for name in names:
            path = metadata_path(directory, name, contents.payload(name).version)
            if not files.exists(path):
                written.append(path)
            files.write_atomic(path, signed[name])
            reach(f"release.{name}.written")
        files.write_atomic(metadata_path(directory, "timestamp", 0), signed["timestamp"])
    except ApplianceError:
        for path in reversed(written):
            calls.remove(path)
        raise
    reach("release.timestamp.written")
    if last and overlap and not first:
        path = metadata_path(directory, "root", contents.root.version)
        try:
            files.write_atomic(path, signed["root"])
        except ApplianceError as exc:
            said = "everything but the new root is published, and good for hosts; do the same again"
            raise UnavailableError(f"{exc.message}: {said}", where=path) from exc


def check_thresholds(contents: Contents) -> None:
    """Raises InputError when a role asks for more keys than it has: nobody could ever sign it again."""
    for name in ("root", "targets", *contents.channels, "snapshot", "timestamp"):
        role = contents.role(name)
        if not 1 <= role.threshold <= len(role.keyids):
            raise InputError(
                f"cannot change the keys of {name}: its threshold would be {role.threshold} of {len(role.keyids)} keys"
            )


def sign_role(name: str, payload: Any, contents: Contents, keys: KeyRing) -> bytes:
    """By all its keys that are here; root by those before too, and what hosts read first while keys change."""
    metadata = Metadata(payload)
    role = contents.role(name)
    signers = {signer.public_key.keyid: signer for signer in keys.signers(name, role.keyids, role.threshold)}
    if contents.previous_root is not None and name not in contents.channels:
        for signer in _signers_before(name, contents.previous_root, keys):
            signers[signer.public_key.keyid] = signer
    add_signatures(metadata, signers.values())
    return metadata.to_bytes()


def add_signatures(metadata: Metadata[Any], signers: Iterable[Signer]) -> None:
    """Beside those that are there. Raises what a signer raises: python-tuf's own ``sign`` would hide it."""
    data = metadata.signed_bytes
    for signer in signers:
        metadata.signatures[signer.public_key.keyid] = signer.sign(data)


def _signers_before(name: str, before: Root, keys: KeyRing) -> list[Signer]:
    role = before.get_delegated_role(name)
    if name == "root":
        return keys.signers("root (by the keys before)", role.keyids, role.threshold)
    enough = keys.may_sign(role.keyids, role.threshold)  # a lost key cannot sign: hosts then need the new root first
    return keys.signers(name, role.keyids, role.threshold) if enough else []


def _may_overlap(root: Root, before: Root, role: str, keys: KeyRing) -> bool:
    old = before.get_delegated_role(role)
    return _same_keys(root, before, role) or keys.may_sign(old.keyids, old.threshold)


def _same_keys(root: Root, before: Root, role: str) -> bool:
    old, new = before.get_delegated_role(role), root.get_delegated_role(role)
    return set(old.keyids) == set(new.keyids) and old.threshold == new.threshold


def _place(calls: RealSlotCalls, directory: str, release: Staged, written: list[str]) -> None:
    """Every file of it, durable."""
    base = release.path
    folder = ""
    for part in release.parts():
        target = target_file(directory, base + part.suffix, part.sha256)
        try:
            link_or_copy(staged_file(directory, part.sha256), target)
            written.append(target)
        except ConflictError:
            check_bytes(target, part, release.version)  # an attempt that was cut off wrote it
        calls.sync(target)
        folder = target.rpartition("/")[0]
    while folder not in ("", directory):
        calls.sync_directory(folder)
        folder = folder.rpartition("/")[0]


def check_bytes(path: str, part: Part, version: str) -> None:
    """Raises CorruptError when the file is not what was added."""
    if files.sha256_file(path) != part.sha256 or files.file_stat(path).size != part.length:
        raise CorruptError(f"cannot publish {version}: {path} is not what was added", where=path)
