"""A TUF repository as it lies in a directory: ``metadata/`` and ``targets/``, consistent snapshots, any web server's.

Roles: root (threshold), targets (delegates only), one delegated role per channel with its own key and ``CHANNEL/*``
paths, snapshot and timestamp (online). What the timestamp names is published; anything else in there is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from securesystemslib.signer._key import Key
from tuf.api._payload import (
    DelegatedRole,
    Delegations,
    Role,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from appliance.errors import ConflictError, CorruptError, InputError
from appliance.host import files
from appliance.release.indexing import INDEX, PACK
from appliance.release.keys import KeyRing
from appliance.update import POLICY_FIELD, PRODUCT, Policy, parse_policy, policy_to_json, with_policy

CHANNELS = ("alpha", "beta", "stable")
ROLES = ("root", "targets", *CHANNELS, "snapshot", "timestamp")
_LENGTH_MAX = 16 << 20


@dataclass
class Contents:
    """All current metadata, unsigned; changed in memory, then signed and written by ``publishing``."""

    directory: str
    root: Root
    targets: Targets
    channels: dict[str, Targets]
    snapshot: Snapshot
    timestamp: Timestamp
    previous_root: Root | None = None  # when root changed: its keys must sign too
    signed: dict[str, bytes] = field(default_factory=dict)  # as published, by role

    def role(self, name: str) -> Role:
        """Who may sign it."""
        delegator = self.targets if name in self.channels else self.root
        return delegator.get_delegated_role(name)

    def payload(self, name: str) -> Signed:
        """What they sign."""
        if name in self.channels:
            return self.channels[name]
        tops: dict[str, Signed] = {
            "root": self.root, "targets": self.targets, "snapshot": self.snapshot, "timestamp": self.timestamp,
        }  # fmt: skip
        return tops[name]

    def policy(self, channel: str, product: str = PRODUCT) -> Policy:
        """The channel's rules for a product. Raises InputError: no such channel."""
        if channel not in self.channels:
            raise InputError(f'cannot use channel "{channel}": allowed are {", ".join(self.channels)}')
        return parse_policy(self.channels[channel].unrecognized_fields.get(POLICY_FIELD), product)

    def set_policy(self, channel: str, policy: Policy, product: str = PRODUCT) -> None:
        """In memory."""
        fields = self.channels[channel].unrecognized_fields
        fields[POLICY_FIELD] = with_policy(fields.get(POLICY_FIELD), policy, product)

    def releases(self) -> list[dict[str, Any]]:
        """Every published release, newest target last within a channel."""
        found = []
        for channel, role in self.channels.items():
            for path, target in role.targets.items():
                if path.endswith((INDEX, PACK)):
                    continue  # parts of a release
                custom = target.custom if isinstance(target.custom, Mapping) else {}
                product, kind = str(custom.get("product", "")), str(custom.get("kind", ""))
                policy = self.policy(channel, product)
                found.append(
                    {
                        "channel": channel, "version": str(custom.get("version", "")), "product": product,
                        "kind": kind, "line": (product, kind, str(custom.get("architecture", ""))),
                        "architecture": str(custom.get("architecture", "")), "sha256": target.hashes["sha256"],
                        "length": target.length, "floor": str(custom.get("floor", "")),
                        "notes": str(custom.get("notes", "")), "path": path,
                        "waves": list(custom.get("waves") or ()), "paused": str(custom.get("paused") or ""),
                        "barrier": bool(custom.get("barrier")),
                        "yanked": policy.yanked_why(str(custom.get("version", "0"))),
                    }
                )  # fmt: skip
        return found


def shown(release: Mapping[str, Any]) -> dict[str, Any]:
    """What names it."""
    return {name: release[name] for name in ("channel", "product", "kind", "version", "architecture", "length")}


@contextmanager
def locked(directory: str) -> Iterator[None]:
    """One publisher at a time. Raises ConflictError that names the other's pid."""
    lock = files.lock(f"{directory}/.publishing")
    try:
        yield
    finally:
        lock.release()


