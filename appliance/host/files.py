"""Small files: read whole, written so that a power cut leaves the old or the new one, never a mixture.

Everything here is short and synchronous. OSError becomes one of our five kinds right here, and nowhere above.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.errors import ApplianceError, ConflictError, InputError, NotFoundError, UnavailableError

_LOOK_SECONDS = 0.05
_OUR_MISTAKE = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


def translate(exc: OSError, verb: str, path: str) -> ApplianceError:
    """The error of ours that says what the kernel's means."""
    message = f"cannot {verb} {path}: {exc.strerror or exc}"
    if exc.errno == errno.ENOENT:
        return NotFoundError(message, where=path)
    if exc.errno in _OUR_MISTAKE:
        return InputError(message, where=path)
    return UnavailableError(message, where=path)


@contextlib.contextmanager
def _translated(verb: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise translate(exc, verb, path) from exc


def read_bytes(path: str, *, size_max: int = 64 << 20) -> bytes:
    """The whole file. Raises NotFoundError, InputError (larger than ``size_max``, not readable)."""
    with _translated("read", path), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):  # who opens one to read waits for a writer, perhaps for ever
            raise InputError(f"cannot read {path}: it is a pipe, not a file", where=path)
        data = file.read(size_max + 1)
    if len(data) > size_max:
        raise InputError(f"cannot read {path}: it is larger than {size_max} bytes", where=path)
    return data


def read_text(path: str, *, size_max: int = 64 << 20) -> str:
    """The whole file as UTF-8. Raises as read_bytes, and InputError naming the first bad byte."""
    data = read_bytes(path, size_max=size_max)
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise InputError(f"cannot read {path}: byte {exc.start} (line {line}) is not UTF-8", where=path) from exc


def write_atomic(path: str, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Temp file, fsync, rename, fsync of the directory. The directory is made if it is missing.

    Not ``durable``: without the fsyncs, for what need not outlive this boot; a killed process still leaves old or new.
    """
    directory = os.path.dirname(path) or "."
    temp = f"{path}.tmp.{os.getpid()}"
    with _translated("write", path):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                fd = os.open(temp, flags, mode)
            except FileNotFoundError:
                os.makedirs(directory, exist_ok=True)
                fd = os.open(temp, flags, mode)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                if stat.S_IMODE(os.fstat(fd).st_mode) != mode:  # the umask
                    os.fchmod(fd, mode)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temp, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temp)
            raise
        if durable:
            sync_directory(directory)


def sync_directory(path: str) -> None:
    """Make names in the directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: str, *, mode: int = 0o755) -> None:
    """With parents; existing is fine."""
    with _translated("make directory", path):
        try:
            os.mkdir(path, mode)
        except FileNotFoundError:
            os.makedirs(path, mode=mode, exist_ok=True)
        except FileExistsError:
            if not os.path.isdir(path):
                raise


def remove(path: str) -> None:
    """A file; missing is fine."""
    with _translated("remove", path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def rename(path: str, to: str) -> None:
    """Durably; what has the name ``to`` is gone."""
    with _translated("rename", path):
        os.rename(path, to)
    sync_directory(os.path.dirname(to))


def remove_tree(path: str) -> None:
    """A directory and all below it; missing is fine."""
    with _translated("remove", path), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def list_directory(path: str) -> list[str]:
    """Names in it, sorted; empty when it does not exist."""
    with _translated("list", path):
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []


def walk(path: str) -> Iterator[str]:
    """Every file below it, links not followed; none when it does not exist."""
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(names))


def exists(path: str) -> bool:
    """Whether there is anything by that name (a dangling link counts)."""
    return os.path.lexists(path)


def is_file(path: str) -> bool:
    """Whether it is a regular file, or a link to one."""
    return os.path.isfile(path)


def join(*parts: str) -> str:
    """``os.path.join``."""
    return os.path.join(*parts)


def absolute(path: str) -> str:
    """The path from /, by the working directory of now."""
    return os.path.abspath(path)


def is_directory(path: str) -> bool:
    """Whether it is a directory, or a link to one."""
    return os.path.isdir(path)


def link_target(path: str) -> str:
    """What the link says; empty of what is none."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def points_to_dev_null(path: str) -> bool:
    """Whether it is a link to /dev/null: the field's way to mask a fragment or a unit."""
    return os.path.islink(path) and os.path.realpath(path) == "/dev/null"


@dataclass(frozen=True)
class FileStat:
    """What stat(2) says, the part we use."""

    size: int
    modified_seconds: float
    mode: int
    uid: int
    gid: int
    is_file: bool
    is_directory: bool


def file_stat(path: str) -> FileStat:
    """Follows links. Raises NotFoundError."""
    with _translated("look at", path):
        it = os.stat(path)
    return FileStat(
        it.st_size, it.st_mtime, stat.S_IMODE(it.st_mode), it.st_uid, it.st_gid,
        stat.S_ISREG(it.st_mode), stat.S_ISDIR(it.st_mode),
    )  # fmt: skip


def sha256_file(path: str) -> str:
    """Lower-case hex of the whole file, read in pieces."""
    with _translated("read", path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: str) -> int:
    """Room left for us on the file system of ``path``."""
    with _translated("look at", path):
        it = os.statvfs(path)
    return it.f_bavail * it.f_frsize


class Lock:
    """An flock on a file, held until ``release`` or the end of the process."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    def release(self) -> None:
        """Give it up; twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _flock(fd: int) -> None:
    """Once more after a moment: a launcher that looks whether somebody holds it does so for an instant itself."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_LOOK_SECONDS)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_as_it_is(path: str) -> Lock:
    """The lock of a file that is another program's: nothing is written. Raises ConflictError when it is held."""
    with _translated("lock", path):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _flock(fd)
        except BlockingIOError as exc:
            os.close(fd)
            raise ConflictError(f"cannot lock {path}: another process uses it", where=path) from exc
    return Lock(fd, path)


def lock(path: str) -> Lock:
    """Take the lock and write our pid into it. Raises ConflictError naming the holder's pid (flock(2))."""
    with _translated("lock", path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            _flock(fd)
        except BlockingIOError as exc:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise ConflictError(f"cannot lock {path}: pid {holder} holds it", where=path) from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return Lock(fd, path)
