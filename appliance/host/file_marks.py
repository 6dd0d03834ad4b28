"""What is there, and whether it is still the same: for those who wait for a file."""

from __future__ import annotations

import glob
import itertools
import os

from appliance.host.files import translate


def exists(path: str) -> bool:
    """Whether anything is there; where we may not look, nothing is."""
    return os.path.exists(path)


def matches(pattern: str) -> bool:
    """Whether anything has a name that fits (glob(7))."""
    return next(glob.iglob(pattern), None) is not None


def matching(pattern: str) -> tuple[str, ...]:
    """What has a name that fits, in order; none when it is no pattern."""
    return tuple(sorted(glob.glob(pattern))) if glob.has_magic(pattern) else ()


def before_pattern(path: str) -> str:
    """The directories of a pattern that stand fast."""
    return "/".join(itertools.takewhile(lambda part: not glob.has_magic(part), path.split("/"))) or "/"


def has_entries(path: str) -> bool:
    """Whether that is a directory with something in it."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def mark(path: str) -> str:
    """Another text when the file became another one, or was changed; empty when there is none."""
    try:
        it = os.stat(path)
    except OSError:
        return ""
    return f"{it.st_dev}:{it.st_ino}:{it.st_ctime_ns}:{it.st_size}"


def make_directory(path: str, mode: int) -> None:
    """With those above it. Raises InputError, UnavailableError."""
    try:
        os.makedirs(path, mode=mode, exist_ok=True)
    except OSError as exc:
        raise translate(exc, "make directory", path) from exc
