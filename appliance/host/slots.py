"""The calls that the slots and the downloads need, one syscall group each, so that a test can cut the power after any.

No policy: which call follows which is the update room's. ``SlotCalls`` is the shape, ``RealSlotCalls`` the machine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from appliance.errors import ConflictError, NotFoundError
from appliance.host.ahead import ahead
from appliance.host.direct import DirectFile
from appliance.host.files import sync_directory, translate

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_PIECE = 1 << 20
BLOCK = 4096  # of file systems that share blocks between files
_FICLONERANGE = 0x4020940D  # linux/fs.h
_NETWORK_NAMES = {
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "PATH", "HOME", "TMPDIR",
}  # fmt: skip


class SlotCalls(Protocol):
    """What ``update.slots`` does to the disk. Nothing is durable before ``sync`` / ``sync_directory`` returned."""

    @property
    def not_from_disk(self) -> str:
        """Why the last file that was to come from the medium did not; empty when it did."""

    def read(self, path: str, *, size_max: int) -> bytes:
        """The first ``size_max`` bytes; empty when there is no such file."""

    def pieces(self, path: str, *, from_disk: bool = False) -> Iterator[bytes]:
        """The whole file; ``from_disk``: from the medium, not from the kernel's memory."""

    def write_at(self, path: str, offset: int, data: bytes, *, mode: int = 0o644) -> None:
        """Write into the file, making it when it is missing."""

    def sync(self, path: str) -> None:
        """Make the file's bytes durable."""

    def sync_directory(self, path: str) -> None:
        """Make the names in the directory durable."""

    def make_directory(self, path: str) -> None:
        """With parents; existing is fine."""

    def rename(self, old: str, new: str) -> None:
        """Atomically, over what is there."""

    def remove(self, path: str) -> None:
        """Missing is fine."""

    def point(self, path: str, target: str) -> None:
        """Make a new symbolic link."""

    def link(self, path: str, target: str) -> bool:
        """Give the file ``target`` a second, new name; False where that cannot be (another file system)."""

    def exists(self, path: str) -> bool:
        """Whether there is something by that name."""


class RealSlotCalls:
    """The machine. Raises InputError, NotFoundError, UnavailableError as host.files does."""

    not_from_disk = ""  # why the last file that was to come from the medium came through the kernel's memory

    def read(self, path: str, *, size_max: int) -> bytes:
        """The first ``size_max`` bytes; empty when there is no such file."""
        try:
            with open(path, "rb") as file:
                return file.read(size_max)
        except FileNotFoundError:
            return b""
        except OSError as exc:
            raise translate(exc, "read", path) from exc

    def pieces(self, path: str, *, from_disk: bool = False) -> Iterator[bytes]:
        """The whole file; ``from_disk``: from the medium (O_DIRECT), where the file system can do that."""
        try:
            if from_disk:
                with DirectFile(path) as direct, ahead(direct.pieces()) as pieces:
                    self.not_from_disk = direct.refused
                    yield from pieces
                return
            with open(path, "rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    yield piece
        except OSError as exc:
            raise translate(exc, "read", path) from exc

    def write_at(self, path: str, offset: int, data: bytes, *, mode: int = 0o644) -> None:
        """Write into the file, making it when it is missing."""
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            try:
                view = memoryview(data)
                while view:
                    written = os.pwrite(fd, view, offset)
                    view, offset = view[written:], offset + written
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
        except OSError as exc:
            raise translate(exc, "write", path) from exc

    def sync(self, path: str) -> None:
        """Make the file's bytes durable (fsync: its length and mode too)."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            raise translate(exc, "sync", path) from exc

    def sync_directory(self, path: str) -> None:
        """Make the names in the directory durable."""
        try:
            sync_directory(path)
        except OSError as exc:
            raise translate(exc, "sync", path) from exc

    def make_directory(self, path: str) -> None:
        """With parents, each made durable in its own parent; existing is fine."""
        try:
            made = path
            missing = []
            while not os.path.isdir(made):
                missing.append(made)
                made = os.path.dirname(made) or "/"
            for directory in reversed(missing):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory, 0o755)
                sync_directory(os.path.dirname(directory) or "/")
        except OSError as exc:
            raise translate(exc, "make directory", path) from exc

    def rename(self, old: str, new: str) -> None:
        """Atomically, over what is there."""
        try:
            os.rename(old, new)
        except OSError as exc:
            raise translate(exc, "rename to", new) from exc

    def remove(self, path: str) -> None:
        """Missing is fine."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise translate(exc, "remove", path) from exc

    def point(self, path: str, target: str) -> None:
        """Make a new symbolic link."""
        try:
            os.symlink(target, path)
        except OSError as exc:
            raise translate(exc, "link", path) from exc

    def link(self, path: str, target: str) -> bool:
        """Give the file ``target`` a second, new name; False where that cannot be (another file system)."""
        try:
            os.link(target, path, follow_symlinks=False)
        except OSError as exc:
            if exc.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS):
                return False
            raise translate(exc, "link", path) from exc
        return True

    def exists(self, path: str) -> bool:
        """Whether there is something by that name."""
        return os.path.lexists(path)


