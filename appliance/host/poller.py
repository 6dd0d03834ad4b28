"""Many descriptors, one task: an epoll inside trio's epoll, with a plain callback for each descriptor.

A task per quiet pipe would cost ten kilobytes each; here a thousand idle units cost a thousand table entries. It also
knows the two events that trio does not: EPOLLPRI (cgroup.events changed) and bare EPOLLHUP.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable

import trio

READABLE = select.EPOLLIN
CHANGED = select.EPOLLPRI
_AT_ONCE_MAX = 64


class Poller:
    """Callbacks are synchronous, short, and run in the task of ``run``; what they raise is a bug and ends it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], object]] = {}

    def add(self, fd: int, callback: Callable[[], object], *, events: int = READABLE) -> None:
        """Call back whenever ``fd`` is ready, until ``remove``. Remove before closing the descriptor."""
        assert fd not in self._callbacks, f"descriptor {fd} is watched already"
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def add_hangup(self, fd: int, callback: Callable[[], object]) -> bool:
        """Call back when the other end of it is gone. False: it is no such thing as has another end."""
        try:
            self.add(fd, callback, events=0)
        except PermissionError:  # a plain file
            return False
        return True

    def remove(self, fd: int) -> None:
        """Watch it no longer; an unknown one is fine."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    async def run(self) -> None:
        """Serve until cancelled. Busy descriptors share: each gets one call per round, and trio runs between rounds."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _ in self._epoll.poll(0, _AT_ONCE_MAX):
                callback = self._callbacks.get(fd)
                if callback is not None:  # an earlier callback of this round may have removed it
                    callback()

    def close(self) -> None:
        """Give the descriptor back."""
        self._callbacks.clear()
        self._epoll.close()
