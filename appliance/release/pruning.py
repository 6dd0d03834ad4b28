"""What no host needs any more: withdrawn and old releases, files that nothing signed names, metadata of the past."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from appliance.errors import InputError
from appliance.host import files
from appliance.release.committing import Expiry, commit, publishing_time
from appliance.release.indexing import INDEX, PACK
from appliance.release.keys import KeyRing
from appliance.release.repository import Contents, load, locked, metadata_path, shown, target_file
from appliance.update import parse_version

_GRACE_SECONDS = 86400.0  # a host may be in the middle of reading the snapshot before


def prune(
    directory: str,
    keys: KeyRing,
    *,
    keep: int = 0,
    grace: float = _GRACE_SECONDS,
    expiry: Expiry,
    dry_run: bool = False,
    now: float | None = None,
) -> dict[str, Any]:
    """Take withdrawn releases out, and those older than the newest ``keep`` of a channel (0: none for their age).

    Barriers and what floors need stay. Signed first, then removed; who is killed between leaves files that the next
    prune removes. Raises InputError.
    """
    if keep < 0:
        raise InputError("cannot prune: --keep must not be negative")
    with locked(directory):
        moment = publishing_time() if now is None else now
        contents = load(directory)
        gone = [one for channel in contents.channels for one in _outlived(contents, channel, keep)]
        changed = set()
        for one in gone:
            targets = contents.channels[one["channel"]].targets
            for path in [path for path in targets if path in (one["path"], one["path"] + INDEX, one["path"] + PACK)]:
                del targets[path]
            changed.add(one["channel"])
        if changed:
            commit(contents, keys, changed, expiry=expiry, now=moment, dry_run=dry_run)
        if dry_run:
            named = contents  # as it would be: its old metadata files are still current on the disk
            unneeded = list(_unneeded_targets(named))
        else:
            unneeded = [*_unneeded_targets(contents), *_old_metadata(contents, moment - grace)]
        size = sum(files.file_stat(path).size for path in unneeded)
        if not dry_run:
            for path in unneeded:
                files.remove(path)
            _remove_empty(f"{directory}/targets")
        return {
            "pruned": [shown(one) for one in gone],
            "removed_files": len(unneeded), "removed_bytes": size,
        }  # fmt: skip


def _outlived(contents: Contents, channel: str, keep: int) -> list[dict[str, Any]]:
    mine = [one for one in contents.releases() if one["channel"] == channel]
    found = [one for one in mine if one["yanked"]]
    for line in {one["line"] for one in mine}:
        same = sorted(
            (one for one in mine if one["line"] == line and not one["yanked"]),
            key=lambda one: parse_version(one["version"]), reverse=True,
        )  # fmt: skip
        kept = same[:keep] if keep else list(same)
        for one in same[len(kept) :]:
            if one["barrier"] or _is_step(one, same, kept):
                kept.append(one)
        found += [one for one in same if one not in kept]
    return found


def _is_step(one: dict[str, Any], same: list[dict[str, Any]], kept: list[dict[str, Any]]) -> bool:
    """Whether the floor of a release that stays is passed by this one and by nothing else that stays."""
    version = parse_version(one["version"])
    for later in kept:
        if later["floor"] and parse_version(later["floor"]) <= version < parse_version(later["version"]):
            floor, top = parse_version(later["floor"]), parse_version(later["version"])
            if not any(floor <= parse_version(other["version"]) < top for other in kept):
                return True
    return False


def _unneeded_targets(contents: Contents) -> Iterator[str]:
    named = {
        target_file(contents.directory, path, target.hashes["sha256"])
        for role in (contents.targets, *contents.channels.values())
        for path, target in role.targets.items()
    }
    return (path for path in files.walk(f"{contents.directory}/targets") if path not in named)


def _old_metadata(contents: Contents, before: float) -> Iterator[str]:
    current = {
        metadata_path(contents.directory, name, contents.payload(name).version)
        for name in ("targets", *contents.channels, "snapshot", "timestamp")
    }
    for path in files.walk(f"{contents.directory}/metadata"):
        if path not in current and not path.endswith(".root.json") and files.file_stat(path).modified_seconds < before:
            yield path


def _remove_empty(directory: str) -> None:
    for path in files.list_directory(directory):
        inner = f"{directory}/{path}"
        if files.file_stat(inner).is_directory:
            _remove_empty(inner)
            if not files.list_directory(inner):
                files.remove_tree(inner)
