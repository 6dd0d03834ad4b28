"""Files that only grow, are cut by renaming, are packed once nothing more comes, and are read while they grow."""

from __future__ import annotations

import contextlib
import os

from appliance.errors import ApplianceError, CorruptError
from appliance.host.files import translate

PACKED = ".zst"
_LEVEL = 1  # text shrinks to a tenth of it, at hundreds of megabytes a second: we do it between two events
_UNPACKED_MAX = 64 << 20


def append(path: str, data: bytes) -> int:
    """Write at the end, made if missing; returns how much was taken (a full disk takes less). Never raises OSError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError:
        return 0
    try:
        return os.write(fd, data)
    except OSError:
        return 0
    finally:
        os.close(fd)


def cut(path: str, to: str) -> bool:
    """Rename, so that the next append makes a new file."""
    try:
        os.rename(path, to)
    except OSError:
        return False
    return True


def pack(path: str) -> None:
    """Compress a file to which nothing is added any more; its time stays. One that cannot be is left as it is."""
    import zstandard

    packed = path + PACKED
    temporary = f"{packed}.new"
    try:
        with open(path, "rb") as file:
            data = zstandard.ZstdCompressor(level=_LEVEL).compress(file.read())
            times = os.fstat(file.fileno())
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640), "wb") as file:
            file.write(data)
        os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.rename(temporary, packed)
        os.unlink(path)
    except OSError:  # a full disk: it is tried no more, and the file is read as it is
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def size_and_last_byte(path: str) -> tuple[int, bytes]:
    """Of a file; (0, b"") when there is none."""
    try:
        with open(path, "rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            return size, (os.pread(file.fileno(), 1, size - 1) if size else b"")
    except OSError:
        return 0, b""


def last_bytes(path: str, count: int) -> bytes:
    """At most so many; none when there is no such file."""
    try:
        with open(path, "rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            return os.pread(file.fileno(), count, max(0, size - count))
    except OSError:
        return b""


def size_and_time(path: str) -> tuple[int, float]:
    """And when something was last written to it; (0, 0) when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0.0
    return found.st_size, found.st_mtime


def read_unpacked(path: str) -> bytes:
    """All of a file, packed or not. Raises ApplianceError."""
    try:
        with open(path, "rb") as file:
            data = file.read(_UNPACKED_MAX)
    except OSError as exc:
        raise translate(exc, "read", path) from exc
    if not path.endswith(PACKED):
        return data
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=_UNPACKED_MAX)
    except zstandard.ZstdError as exc:
        raise CorruptError(f"cannot read {path}: {exc}", where=path) from exc


class LogReader:
    """A file open for reading; it stays the same file when it is renamed or removed meanwhile."""

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise translate(exc, "read", path) from exc

    def size(self) -> int:
        """Bytes in it now."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """At most so many bytes from there; empty at the end."""
        try:
            return os.pread(self._fd, size, offset)
        except OSError:
            return b""

    def close(self) -> None:
        """Twice is fine."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


class Unpacked:
    """As LogReader, of a packed piece: all of it in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def size(self) -> int:
        """Bytes in it."""
        return len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        """At most so many bytes from there; empty at the end."""
        return self._data[offset : offset + size]

    def close(self) -> None:
        """Nothing is held."""


def open_piece(path: str) -> LogReader | Unpacked:
    """That file, or what it was packed into. Raises NotFoundError, CorruptError, UnavailableError."""
    try:
        return LogReader(path)
    except ApplianceError:
        return Unpacked(read_unpacked(path + PACKED))
