"""Who is logged in on a terminal, and a word to them: utmp(5) where there is one, else /proc."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from appliance.host.procfs import process_ids

_UTMP = "/run/utmp"
_ENTRY = struct.Struct("<h2xi32s4s32s256s4xiii16s20x")  # glibc's, of every 64-bit machine
_USER_PROCESS = 7
_TEXT_MAX = 2000
_PTS_MAJORS = range(136, 144)
_SERIAL_MAJORS = (4, 204)


@dataclass(frozen=True)
class Terminal:
    """``device`` such as /dev/pts/0."""

    device: str
    user: str


def logged_in() -> tuple[Terminal, ...]:
    """Everybody who sits at a terminal, once per terminal. Never raises."""
    found = {one.device: one for one in (*_by_processes(), *_by_utmp())}
    return tuple(found[device] for device in sorted(found))


def _by_utmp() -> Iterator[Terminal]:
    try:
        with open(_UTMP, "rb") as file:
            data = file.read(1 << 20)
    except OSError:
        return
    for start in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
        kind, pid, line, _, user, *_ = _ENTRY.unpack_from(data, start)
        device = "/dev/" + line.split(b"\0")[0].decode(errors="replace")
        if kind == _USER_PROCESS and os.path.exists(f"/proc/{pid}") and os.path.exists(device):
            yield Terminal(device, user.split(b"\0")[0].decode(errors="replace"))


def _by_processes() -> Iterator[Terminal]:
    """Sessions that have a terminal and were begun by a login: their loginuid is set (pam_loginuid, kernel audit)."""
    with contextlib.suppress(OSError):
        for pid in process_ids():
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    text = file.read(4096)
                session, number = (int(word) for word in text[text.rindex(b")") + 2 :].split()[3:5])
                if session != pid or not number or not _is_login(number):
                    continue
                with open(f"/proc/{pid}/loginuid") as file:
                    uid = int(file.read())
                device = os.readlink(f"/proc/{pid}/fd/0")
            except (OSError, ValueError):
                continue
            if uid != 0xFFFFFFFF and device.startswith("/dev/"):
                yield Terminal(device, str(uid))


def _is_login(number: int) -> bool:
    major = number >> 8 & 0xFFF
    return major in _PTS_MAJORS or major in _SERIAL_MAJORS


def tell(terminals: Iterable[Terminal], text: str) -> int:
    """Write it to each; returns how many took it. A terminal that is stuck is passed over (wall(1) does so, too)."""
    said = 0
    data = ("\r\n" + text[:_TEXT_MAX].replace("\n", "\r\n") + "\r\n").encode()
    for one in terminals:
        try:
            fd = os.open(one.device, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            os.write(fd, data)
            said += 1
        except OSError:
            pass
        finally:
            os.close(fd)
    return said
