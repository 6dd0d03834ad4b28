"""A whole repository as a host would see it: with nothing but a trust root, every target's bytes included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from appliance.errors import UntrustedError
from appliance.host import files
from appliance.release.committing import publishing_time
from appliance.release.indexing import INDEX, PACK, check_parts
from appliance.release.repository import Contents, load, metadata_path, target_file
from appliance.update import Offer, Product, Repository, choose, format_time, newest_first, parse_version

_WARN_SECONDS = 30 * 86400.0
_STEPS_MAX = 1000


def verify(directory: str, *, trust_root: str, scratch: str) -> list[dict[str, Any]]:
    """Every release, verified; ``scratch`` is an empty directory. Raises UntrustedError at the first that is not."""
    data = files.read_bytes(trust_root, size_max=1 << 20)
    repository = Repository(repository=files.absolute(directory), trust_root=data, directory=scratch)
    repository.refresh()
    contents = load(directory)
    verified = []
    for channel, role in contents.channels.items():
        for path, target in role.targets.items():
            if path + PACK in role.targets:
                continue  # it is served as its pack
            signed, _ = repository.locate(path)
            file = target_file(directory, path, signed.hashes["sha256"])
            if files.file_stat(file).size != target.length or files.sha256_file(file) != target.hashes["sha256"]:
                raise UntrustedError(f"cannot verify {file}: its bytes are not those that were signed", where=file)
        mine = [found for found in contents.releases() if found["channel"] == channel]
        for name, kind, architecture in sorted({found["line"] for found in mine}):
            for offer in repository.offers(channel, architecture, Product(name, kind)):
                _check_index(contents, channel, offer)
                verified.append(
                    {"channel": channel, "product": name, "version": offer.version, "architecture": architecture,
                     "length": offer.length}
                )  # fmt: skip
    return verified


def _check_index(contents: Contents, channel: str, offer: Offer) -> None:
    targets = contents.channels[channel].targets
    index, pack = targets.get(offer.path + INDEX), targets.get(offer.path + PACK)
    if index is None:
        return
    held = (offer.path, offer.sha256) if pack is None else (offer.path + PACK, pack.hashes["sha256"])
    check_parts(
        index_file=target_file(contents.directory, offer.path + INDEX, index.hashes["sha256"]),
        pack_file=target_file(contents.directory, *held), sha256=offer.sha256, length=offer.length,
    )  # fmt: skip


def outlook(directory: str) -> dict[str, Any]:
    """What expires when, the way that a host on each version would go, and what a publisher should look at."""
    contents, now = load(directory), publishing_time()
    expires, warnings = [], []
    for name in ("root", "targets", *contents.channels, "snapshot", "timestamp"):
        at = contents.payload(name).expires.timestamp()
        expires.append({"role": name, "expires": format_time(at), "days": int((at - now) // 86400)})
        life = _WARN_SECONDS if name in ("root", "targets", *contents.channels) else 3 * 86400.0
        if at - now < life:
            warnings.append(f"{name} expires on {format_time(at)}: sign it anew (release refresh)")
    for version in range(1, contents.root.version):
        if not files.exists(metadata_path(directory, "root", version)):
            warnings.append(f"root version {version} is gone: hosts that trust an older one cannot follow")
    ways = []
    for channel in contents.channels:
        for line in sorted({one["line"] for one in contents.releases() if one["channel"] == channel}):
            way = _ways(contents, channel, line)
            ways += way
            warnings += [f"{channel}: a host on {one['from']} is stuck: {one['why']}" for one in way if one["stuck"]]
    return {"expires": expires, "ways": ways, "warnings": warnings}


def _ways(contents: Contents, channel: str, line: tuple[str, str, str]) -> list[dict[str, Any]]:
    offers = [
        Offer(one["path"], one["version"], one["sha256"], one["length"], one["floor"], barrier=one["barrier"])
        for one in contents.releases() if one["channel"] == channel and one["line"] == line
    ]  # fmt: skip
    known, policy = newest_first(offers), replace(contents.policy(channel, line[0]), paused="")  # a pause ends
    marks = [offer for offer in known if offer.barrier or offer.floor]
    found = []
    for offer in known if marks else known[-1:]:  # without steps everybody goes straight to the newest
        steps, why = _follow(known, offer.version, channel, policy)
        newest = next((one.version for one in known if not policy.yanked_why(one.version)), "")
        end = steps[-1] if steps else offer.version
        behind = bool(newest) and parse_version(end) < parse_version(newest)
        stuck = behind and not policy.dead_end_why(end)
        found.append({"channel": channel, "product": line[0], "architecture": line[2], "from": offer.version,
                      "steps": steps, "stuck": stuck, "why": why if behind else ""})  # fmt: skip
    return found


def _follow(known: Sequence[Offer], version: str, channel: str, policy: Any) -> tuple[list[str], str]:
    steps: list[str] = []
    while len(steps) < _STEPS_MAX:
        choice = choose(known, running=version, denied=(), channel=channel, policy=policy)
        if choice.offer is None:
            return steps, choice.reason
        version = choice.offer.version
        steps.append(version)
    return steps, ""
