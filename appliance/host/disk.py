"""A directory of large files, as the store sees it: read, write and sync at offsets; names made durable on request.

All calls block; the store runs the writing ones in a thread. What is not synced may be lost, whole or in part, in any
order; a created, renamed or removed name lasts only after ``sync_names``.
"""

from __future__ import annotations

import errno
import os
from typing import Protocol

from appliance.errors import ApplianceError, UnavailableError
from appliance.host.files import sync_directory, translate


class NoRoomError(UnavailableError):
    """The disk or the quota is full: nothing is wrong with the file, and room may come back."""


class DiskFile(Protocol):
    """An open file."""

    def read(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""

    def write(self, data: bytes, offset: int) -> None:
        """All of ``data``, or an error. Raises NoRoomError when there is no room; part may be written then."""

    def sync(self) -> None:
        """Make content and length durable. After an error nobody knows what is on the disk."""

    def truncate(self, size: int) -> None:
        """Cut or extend (with zeros) to ``size``."""

    def size(self) -> int:
        """The length now."""

    def close(self) -> None:
        """Let it go; twice is fine."""


class Disk(Protocol):
    """The directory."""

    def create(self, name: str) -> DiskFile:
        """A new empty file, in place of any older one of that name."""

    def open(self, name: str) -> DiskFile:
        """An existing file, for reading and writing. Raises NotFoundError."""

    def names(self) -> list[str]:
        """All files in it, sorted."""

    def rename(self, old: str, new: str) -> None:
        """In place of any older ``new``, atomically."""

    def remove(self, name: str) -> None:
        """Missing is fine."""

    def sync_names(self) -> None:
        """Make creations, renames and removals durable."""

    def prepare(self) -> None:
        """Make the directory if it is missing. Raises UnavailableError when nothing can be written in it."""

    def path(self, name: str) -> str:
        """What to call the file in a message."""


def _translated(exc: OSError, verb: str, path: str) -> ApplianceError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoomError(f"cannot {verb} {path}: {exc.strerror}", where=path)
    return translate(exc, verb, path)


class _RealFile:
    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    def read(self, size: int, offset: int) -> bytes:
        try:
            data = os.pread(self._fd, size, offset)
            while len(data) < size and (more := os.pread(self._fd, size - len(data), offset + len(data))):
                data += more
        except OSError as exc:
            raise _translated(exc, "read", self._path) from exc
        return data

    def write(self, data: bytes, offset: int) -> None:
        try:
            done = os.pwrite(self._fd, data, offset)
            while done < len(data):
                done += os.pwrite(self._fd, memoryview(data)[done:], offset + done)
        except OSError as exc:
            raise _translated(exc, "write", self._path) from exc

    def sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as exc:
            # Never NoRoomError: whatever the cause, what was written before is now of unknown fate.
            raise UnavailableError(f"cannot sync {self._path}: {exc.strerror}", where=self._path) from exc

    def truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError as exc:
            raise _translated(exc, "truncate", self._path) from exc

    def size(self) -> int:
        try:
            return os.fstat(self._fd).st_size
        except OSError as exc:
            raise _translated(exc, "look at", self._path) from exc

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FileDisk:
    """The real thing: one directory, made (0700: values may be secret) when it is missing."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def create(self, name: str) -> DiskFile:
        """See Disk."""
        self._make_directory()
        return self._opened(name, os.O_CREAT | os.O_TRUNC, "create")

    def open(self, name: str) -> DiskFile:
        """See Disk."""
        return self._opened(name, 0, "open")

    def _opened(self, name: str, flags: int, verb: str) -> _RealFile:
        path = self.path(name)
        try:
            return _RealFile(os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600), path)
        except OSError as exc:
            raise _translated(exc, verb, path) from exc

    def names(self) -> list[str]:
        """See Disk. No directory yet: no names."""
        try:
            return sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise _translated(exc, "list", self.directory) from exc

    def _make_directory(self) -> None:
        if os.path.isdir(self.directory):
            return
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            sync_directory(os.path.dirname(os.path.abspath(self.directory)))
        except OSError as exc:
            raise _translated(exc, "make directory", self.directory) from exc

    def prepare(self) -> None:
        """See Disk."""
        self._make_directory()
        if os.statvfs(self.directory).f_flag & os.ST_RDONLY:
            raise UnavailableError(f"cannot write in {self.directory}: Read-only file system", where=self.directory)

    def rename(self, old: str, new: str) -> None:
        """See Disk."""
        try:
            os.rename(self.path(old), self.path(new))
        except OSError as exc:
            raise _translated(exc, "rename", self.path(old)) from exc

    def remove(self, name: str) -> None:
        """See Disk."""
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            return
        except OSError as exc:
            raise _translated(exc, "remove", self.path(name)) from exc

    def sync_names(self) -> None:
        """See Disk."""
        try:
            sync_directory(self.directory)
        except OSError as exc:
            raise UnavailableError(f"cannot sync {self.directory}: {exc.strerror}", where=self.directory) from exc

    def path(self, name: str) -> str:
        """See Disk."""
        return os.path.join(self.directory, name)
