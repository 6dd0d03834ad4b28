"""Directories that belong to a unit's user. No link on the way is followed: that user may have put it there."""

from __future__ import annotations

import contextlib
import os

from appliance.errors import ConflictError
from appliance.host.files import translate

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_owned(above: str, below: str, *, mode: int, uid: int | None, gid: int | None) -> str:
    """The directory ``below`` that one, with all between them; the last gets that mode and owner. Its path.

    Raises the error of ours that says what is wrong.
    """
    path = f"{above}/{below}"
    parts = [part for part in below.split("/") if part not in ("", ".")]
    fds: list[int] = []
    try:
        os.makedirs(above, exist_ok=True)
        fds.append(os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=fds[-1])
            fds.append(os.open(part, _OPEN, dir_fd=fds[-1]))
        _give(fds[-1], uid, gid)
        os.fchmod(fds[-1], mode)
    except OSError as exc:
        raise translate(exc, "make directory", path) from exc
    finally:
        for fd in fds:
            os.close(fd)
    return path


def _give(fd: int, uid: int | None, gid: int | None) -> None:
    """That directory, and when it was somebody else's all that is in it, as systemd does; links are not followed."""
    was = os.fstat(fd)
    wanted = was.st_uid if uid is None else uid, was.st_gid if gid is None else gid
    if wanted == (was.st_uid, was.st_gid):
        return
    for _, directories, names, at in os.fwalk(".", topdown=False, dir_fd=fd):
        for name in (*directories, *names):
            os.chown(name, *wanted, dir_fd=at, follow_symlinks=False)
    os.fchown(fd, *wanted)  # last: a power cut before that has all of it done again


def write_owned(directory: str, name: str, data: bytes, *, uid: int | None) -> None:
    """A new file that only that user (None: we) and root may read. Raises the error of ours that says what is wrong."""
    path = f"{directory}/{name}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if uid is not None:
                os.fchown(fd, uid, -1)
        finally:
            os.close(fd)
    except OSError as exc:
        raise translate(exc, "write", path) from exc


def link_owned(above: str, link: str, below: str) -> None:
    """A link to that directory, with all directories before it; one that is there already may stay.

    Raises ConflictError when something else is there.
    """
    path = f"{above}/{link}"
    target = os.path.relpath(f"{above}/{below}", os.path.dirname(path))
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(target, path)
            return
        if not os.path.islink(path) or os.readlink(path) != target:
            raise ConflictError(f"cannot make link {path}: something else is there")
    except OSError as exc:
        raise translate(exc, "make link", path) from exc


def unlink_owned(above: str, link: str) -> None:
    """That link; missing, or no link, is fine. Raises the error of ours that says what is wrong."""
    path = f"{above}/{link}"
    try:
        if os.path.islink(path):
            os.unlink(path)
    except OSError as exc:
        raise translate(exc, "remove", path) from exc


def remove_owned(above: str, below: str) -> None:
    """That directory and all in it; missing is fine. Raises the error of ours that says what is wrong."""
    import shutil

    path = f"{above}/{below}"
    try:
        if not os.path.islink(path):
            shutil.rmtree(path)  # follows no links either
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise translate(exc, "remove", path) from exc
