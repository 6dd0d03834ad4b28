"""A directory tree as one file and back: the same tree is the same bytes, so a tree on the disk proves itself.

A plain tar in one fixed form: names in order, neither owner nor time, of the mode only the nine permission bits.
Regular files, directories and symbolic links; nothing else.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from appliance.errors import InputError, UntrustedError
from appliance.host.files import sync_directory, translate

if TYPE_CHECKING:  # 2 MB, and only when a bundle is there
    import tarfile

_PIECE = 1 << 20
_BLOCK = 512
_END = b"\0" * (2 * _BLOCK)


def tree_pieces(directory: str) -> Iterator[bytes]:
    """The tree as a file's bytes. Raises InputError: it holds what is neither file, directory nor link, or changes."""
    try:
        for name in _names(directory, ""):
            yield from _entry(f"{directory}/{name}", name)
    except OSError as exc:
        raise translate(exc, "read", exc.filename or directory) from exc
    yield _END


def _names(directory: str, below: str) -> Iterator[str]:
    for name in sorted(os.listdir(f"{directory}/{below}"), key=os.fsencode):
        path = below + name
        yield path
        if stat.S_ISDIR(os.lstat(f"{directory}/{path}").st_mode):
            yield from _names(directory, path + "/")


def _entry(path: str, name: str) -> Iterator[bytes]:
    import tarfile

    about = os.lstat(path)
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(about.st_mode) & 0o777
    if stat.S_ISDIR(about.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(about.st_mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
    elif stat.S_ISREG(about.st_mode):
        info.size = about.st_size
    else:
        raise InputError(f"cannot take {path}: it is neither file, directory nor symbolic link", where=path)
    yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    if not info.isreg():
        return
    left = info.size
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(min(_PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        raise InputError(f"cannot take {path}: it changed while it was read", where=path)
    yield b"\0" * (-info.size % _BLOCK)


def measure_tree(directory: str) -> tuple[str, int]:
    """sha256 and length of the file that it would be."""
    digest, length = hashlib.sha256(), 0
    for piece in tree_pieces(directory):
        digest.update(piece)
        length += len(piece)
    return digest.hexdigest(), length


def write_tree(directory: str, out: str) -> int:
    """Into a file; returns its length. Not synced."""
    length = 0
    try:
        with open(out, "wb") as file:
            for piece in tree_pieces(directory):
                length += file.write(piece)
    except OSError as exc:
        raise translate(exc, "write", out) from exc
    return length


def unpack_tree(file: str, directory: str) -> None:
    """Make the directory, which must not exist, from such a file; durable when it returns.

    Raises UntrustedError: a name leads out of it. What the file holds otherwise is proved by ``measure_tree``.
    """
    import tarfile

    made = {""}
    try:
        os.mkdir(directory, 0o755)
        with open(file, "rb") as source, tarfile.open(fileobj=source, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
                _unpack_one(archive, member, directory, made)
        for name in sorted(made, reverse=True):
            sync_directory(f"{directory}/{name}")
        sync_directory(os.path.dirname(directory))
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as exc:
        raise UntrustedError(f"cannot unpack {file}: it is no bundle: {exc}", where=file) from exc
    except OSError as exc:
        raise translate(exc, "write", exc.filename or directory) from exc


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: str, made: set[str]) -> None:
    name = member.name
    parent, _, last = name.rpartition("/")
    if parent not in made or name.startswith("/") or last in ("", ".", ".."):
        raise UntrustedError(f"cannot unpack {name!r}: it does not lie in a directory of the bundle")
    path = f"{directory}/{name}"
    if member.isdir():
        os.mkdir(path)
        os.chmod(path, member.mode & 0o777 | 0o700)
        made.add(name)
    elif member.issym():
        os.symlink(member.linkname, path)
    elif member.isreg():
        source = archive.extractfile(member)
        assert source is not None
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as out:
            shutil.copyfileobj(source, out, _PIECE)
            out.flush()
            os.fchmod(fd, member.mode & 0o777)
            os.fsync(fd)
    else:
        raise UntrustedError(f"cannot unpack {name!r}: it is neither file, directory nor symbolic link")


def forget_cached(directory: str) -> None:
    """Ask the kernel to read the tree from the disk next (posix_fadvise(2))."""
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            except OSError:
                pass
            finally:
                os.close(fd)


def link_target(path: str) -> str:
    """Where a symbolic link points to; empty: there is none."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def copy_tree(source: str, target: str) -> None:
    """Files, directories and links with their modes. Not synced."""
    try:
        shutil.copytree(source, target, symlinks=True)
    except OSError as exc:  # shutil.Error is one
        raise translate(exc, "copy to", target) from exc


def sync_tree(directory: str) -> None:
    """Everything in it durable, names too."""
    try:
        for folder, _, names in os.walk(directory):
            for name in names:
                fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            sync_directory(folder)
    except OSError as exc:
        raise translate(exc, "sync", directory) from exc


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def exchange(one: str, other: str) -> None:
    """Each gets the other's name, at one instant (renameat2(2)); durable when it returns."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), other)
        for path in {os.path.dirname(one), os.path.dirname(other)}:
            sync_directory(path)
    except OSError as exc:
        raise translate(exc, "exchange", other) from exc
