"""An alarm by the host's wall clock (timerfd_create(2)): it rings at the right time though the clock is set meanwhile,
or the host slept. Nobody has to look at the clock in between.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable

from appliance.errors import UnavailableError
from appliance.host import clock
from appliance.host.poller import Poller

_CLOCK_REALTIME = 0
_TFD_NONBLOCK, _TFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_FAR = 1 << 40  # seconds since 1970: later than any clock shows


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class WallClock:
    """One alarm. ``on_ring``: its time has come; ``on_jump``: somebody has set the clock, so think again."""

    def __init__(self, poller: Poller) -> None:
        self.on_ring: Callable[[], None] = lambda: None
        self.on_jump: Callable[[], None] = lambda: None
        self._poller = poller
        self._fd = -1

    def seconds(self) -> float:
        """Seconds since 1970."""
        return clock.wall_seconds()

    def ring_at(self, seconds: float | None) -> None:
        """At that time, or at once if it is over, or (None) never. Raises UnavailableError: no descriptor left."""
        if seconds is None:
            self.close()
            return
        if self._fd < 0:
            fd = _libc().timerfd_create(_CLOCK_REALTIME, _TFD_NONBLOCK | _TFD_CLOEXEC)
            if fd < 0:
                raise UnavailableError(f"cannot make a timer: {os.strerror(ctypes.get_errno())}")
            self._fd = fd
            self._poller.add(fd, self._read)
        whole, fraction = divmod(min(max(seconds, 0.001), _FAR), 1)
        wanted = _Itimerspec(value=_Timespec(int(whole), int(fraction * 1e9)))
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        if _libc().timerfd_settime(self._fd, flags, ctypes.byref(wanted), None) < 0:
            cause = ctypes.get_errno()
            if cause != errno.ECANCELED:  # else it is set, and the clock was set in between: the next read says so too
                raise UnavailableError(f"cannot set a timer: {os.strerror(cause)}")

    def close(self) -> None:
        """Ring no more. Twice is fine."""
        if self._fd >= 0:
            self._poller.remove(self._fd)
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno == errno.ECANCELED:
                self.on_jump()
            return
        self.on_ring()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
