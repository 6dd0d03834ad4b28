"""Files that only grow, are cut by renaming, and are read while they grow."""

from __future__ import annotations

import contextlib
import os

from appliance.host.files import translate


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


def size_and_last_byte(path: str) -> tuple[int, bytes]:
    """Of a file; (0, b"") when there is none."""
    try:
        with open(path, "rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            return size, (os.pread(file.fileno(), 1, size - 1) if size else b"")
    except OSError:
        return 0, b""


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
