"""Files that an installer leaves for the first boot, in the gap between the partition table and the first partition.

So nothing has to be mounted to give a disk its settings. The first boot puts them below /etc/appliance and wipes them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Mapping

from appliance.errors import CorruptError, InputError
from appliance.host import files
from appliance.host.disk_writing import TakenDisk

AT, SIZE_MAX = 64 << 10, (1 << 20) - (64 << 10)
_MAGIC = b"APPLPRV1"
_HEADER = struct.Struct("<8sI32s")
Files = Mapping[str, tuple[int, bytes]]
"""Path below /etc/appliance -> (mode, contents)."""


def encode(wanted: Files) -> bytes:
    """For ``AT``. Raises InputError: too much."""
    plain = {path: [mode, base64.b64encode(data).decode()] for path, (mode, data) in sorted(wanted.items())}
    packed = zlib.compress(json.dumps(plain).encode(), 9)
    if _HEADER.size + len(packed) > SIZE_MAX:
        raise InputError(f"cannot provision: packed it has {len(packed)} bytes, there is room for {SIZE_MAX}")
    return _HEADER.pack(_MAGIC, len(packed), hashlib.sha256(packed).digest()) + packed


def decode(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Empty when there is nothing. Raises CorruptError."""
    magic, length, digest = _HEADER.unpack_from(data.ljust(_HEADER.size, b"\0"))
    if magic != _MAGIC:
        return {}
    packed = data[_HEADER.size : _HEADER.size + length]
    if hashlib.sha256(packed).digest() != digest:
        raise CorruptError("cannot provision: what the installer left is damaged")
    plain = json.loads(zlib.decompress(packed))
    return {path: (mode, base64.b64decode(text)) for path, (mode, text) in plain.items()}


def read_files(place: str) -> dict[str, tuple[int, bytes]]:
    """A directory laid out as /etc/appliance, or one file, which is appliance.toml. Raises InputError."""
    if not files.exists(place):
        raise InputError(f"cannot provision: {place} does not exist")
    if not files.is_directory(place):
        return {"appliance.toml": (0o600, files.read_bytes(place))}
    found = {}
    for path in files.walk(place):
        if files.is_file(path):
            mode = files.file_stat(path).mode & 0o777
            found[path.removeprefix(place.rstrip("/") + "/")] = (mode, files.read_bytes(path))
    if not found:
        raise InputError(f"cannot provision: {place} holds no files")
    return found


def take_left_files(disk: str, target: str = "/etc/appliance") -> tuple[str, ...]:
    """At boot: what was put in place; wiped last, so that a power cut makes it be done again. Raises our errors."""
    own = TakenDisk(disk, shared=True)
    try:
        wanted = decode(own.read(AT, SIZE_MAX))
        for path, (mode, data) in wanted.items():
            if path.startswith("/") or ".." in path.split("/"):
                raise CorruptError(f"cannot provision: found the path {path}")
            place = f"{target}/{path}"
            files.make_directory(place.rpartition("/")[0])
            files.write_atomic(place, data, mode=mode)
        if wanted:
            own.write(AT, bytes(SIZE_MAX))
            own.sync()
        return tuple(sorted(wanted))
    finally:
        own.close()
