"""What is to be published next: lies in ``.staged/`` of the repository, seen by no host before ``publish``."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Concatenate, ParamSpec, TypeVar

from appliance.errors import ConflictError, InputError, NotFoundError, UntrustedError
from appliance.host import files
from appliance.host.slots import RealSlotCalls, link_or_copy, read_tail
from appliance.release.indexing import INDEX, PACK, Part, make_parts
from appliance.release.repository import CHANNELS, Contents, load, locked, target_file
from appliance.update import (
    FOOTER_SIZE,
    HEADER_SIZE,
    OURS,
    PRODUCT,
    Kind,
    Product,
    decode_header,
    name_problem,
    parse_footer,
    parse_version,
    target_path,
)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Staged:
    """One release for one channel and architecture."""

    channel: str
    version: str
    architecture: str
    sha256: str
    length: int
    floor: str = ""
    notes: str = ""
    rules: dict[str, Any] = field(default_factory=dict)  # signed beside these: waves, barrier
    index_sha256: str = ""  # a small file has none
    index_length: int = 0
    pack_sha256: str = ""  # when its chunks lie in a file of their own; it is not served whole then
    pack_length: int = 0
    product: str = PRODUCT
    kind: Kind = "binary"

    @property
    def path(self) -> str:
        """Where it lies below ``targets``."""
        return target_path(self.channel, self.version, self.architecture, Product(self.product, self.kind))

    @property
    def line(self) -> tuple[str, str, str]:
        """The releases among which it is one of many versions."""
        return (self.product, self.kind, self.architecture)

    def parts(self) -> tuple[Part, ...]:
        """The files that are served and signed for it."""
        whole = Part("", self.sha256, self.length)
        index = (Part(INDEX, self.index_sha256, self.index_length),) if self.index_sha256 else ()
        if not self.pack_sha256:
            return (whole, *index)
        return (Part(PACK, self.pack_sha256, self.pack_length), *index)


def staging_directory(directory: str) -> str:
    """Beside what is served."""
    return f"{directory}/.staged"


def staged_file(directory: str, sha256: str) -> str:
    """The bytes, by content."""
    return f"{staging_directory(directory)}/{sha256}"


def _changes_file(directory: str) -> str:
    return f"{staging_directory(directory)}/changes.json"


def staged_releases(directory: str) -> list[Staged]:
    """In the order in which they were added."""
    try:
        data = files.read_bytes(_changes_file(directory), size_max=1 << 20)
        return [Staged(**value) for value in json.loads(data)]
    except NotFoundError:
        return []
    except (ValueError, TypeError) as exc:
        where = _changes_file(directory)
        raise InputError(f"cannot read {where}: {exc}; remove {staging_directory(directory)}", where=where) from exc


def _alone(how: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
    """Not while somebody publishes: what is staged goes away then. Nothing is made where no repository is."""

    @functools.wraps(how)
    def stage(directory: str, /, *args: P.args, **options: P.kwargs) -> T:
        load(directory)
        with locked(directory):
            return how(directory, *args, **options)

    return stage


@_alone
def stage_file(
    directory: str,
    file: str,
    *,
    channel: str,
    architecture: str,
    version: str = "",
    floor: str = "",
    notes: str = "",
    rules: dict[str, Any] | None = None,
    packed: bool = False,
    product: Product = OURS,
    dry_run: bool = False,
) -> Staged:
    """Take a built binary, an OS image or a bundle's archive in.

    Raises InputError (no binary, backwards), ConflictError (changed, twice).

    ``packed``: its chunks are served compressed, in a file of their own. A binary is compressed already.
    """
    contents = load(directory)
    if problem := name_problem(product.name, product.kind):
        raise InputError(f"cannot add {file}: the product's name {product.name!r} {problem}", where=file)
    version = _version_of(file, version, product.kind)
    if floor:
        check_floor(version, floor)
    _check_channel(channel)
    files.make_directory(staging_directory(directory))
    calls = RealSlotCalls()
    temp = f"{staging_directory(directory)}/incoming"
    calls.remove(temp)
    before = files.file_stat(file)
    digest, length = hashlib.sha256(), 0
    for piece in calls.pieces(file):
        calls.write_at(temp, length, piece)
        digest.update(piece)
        length += len(piece)
        if length > before.size:
            break
    after = files.file_stat(file)
    if (before.size, before.modified_seconds) != (after.size, after.modified_seconds) or length != before.size:
        calls.remove(temp)
        raise ConflictError(f"cannot add {file}: it changed while it was read", where=file)
    calls.sync(temp)
    release = Staged(
        channel=channel, version=version, architecture=architecture, sha256=digest.hexdigest(), length=length,
        floor=floor, notes=notes, rules=rules or {}, product=product.name, kind=product.kind,
    )  # fmt: skip
    try:
        _check_forward(directory, contents, release)
    except (InputError, ConflictError):
        calls.remove(temp)
        raise
    if dry_run:
        calls.remove(temp)
        return release
    for part in make_parts(
        temp, sha256=release.sha256, length=length, layout="pack" if packed else "file",
        folder=staging_directory(directory),
    ):  # fmt: skip
        release = _with_part(release, part)
    calls.rename(temp, staged_file(directory, release.sha256))
    _add(directory, release)
    return release


@_alone
def stage_promotion(
    directory: str,
    version: str,
    source: str,
    target: str,
    *,
    product: str = PRODUCT,
    waves: Sequence[dict[str, Any]] = (),
    dry_run: bool = False,
) -> list[Staged]:
    """The same bytes for another channel, every architecture of them; that channel's key will sign them again."""
    contents = load(directory)
    _check_channel(source)
    _check_channel(target)
    wanted = parse_version(version)
    staged = []
    for channel in (source, target):
        if why := contents.policy(channel, product).yanked_why(version):
            raise ConflictError(f"cannot promote {version}: it was withdrawn from {channel}: {why}")
    for found in contents.releases():
        if (found["channel"], found["product"]) != (source, product) or parse_version(found["version"]) != wanted:
            continue
        release = Staged(
            channel=target, version=found["version"], architecture=found["architecture"], sha256=found["sha256"],
            length=found["length"], floor=found["floor"], notes=found["notes"], product=product, kind=found["kind"],
            rules={**({"barrier": True} if found["barrier"] else {}), **({"waves": list(waves)} if waves else {})},
        )  # fmt: skip
        _check_forward(directory, contents, release)
        for suffix in (INDEX, PACK):
            if part := contents.channels[source].targets.get(found["path"] + suffix):
                release = _with_part(release, Part(suffix, part.hashes["sha256"], part.length))
        staged.append(release)
        if dry_run:
            continue
        files.make_directory(staging_directory(directory))
        for one in release.parts():
            path = staged_file(directory, one.sha256)
            if not files.exists(path):
                link_or_copy(target_file(directory, found["path"] + one.suffix, one.sha256), path)
        _add(directory, release)
    if not staged:
        raise NotFoundError(f"cannot promote {version}: channel {source} holds no such release (publish it first)")
    return staged


