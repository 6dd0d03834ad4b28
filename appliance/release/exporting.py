"""A repository as one file, for a stick: what a host needs to update without a network, verified there as ever."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from appliance.errors import NotFoundError
from appliance.host import files
from appliance.host.archive_file import write_archive
from appliance.release.indexing import INDEX, PACK
from appliance.release.repository import Contents, load, metadata_path, shown, target_file
from appliance.update import parse_version


def export(
    directory: str, out: str, *, channels: Collection[str] = (), everything: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Write ``out``: all current metadata, and the bytes of each channel's newest release (``everything``: of all).

    Raises NotFoundError when there is no release in those channels, or the bytes of one are not there.
    """
    contents = load(directory)
    found = [one for one in contents.releases() if not channels or one["channel"] in channels]
    if not everything:
        newest: dict[tuple[str, Any], dict[str, Any]] = {}
        for one in sorted(found, key=lambda one: parse_version(one["version"])):
            newest[one["channel"], one["line"]] = one
        found = list(newest.values())
    if not found:
        said = ", ".join(channels) or "any channel"
        raise NotFoundError(f"cannot export {directory}: it holds no release in {said}", where=directory)
    paths = _metadata_files(directory, contents)
    for one in found:
        paths += _files_of(directory, contents, one)
    names = sorted({path.removeprefix(directory + "/") for path in paths})
    if dry_run:
        length = sum(files.file_stat(f"{directory}/{name}").size for name in names)
    else:
        length = write_archive(directory, names, out)
    return {
        "file": out, "length": length,
        "exported": [shown(one) for one in found],
    }  # fmt: skip


def _files_of(directory: str, contents: Contents, one: dict[str, Any]) -> list[str]:
    """What is packed is not there whole, but then its index and its pack are."""
    targets, there = contents.channels[one["channel"]].targets, {}
    for suffix in ("", INDEX, PACK):
        target = targets.get(one["path"] + suffix)
        if target is not None:
            path = target_file(directory, target.path, target.hashes["sha256"])
            if files.exists(path):
                there[suffix] = path
    if "" not in there and not {INDEX, PACK} <= there.keys():
        raise NotFoundError(
            f"cannot export {one['channel']} {one['version']}: its bytes are not in {directory}", where=directory
        )
    return list(there.values())


def _metadata_files(directory: str, contents: Contents) -> list[str]:
    """All roots, for a host may have the first; of the rest what is current."""
    roots = [f"{directory}/metadata/{name}" for name in files.list_directory(f"{directory}/metadata")
             if name.endswith(".root.json")]  # fmt: skip
    current = ("timestamp", "snapshot", "targets", *contents.channels)
    return roots + [metadata_path(directory, name, contents.payload(name).version) for name in current]
