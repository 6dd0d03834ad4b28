"""What becomes a program's descriptors 0, 1 and 2, where it is not simply /dev/null and the log's pipe."""

from __future__ import annotations

import contextlib
import os

from appliance.host.files import translate

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


def open_standard(
    standard_input: str,
    standard_output: str,
    standard_error: str,
    *,
    journal: str,
    errors: str,
    uid: int | None,
    data: bytes = b"",
) -> tuple[int, int, int]:
    """Three new descriptors, the caller's to close. Words as in ``[service]``; ``journal`` is the log's named pipe,
    ``errors`` that of a stderr that is told apart, ``data`` what is read where the input is "data".

    Raises the error of ours that says which file could not be opened.
    """
    opened: list[int] = []
    try:
        if standard_input == "data":
            opened.append(_holding(data))
        else:
            opened.append(_open("null" if standard_input == "null" else f"in:{standard_input}", journal, uid))
        opened.append(_open(standard_output, journal, uid))
        if standard_error == "inherit" or (standard_error == standard_output != "journal"):
            opened.append(os.dup(opened[1]))
        else:
            opened.append(_open(standard_error, errors, uid))
    except BaseException:
        close_standard(tuple(opened))
        raise
    return opened[0], opened[1], opened[2]


def open_connection(fd: int, standard_error: str, *, journal: str, uid: int | None) -> tuple[int, int, int]:
    """As inetd does: the connection as 0 and 1. Raises as ``open_standard``."""
    error = _open(standard_error, journal, uid)
    return os.dup(fd), os.dup(fd), error


def close_standard(fds: tuple[int, ...]) -> None:
    """Ours are of no more use once the program has its own."""
    for fd in fds:
        os.close(fd)


def _open(word: str, journal: str, uid: int | None) -> int:
    kind, _, path = word.partition(":")
    flags = os.O_CLOEXEC | os.O_NOCTTY
    match kind:
        case "null":
            path, flags = "/dev/null", flags | os.O_RDWR
        case "journal":
            path, flags = journal, flags | os.O_RDWR  # as spawn does: there is always a reader
        case "in":
            path, flags = path.removeprefix("file:"), flags | os.O_RDONLY
        case "append":
            flags |= os.O_WRONLY | os.O_CREAT | os.O_APPEND
        case "truncate":
            flags |= os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        case _:
            flags |= os.O_WRONLY | os.O_CREAT
    try:
        fd = os.open(path, flags, 0o644)
    except OSError as exc:
        raise translate(exc, "open", path) from exc
    if kind == "journal":
        with contextlib.suppress(OSError):
            if uid is not None:
                os.fchown(fd, uid, -1)  # so that it may open /dev/stderr again
        _enlarge(fd)
    return fd


def _holding(data: bytes) -> int:
    """A file in memory that holds that, and no more can be written."""
    import fcntl

    fd = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    except OSError as exc:
        os.close(fd)
        raise translate(exc, "write", "standard input") from exc
    return fd


def _enlarge(fd: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