def metadata_path(directory: str, role: str, version: int) -> str:
    """Where that version of the role lies."""
    name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
    return f"{directory}/metadata/{name}"


def target_file(directory: str, path: str, sha256: str) -> str:
    """Where a target's bytes lie."""
    folder, _, name = path.rpartition("/")
    return f"{directory}/targets/{folder}/{sha256}.{name}"


def load(directory: str) -> Contents:
    """What the timestamp names. Raises InputError: no repository; CorruptError: not what we would have written."""
    names = files.list_directory(f"{directory}/metadata")
    roots = sorted(int(name.split(".")[0]) for name in names if name.endswith(".root.json") and name[0].isdigit())
    if not roots or "timestamp.json" not in names:
        raise InputError(f"cannot use {directory}: it is no repository (release init {directory})", where=directory)
    signed: dict[str, bytes] = {}

    def read(role: str, version: int) -> Any:
        path = metadata_path(directory, role, version)
        signed[role] = files.read_bytes(path, size_max=_LENGTH_MAX)
        try:
            return Metadata.from_bytes(signed[role]).signed
        except RepositoryError as exc:
            raise CorruptError(f"cannot read {path}: {exc}", where=path) from exc

    root = read("root", roots[-1])
    timestamp = read("timestamp", 0)
    snapshot = read("snapshot", timestamp.snapshot_meta.version)
    versions = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
    targets = read("targets", versions["targets"])
    channels = {name: read(name, versions[name]) for name in CHANNELS if name in versions}
    return Contents(directory, root, targets, channels, snapshot, timestamp, signed=signed)


def create(directory: str, keys: KeyRing, *, root_keys: int, threshold: int) -> Contents:
    """A new repository in memory, with the keys it lacks made. Raises ConflictError: there is one; InputError."""
    if files.exists(f"{directory}/metadata/timestamp.json"):
        raise ConflictError(f"cannot make a repository in {directory}: there is one", where=directory)
    if not 1 <= root_keys <= 9 or not 1 <= threshold <= root_keys:
        raise InputError(
            f"cannot make a repository: threshold {threshold} of {root_keys} root keys; allowed are 1 to 9 keys, "
            f"and a threshold from 1 to the number of keys"
        )
    root = Root(version=1, consistent_snapshot=True)
    for number in range(1, root_keys + 1):
        root.add_key(keys.named(f"root-{number}") or keys.make(f"root-{number}"), "root")
    root.roles["root"].threshold = threshold
    for role in ("targets", "snapshot", "timestamp"):
        root.add_key(keys.named(role) or keys.make(role), role)
    delegated, public = dict[str, DelegatedRole](), dict[str, Key]()
    for channel in CHANNELS:
        key = keys.named(channel) or keys.make(channel)
        public[key.keyid] = key
        # A star does not cross a slash: CHANNEL/VERSION/ARCHITECTURE/FILE.
        delegated[channel] = DelegatedRole(channel, [key.keyid], 1, terminating=True, paths=[f"{channel}/*/*/*"])
    targets = Targets(version=1, delegations=Delegations(public, delegated))
    channels = {channel: Targets(version=1) for channel in CHANNELS}
    return Contents(directory, root, targets, channels, Snapshot(version=1), Timestamp(version=1))


def listing(directory: str) -> dict[str, Any]:
    """What is published, and until when it is believed."""
    contents = load(directory)
    return {
        "directory": directory,
        "roles": [
            {
                "role": name, "version": contents.payload(name).version,
                "expires": contents.payload(name).expires.isoformat().replace("+00:00", "Z"),
                "keys": len(contents.role(name).keyids), "threshold": contents.role(name).threshold,
            }
            for name in ("root", "targets", *contents.channels, "snapshot", "timestamp")
        ],
        "releases": [{name: said for name, said in one.items() if name != "line"} for one in contents.releases()],
        "rules": {
            channel: rules for channel in contents.channels if (rules := policy_to_json(contents.policy(channel)))
        },
    }  # fmt: skip
