"""A whole disk, or a plain file in its place: taken for oneself, written, and read back from the medium."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
import uuid
from collections.abc import Iterator

from appliance.errors import ConflictError, InputError, UnavailableError
from appliance.host.direct import DirectFile

CHUNK = 1 << 20
_BLKRRPART, _BLKSSZGET, _BLKZEROOUT, _BLKFLSBUF = 0x125F, 0x1268, 0x127F, 0x1261
_PUNCH_AND_KEEP = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


class TakenDisk:
    """Nobody else can mount it meanwhile (O_EXCL claims a block device against file systems, swap, mappers)."""

    def __init__(self, path: str, *, shared: bool = False) -> None:
        """``shared``: it may be in use. Raises ConflictError: it is; InputError: it is no disk; UnavailableError."""
        self.path = os.path.realpath(path)
        try:
            kind = os.stat(self.path).st_mode
            if not stat.S_ISBLK(kind) and not stat.S_ISREG(kind):
                raise InputError(f"cannot write {path}: it is no disk")
            self._is_device = stat.S_ISBLK(kind)
            if os.path.exists(f"/sys/class/block/{os.path.basename(self.path)}/partition"):
                raise InputError(f"cannot write {path}: it is a partition, expected a whole disk")
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if self._is_device and not shared else 0)
            self._descriptor = os.open(self.path, flags)
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                raise ConflictError(f"cannot write {path}: it is in use (mounted, swap, or held by another)") from exc
            raise UnavailableError(f"cannot write {path}: {exc.strerror}") from exc
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.size = os.lseek(self._descriptor, 0, os.SEEK_END)
            self.sector = self._sector()
        except OSError as exc:
            os.close(self._descriptor)
            raise ConflictError(f"cannot write {path}: {exc.strerror}") from exc

    def _sector(self) -> int:
        answer = bytearray(4)
        if self._is_device:
            fcntl.ioctl(self._descriptor, _BLKSSZGET, answer)
        return int(struct.unpack("i", answer)[0]) if self._is_device else 512

    def write(self, at: int, data: bytes) -> None:
        """All of it. Raises UnavailableError."""
        with self._told("write"):
            view = memoryview(data)
            while view:
                done = os.pwrite(self._descriptor, view, at)
                at, view = at + done, view[done:]

    def zero(self, at: int, size: int) -> None:
        """By the disk itself where it can. Raises UnavailableError."""
        with contextlib.suppress(OSError):
            if self._is_device:
                fcntl.ioctl(self._descriptor, _BLKZEROOUT, struct.pack("QQ", at, size))
                return
            libc = ctypes.CDLL(None, use_errno=True)
            if not libc.fallocate(self._descriptor, _PUNCH_AND_KEEP, ctypes.c_long(at), ctypes.c_long(size)):
                return
        for start in range(at, at + size, CHUNK):
            self.write(start, bytes(min(CHUNK, at + size - start)))

    def sync(self) -> None:
        """It is on the medium when this returns. Raises UnavailableError."""
        with self._told("sync"):
            os.fsync(self._descriptor)

    def read(self, at: int, size: int) -> bytes:
        """Through the kernel's memory. Raises UnavailableError."""
        with self._told("read"):
            return os.pread(self._descriptor, size, at)

    @contextlib.contextmanager
    def medium(self) -> Iterator[DirectFile]:
        """To read what is on the medium, not what the kernel remembers. Raises UnavailableError."""
        with self._told("read"):
            self.sync()
            if self._is_device:
                fcntl.ioctl(self._descriptor, _BLKFLSBUF, 0)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            with DirectFile(self.path, size_max=CHUNK) as medium:
                yield medium

    def announce(self) -> None:
        """Have the kernel look for the partitions, if it can now."""
        with contextlib.suppress(OSError):
            if self._is_device:
                fcntl.ioctl(self._descriptor, _BLKRRPART)

    def close(self) -> None:
        """Others may have it."""
        os.close(self._descriptor)

    @contextlib.contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise UnavailableError(f"cannot {verb} {self.path}: {exc.strerror}") from exc


def fresh_identity() -> uuid.UUID:
    """For a disk's table: two disks of one name are one too many."""
    return uuid.uuid4()


def read_chunks(path: str, at: int, size: int) -> Iterator[tuple[int, bytes]]:
    """(place from the start of the range, bytes) of a file or a disk. Raises UnavailableError."""
    try:
        with open(path, "rb", buffering=0) as file:
            for start in range(0, size, CHUNK):
                file.seek(at + start)
                wanted, data = min(CHUNK, size - start), b""
                while len(data) < wanted and (more := file.read(wanted - len(data))):
                    data += more
                if len(data) < wanted:
                    raise UnavailableError(f"cannot read {path}: it ends early")
                yield start, data
    except OSError as exc:
        raise UnavailableError(f"cannot read {path}: {exc.strerror}") from exc
