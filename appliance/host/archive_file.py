"""A directory as one file, a plain tar: written for a stick, read in place without unpacking it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable

from appliance.errors import InputError
from appliance.host.files import translate

_MEMBERS_MAX = 200_000


def write_archive(directory: str, names: Iterable[str], out: str) -> int:
    """The named files below the directory, whole or not at all, on the disk when it returns. Returns the length."""
    temp = f"{out}.tmp.{os.getpid()}"
    try:
        try:
            with open(temp, "xb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    for name in names:
                        about = tarfile.TarInfo(name)  # neither owner nor time: the same files, the same archive
                        with open(f"{directory}/{name}", "rb") as source:
                            about.size = os.fstat(source.fileno()).st_size
                            archive.addfile(about, source)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temp, out)
        except OSError:
            os.unlink(temp)
            raise
        return os.stat(out).st_size
    except OSError as exc:
        raise translate(exc, "write", out) from exc


def list_archive(path: str) -> dict[str, tuple[int, int]]:
    """Name -> where the file lies in the archive, and its length. Raises InputError: it is none."""
    found: dict[str, tuple[int, int]] = {}
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
                if member.isreg():
                    found[member.name.removeprefix("./")] = (member.offset_data, member.size)
                if len(found) > _MEMBERS_MAX:
                    raise InputError(f"cannot read {path}: it holds more than {_MEMBERS_MAX} files", where=path)
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as exc:
        raise InputError(f"cannot read {path}: it is no exported repository: {exc}", where=path) from exc
    except OSError as exc:
        raise translate(exc, "read", path) from exc
    return found