def forget_staged(directory: str) -> None:
    """After a publish: the list first, so that nothing is published twice."""
    files.remove(_changes_file(directory))
    files.remove_tree(staging_directory(directory))


def _with_part(release: Staged, part: Part) -> Staged:
    if part.suffix == INDEX:
        return replace(release, index_sha256=part.sha256, index_length=part.length)
    return replace(release, pack_sha256=part.sha256, pack_length=part.length)


def _add(directory: str, release: Staged) -> None:
    every = [asdict(one) for one in (*staged_releases(directory), release)]
    files.write_atomic(_changes_file(directory), json.dumps(every, indent=1).encode())


def _version_of(file: str, said: str, kind: Kind) -> str:
    try:
        if kind == "os":
            files.file_stat(file)  # says that it is missing
            found = decode_header(RealSlotCalls().read(file, size_max=HEADER_SIZE)).version
        elif kind == "bundle":
            raise InputError(f"cannot add {file}: a bundle does not know its version (--release-version)", where=file)
        else:
            found = parse_footer(read_tail(file, FOOTER_SIZE), file=file).version
    except NotFoundError:
        raise
    except (InputError, UntrustedError):
        if not said or kind == "os":
            raise
        found = said
    if said and parse_version(said) != parse_version(found):
        raise InputError(f"cannot add {file} as {said}: it calls itself {found}", where=file)
    return str(parse_version(found))


def check_floor(version: str, floor: str) -> None:
    """Raises InputError: a floor is an older version."""
    if parse_version(floor) >= parse_version(version):
        raise InputError(f"cannot set floor {floor} for {version}: a floor is a version that comes before it")


def _check_channel(channel: str) -> None:
    if channel not in CHANNELS:
        raise InputError(f'cannot use channel "{channel}": allowed are {", ".join(CHANNELS)}')


def _check_forward(directory: str, contents: Contents, release: Staged) -> None:
    """A channel only goes forward, and a version is never two things."""
    published = [
        (found["version"], found["sha256"])
        for found in contents.releases()
        if (found["channel"], found["line"]) == (release.channel, release.line)
    ]
    staged = [
        (one.version, one.sha256)
        for one in staged_releases(directory)
        if (one.channel, one.line) == (release.channel, release.line)
    ]
    new = parse_version(release.version)
    for version, _ in (*published, *staged):
        if parse_version(version) == new:
            raise ConflictError(f"cannot add {release.version} to {release.channel}: it is there already")
        if parse_version(version) > new:
            raise InputError(
                f"cannot add {release.version} to {release.channel}: it holds {version}, and a channel does not go "
                "backwards"
            )
    elsewhere = {found["sha256"] for found in contents.releases()
                 if found["line"] == release.line
                 and parse_version(found["version"]) == new}  # fmt: skip
    if elsewhere and release.sha256 not in elsewhere:
        raise ConflictError(
            f"cannot add {release.version} to {release.channel}: another channel holds that version with other bytes "
            "(release promote takes the same)"
        )