class Reading:
    """An open file, read anywhere."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self.path = fd, path
        self.size = os.lseek(fd, 0, os.SEEK_END)  # of a partition, too

    def at(self, offset: int, size: int) -> bytes:
        """That many bytes, fewer only at the end. Raises UnavailableError: the disk cannot be read."""
        try:
            data = os.pread(self._fd, size, offset)
            while len(data) < size and (more := os.pread(self._fd, size - len(data), offset + len(data))):
                data += more
            return data
        except OSError as exc:
            raise translate(exc, "read", self.path) from exc


class Writing(Reading):
    """A file that is made in any order: of its full length from the beginning, holes and all."""

    _helping: ThreadPoolExecutor | None = None
    _syncing: Future[None] | None = None

    def put(self, offset: int, data: bytes | memoryview) -> None:
        """Raises UnavailableError: no room."""
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as exc:
            raise translate(exc, "write", self.path) from exc

    def share(self, source: Reading, offset: int, size: int) -> bool:
        """Have the source's blocks at that place here, too (FICLONERANGE); False where the file system cannot.

        Both are multiples of BLOCK. Raises UnavailableError: no room, or the disk cannot be read.
        """
        try:
            fcntl.ioctl(self._fd, _FICLONERANGE, struct.pack("=qQQQ", source._fd, offset, size, offset))
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise translate(exc, "write", self.path) from exc
            return False
        return True

    def sync(self) -> None:
        """Make the bytes and the length durable."""
        try:
            self._await_sync()
            os.fsync(self._fd)
        except OSError as exc:
            raise translate(exc, "sync", self.path) from exc

    def sync_soon(self) -> None:
        """Begin to make durable what is here, while more is written; waits for what was begun before."""
        try:
            self._await_sync()
        except OSError as exc:
            raise translate(exc, "sync", self.path) from exc
        if self._helping is None:
            from concurrent.futures import ThreadPoolExecutor

            self._helping = ThreadPoolExecutor(1, "sync")
        self._syncing = self._helping.submit(os.fsync, self._fd)

    def _await_sync(self) -> None:
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()

    def end(self) -> None:
        """Before it is closed: nobody syncs it any more."""
        if self._helping is not None:
            self._helping.shutdown()

    def data_end(self, offset: int) -> tuple[int, int]:
        """Where the next bytes that are no hole begin and end; (size, size) when only holes follow."""
        try:
            begin = os.lseek(self._fd, offset, os.SEEK_DATA)
            return begin, os.lseek(self._fd, begin, os.SEEK_HOLE)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return self.size, self.size
            raise translate(exc, "read", self.path) from exc


@contextlib.contextmanager
def writing(path: str, size: int, *, mode: int = 0o644) -> Iterator[Writing]:
    """The file, of that size; what it holds is kept."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as exc:
        raise translate(exc, "write", path) from exc
    try:
        try:
            os.fchmod(fd, mode)
            os.ftruncate(fd, size)
        except OSError as exc:
            raise translate(exc, "write", path) from exc
        file = Writing(fd, path)
        try:
            yield file
        finally:
            file.end()
    finally:
        os.close(fd)


@contextlib.contextmanager
def reading(path: str) -> Iterator[Reading]:
    """The file, open for as long as the block lasts."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise translate(exc, "read", path) from exc
    try:
        yield Reading(fd, path)
    finally:
        os.close(fd)


def file_size(path: str) -> int:
    """0 when it is missing. Of a partition, too."""
    try:
        found = os.stat(path)
        if not stat.S_ISBLK(found.st_mode):
            return found.st_size
        with open(path, "rb", buffering=0) as file:
            return file.seek(0, os.SEEK_END)
    except OSError:
        return 0


def disk_bytes(path: str) -> int:
    """What it takes on the disk: a file of full length may be holes. 0 when it is missing."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0


def link_or_copy(source: str, target: str) -> None:
    """Share the bytes by a hard link where the file system can, else copy and sync. Raises ConflictError: it exists."""
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.link(source, target)
            return
        except FileExistsError:
            raise ConflictError(f"cannot write {target}: it exists", where=target) from None
        except FileNotFoundError as exc:
            raise NotFoundError(f"cannot read {source}: {exc.strerror}", where=source) from exc
        except OSError:  # another file system, or one without hard links
            pass
        with open(source, "rb") as reading, open(target, "xb") as writing:
            while piece := reading.read(_PIECE):
                writing.write(piece)
            writing.flush()
            os.fsync(writing.fileno())
    except OSError as exc:
        raise translate(exc, "write", target) from exc


def parent_pid() -> int:
    """Changes when the parent is gone."""
    return os.getppid()


def network_environment() -> dict[str, str]:
    """What a child that talks to the network may inherit: proxies, certificates, where temporary files go."""
    return {name: value for name, value in os.environ.items() if name.upper() in _NETWORK_NAMES}


def architecture() -> str:
    """The kernel's name for this machine: x86_64, aarch64."""
    return os.uname().machine


def read_tail(path: str, size: int) -> bytes:
    """The last ``size`` bytes, or fewer when there are no more."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except OSError as exc:
        raise translate(exc, "read", path) from exc
