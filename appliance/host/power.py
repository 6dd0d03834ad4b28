"""How a machine ends, when we are its init: reboot(2), the last processes, the power button (evdev), the watchdog."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import fcntl
import os
import signal
import struct
import time

from appliance.errors import UnavailableError
from appliance.host import mounts

_WDIOC_KEEPALIVE, _WDIOC_GETTIMEOUT = 0x80045705, 0x80045707
_EVENT = struct.Struct("llHHi")
_KEY, _POWER = 1, 116
_NEVER = ("/", "/proc", "/sys", "/dev", "/run")


class End(enum.Enum):
    """reboot(2)'s commands."""

    REBOOT = 0x01234567
    POWER_OFF = 0x4321FEDC
    HALT = 0xCDEF0123


def keep_ctrl_alt_del() -> None:
    """It becomes a SIGINT to us, in place of an instant restart."""
    ctypes.CDLL(None, use_errno=True).reboot(0)


def end_processes(grace_seconds: float) -> None:
    """Everything but us: asked, then forced."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.kill(-1, number)
        limit = time.monotonic() + grace_seconds
        while time.monotonic() < limit:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.02)
            except ChildProcessError:
                return


def unmount_all() -> tuple[str, ...]:
    """From the newest to the oldest; what will not go is made read-only. What could not be done is returned."""
    troubles = []
    for one in reversed(mounts.mounts()):
        if one.target in _NEVER or one.target.startswith(("/proc/", "/sys/", "/dev/")):
            continue
        try:
            mounts.unmount(one.target)
        except UnavailableError as exc:
            try:
                mounts.mount(one.source, one.target, "", mounts.REMOUNT | mounts.READ_ONLY)
            except UnavailableError:
                troubles.append(exc.message)
    os.sync()
    return tuple(troubles)


def end_machine(how: End) -> None:
    """Does not come back, unless we may not. Raises UnavailableError."""
    os.sync()
    if ctypes.CDLL(None, use_errno=True).reboot(ctypes.c_int(how.value & 0xFFFFFFFF)):
        raise UnavailableError(f"cannot end the machine: {os.strerror(ctypes.get_errno())}")


class Watchdog:
    """The hardware's, armed by the initramfs; unless it is fed, the machine restarts."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_inheritable(descriptor, False)
        timeout = bytearray(4)
        try:
            fcntl.ioctl(descriptor, _WDIOC_GETTIMEOUT, timeout)
            self.timeout_seconds = float(struct.unpack("i", timeout)[0])
        except OSError:
            self.timeout_seconds = 30.0

    def feed(self) -> None:
        """Once more from the start. Raises UnavailableError."""
        try:
            fcntl.ioctl(self._descriptor, _WDIOC_KEEPALIVE, bytearray(4))
        except OSError as exc:
            raise UnavailableError(f"cannot feed the watchdog: {exc.strerror}") from exc


def inherited_watchdog() -> Watchdog | None:
    """What the initramfs left open for us."""
    number = os.environ.pop("APPLIANCE_WATCHDOG_FD", "")
    try:
        return Watchdog(int(number)) if number else None
    except (OSError, ValueError):
        return None


def open_power_buttons() -> list[int]:
    """Descriptors of input devices that have a power key; readable when it is pressed."""
    found = []
    for name in sorted(os.listdir("/dev/input")) if os.path.isdir("/dev/input") else []:
        if not name.startswith("event"):
            continue
        with contextlib.suppress(OSError):
            with open(f"/sys/class/input/{name}/device/capabilities/key", encoding="ascii") as file:
                words = [int(word, 16) for word in file.read().split()]
            bits = sum(word << (64 * index) for index, word in enumerate(reversed(words)))
            if bits >> _POWER & 1:
                found.append(os.open(f"/dev/input/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    return found


def power_pressed(descriptor: int) -> bool:
    """Read what there is."""
    try:
        data = os.read(descriptor, _EVENT.size * 64)
    except BlockingIOError:
        return False
    events = _EVENT.iter_unpack(data[: len(data) // _EVENT.size * _EVENT.size])
    return any(kind == _KEY and code == _POWER and value == 1 for _, _, kind, code, value in events)


def close(descriptor: int) -> None:
    """Of a power button."""
    with contextlib.suppress(OSError):
        os.close(descriptor)
