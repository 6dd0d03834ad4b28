"""Our own OS onto a disk. What makes it a disk that boots is written last: until then it is none, never half of one.

1. The first megabyte and the second copy of the table are wiped, synced.
2. The partitions are written, synced, and read back from the medium.
3. The second copy of the table, synced; then the first megabyte: table, settings for the first boot.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from appliance.errors import ConflictError, CorruptError, InputError, NotFoundError
from appliance.host import block_devices, files, gpt
from appliance.host.disk_writing import CHUNK, TakenDisk, fresh_identity, read_chunks
from appliance.machine import provisioning
from appliance.machine.boot_facts import BootFacts
from appliance.machine.provisioning import Files

FRESH_STATE = "/usr/lib/appliance/state.z"  # by packaging/image/root.py: an empty state partition, zlib
STATE_MIN = 64 << 20
_KINDS = {"esp": gpt.ESP, "root-a": gpt.ROOT, "root-b": gpt.ROOT, "state": gpt.STATE}
_TRANSPARENT = ("root-a", "root-b")  # what a slot holds past its image is nobody's business: not written


@dataclass(frozen=True)
class Part:
    """A partition to be: its least size and what goes into it, in chunks of (place, bytes)."""

    name: str
    size: int
    chunks: Callable[[], Iterable[tuple[int, bytes]]]


@dataclass(frozen=True)
class Installed:
    """What was done."""

    disk: str
    bytes_written: int
    provisioned: tuple[str, ...]


def parts_of_image(image: str) -> tuple[Part, ...]:
    """Of a file that `./build.sh image` made. Raises our errors."""
    table = block_devices.read_table(image)
    return tuple(_part(image, table, name) for name in _KINDS)


def parts_of_machine(facts: BootFacts) -> tuple[Part, ...]:
    """What this machine was started from, with a state of its own. Raises our errors."""
    disk = f"/dev/{facts.disk}"
    table = block_devices.read_table(disk)
    if not files.exists(FRESH_STATE):
        raise NotFoundError(f"cannot install: this version has no {FRESH_STATE}; name an image (--image FILE)")
    own = tuple(_part(disk, table, name) for name in _KINDS if name != "state")
    return (*own, Part("state", STATE_MIN, _fresh_state))


def install(
    parts: tuple[Part, ...], target: TakenDisk, *, provision: Files | None = None, erase: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Installed:  # fmt: skip
    """Raises ConflictError: there is something on it; InputError: too small; UnavailableError, CorruptError."""
    left = provisioning.encode(provision) if provision else b""
    table = _lay_out(parts, target)
    first, last = gpt.encode(table)
    left = left.ljust(gpt.ALIGNMENT - provisioning.AT, b"\0")
    if not erase and any(target.read(0, gpt.ALIGNMENT)):
        raise ConflictError(f"cannot install to {target.path}: it holds something; --erase gives it up")
    tell("making the disk unbootable until all is written")
    for at, size in (
        (target.size - gpt.ALIGNMENT, gpt.ALIGNMENT), (0, provisioning.AT), (provisioning.AT, provisioning.SIZE_MAX),
    ):  # fmt: skip
        target.zero(at, size)
        target.sync()
    pairs = list(zip(parts, table.partitions, strict=True))
    written = sum(_write(part, partition, target, tell) for part, partition in pairs)
    tell("reading it back")
    for part, partition in pairs:
        _verify(part, partition, target)
    for at, data in ((provisioning.AT, left), (target.size - len(last), last), (0, first)):  # what makes it start: last
        target.write(at, data)
        target.sync()
    with target.medium() as medium:
        if medium.read(0, CHUNK) != first.ljust(provisioning.AT, b"\0") + left:
            raise CorruptError(f"cannot install to {target.path}: it does not keep what is written")
    target.announce()
    return Installed(target.path, written, tuple(sorted(provision or ())))


def _part(source: str, table: gpt.Table, name: str) -> Part:
    partition = table.find(name)
    if partition is None:
        raise InputError(f"cannot install from {source}: it has no partition {name}")
    return Part(name, partition.size, lambda: read_chunks(source, partition.start, partition.size))


def _fresh_state() -> Iterator[tuple[int, bytes]]:
    unpacker, data, at = zlib.decompressobj(), files.read_bytes(FRESH_STATE), 0
    while not unpacker.eof:
        chunk = unpacker.decompress(data, CHUNK)
        data = unpacker.unconsumed_tail
        while len(chunk) < CHUNK and not unpacker.eof and data:
            chunk += unpacker.decompress(data, CHUNK - len(chunk))
            data = unpacker.unconsumed_tail
        if not chunk:
            break
        yield at, chunk
        at += len(chunk)


def _lay_out(parts: tuple[Part, ...], target: TakenDisk) -> gpt.Table:
    if target.sector != gpt.SECTOR:
        raise InputError(f"cannot install to {target.path}: it has sectors of {target.sector} bytes, expected 512")
    least = 2 * gpt.ALIGNMENT + sum(part.size for part in parts)
    if target.size < least:
        have, need = target.size >> 20, least >> 20
        raise InputError(f"cannot install to {target.path}: it has {have} MiB, {need} MiB are needed")
    wanted = [(part.name, _KINDS[part.name], part.size if part.name != "state" else 0) for part in parts]
    return gpt.lay_out(fresh_identity(), target.size // gpt.SECTOR * gpt.SECTOR, wanted)


def _write(part: Part, partition: gpt.Partition, target: TakenDisk, tell: Callable[[str], None]) -> int:
    tell(f"writing {part.name}, {part.size >> 20} MiB")
    written = 0
    for at, data in part.chunks():
        if data.count(0) != len(data):
            target.write(partition.start + at, data)
            written += len(data)
        elif part.name not in _TRANSPARENT:
            target.zero(partition.start + at, len(data))
    target.sync()
    return written


def _verify(part: Part, partition: gpt.Partition, target: TakenDisk) -> None:
    with target.medium() as medium:
        for at, data in part.chunks():
            if part.name in _TRANSPARENT and data.count(0) == len(data):
                continue
            if medium.read(partition.start + at, len(data)) != data:
                raise CorruptError(f"cannot install to {target.path}: {part.name} does not read as it was written")
