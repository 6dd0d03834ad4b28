"""Reading past the kernel's memory (O_DIRECT): what the medium gives back, not what was written a moment ago."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from typing import Self

PIECE = 1 << 20
_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP}


class DirectFile:
    """Raises OSError. ``refused`` says why the bytes come through the kernel's memory after all; else it is empty."""

    def __init__(self, path: str, *, size_max: int = PIECE) -> None:
        self.refused = ""
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise
            self._descriptor = self._without(exc)
        self._room = mmap.mmap(-1, size_max)  # begins with a page, as O_DIRECT wants it

    def _without(self, exc: OSError) -> int:
        self.refused = f"the file system of {self._path} refuses direct reading (O_DIRECT: {exc.strerror})"
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return descriptor

    def _read(self, at: int, begin: int, end: int) -> int:
        try:
            return os.preadv(self._descriptor, [memoryview(self._room)[begin:end]], at)
        except OSError as exc:
            if exc.errno not in _REFUSED or self.refused:
                raise
            plain = self._without(exc)  # some say it only now
            os.close(self._descriptor)
            self._descriptor = plain
            return self._read(at, begin, end)

    def read(self, at: int, size: int) -> bytes:
        """``at`` and ``size``: of whole pages, ``size`` at most ``size_max``. Fewer bytes only at the end."""
        got = self._read(at, 0, size)
        while 0 < got < size and not got % mmap.PAGESIZE:  # it is the end, or a signal came
            more = self._read(at + got, got, size)
            if not more:
                break
            got += more
        return self._room[:got]

    def pieces(self) -> Iterator[bytes]:
        """All of it."""
        at = 0
        while piece := self.read(at, PIECE):
            yield piece
            at += len(piece)
            if len(piece) < PIECE:
                return

    def close(self) -> None:
        """Once."""
        os.close(self._descriptor)
        self._room.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
