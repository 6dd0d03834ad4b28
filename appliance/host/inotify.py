"""Files and directories under the kernel's eyes (inotify(7)): one descriptor for all, a callback for each path."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

from appliance.errors import UnavailableError
from appliance.host.files import translate
from appliance.host.poller import Poller

MODIFIED, ATTRIBUTES, WRITTEN = 0x2, 0x4, 0x8  # IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE
MOVED_FROM, MOVED_TO, CREATED, DELETED = 0x40, 0x80, 0x100, 0x200
DELETED_SELF, MOVED_SELF = 0x400, 0x800
_UNMOUNTED, _OVERFLOW, _IGNORED = 0x2000, 0x4000, 0x8000
_ONLYDIR, _MASK_ADD = 0x01000000, 0x20000000  # the latter: what others want to know of the same file is kept
_EVENT = struct.Struct("iIII")


@dataclass(eq=False)
class Watch:
    """One path, until ``Inotify.remove``, or until it is gone."""

    path: str
    events: int
    callback: Callable[[int, str], None]  # what happened, and to which name in that directory
    descriptor: int = -1


class Inotify:
    """Opened at the first watch, closed after the last one. Callbacks run in the poller's task.

    When the kernel's queue overflows, everybody is called as if anything could have happened (with 0 and "").
    """

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._fd = -1
        self._watches: dict[int, list[Watch]] = {}  # the kernel has one for each file, whatever it is called

    def add(self, path: str, events: int, callback: Callable[[int, str], None], *, directory: bool = False) -> Watch:
        """Watch what is there now. Raises NotFoundError, InputError, UnavailableError (too many watches)."""
        if self._fd < 0:
            self._fd = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd < 0:
                cause = ctypes.get_errno()
                raise UnavailableError(f"cannot watch {path}: {os.strerror(cause)}", where=path)
            self._poller.add(self._fd, self._read)
        watch = Watch(path, events, callback)
        flags = _ONLYDIR if directory else 0
        number = _libc().inotify_add_watch(self._fd, os.fsencode(path), events | flags | _MASK_ADD)
        if number < 0:
            exc = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            self._close_if_idle()
            raise translate(exc, "watch", path) from exc
        watch.descriptor = number
        self._watches.setdefault(number, []).append(watch)
        return watch

    def remove(self, watch: Watch) -> None:
        """Watch it no longer. Twice, or when it is gone, is fine."""
        there = self._watches.get(watch.descriptor, [])
        if watch in there:
            there.remove(watch)
            if not there:
                del self._watches[watch.descriptor]
                _libc().inotify_rm_watch(self._fd, watch.descriptor)
        watch.descriptor = -1
        self._close_if_idle()

    def close(self) -> None:
        """Watch nothing any more."""
        self._watches.clear()
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._watches and self._fd >= 0:
            self._poller.remove(self._fd)
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 64 << 10)
        except (BlockingIOError, InterruptedError):
            return
        at = 0
        while at < len(data):
            number, events, _, length = _EVENT.unpack_from(data, at)
            name = os.fsdecode(data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0"))
            at += _EVENT.size + length
            if events & _OVERFLOW:
                for watch in [one for watches in self._watches.values() for one in watches]:
                    watch.callback(0, "")
                continue
            there = list(self._watches.get(number, ()))
            if events & _IGNORED:
                self._watches.pop(number, None)
                events |= DELETED_SELF
            for watch in there:
                if watch.descriptor < 0:  # an earlier callback took it away
                    continue
                if events & (watch.events | DELETED_SELF | _UNMOUNTED):
                    watch.callback(events, name)
        self._close_if_idle()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
