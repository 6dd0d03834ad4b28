"""The EFI system partition, mounted only while something is done on it; and systemd-boot's variables (UAPI.6)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator

from appliance.errors import ApplianceError
from appliance.host import mounts
from appliance.host.files import translate

_VARIABLES = "/sys/firmware/efi/efivars"
_LOADER = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
_ATTRIBUTES = b"\x07\0\0\0"  # kept over restarts, readable before and after the loader has ended
# Renaming on vfat makes a new entry of no length, then removes the old one, and fills in the length last of all; only
# when each of that is synced at once is there one whole entry on the disk at every instant (a replay found it out).
_FLAGS = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXEC | mounts.DIRECTORY_SYNC


_users: Counter[str] = Counter()
_changing = threading.Lock()


@contextlib.contextmanager
def mounted(device: str, target: str) -> Iterator[str]:
    """The directory, until the last who uses it is done. An empty ``device`` means that it is one already (tests).

    Raises UnavailableError.
    """
    if not device:
        yield target
        return
    with _changing:
        if not _users[target] and mounts.mounted_at(target) is None:
            os.makedirs(target, exist_ok=True)
            mounts.mount(device, target, "vfat", _FLAGS, "umask=077,errors=remount-ro")
        _users[target] += 1
    try:
        yield target
    finally:
        with _changing:
            _users[target] -= 1
            if not _users[target]:
                os.sync()
                with contextlib.suppress(ApplianceError):
                    mounts.unmount(target)


def set_loader_variable(name: str, value: str) -> None:
    """One of systemd-boot's. Raises UnavailableError: no EFI, or it has no room."""
    path = f"{_VARIABLES}/{name}-{_LOADER}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, _ATTRIBUTES + f"{value}\0".encode("utf-16-le"))
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise translate(exc, "write", path) from exc
