"""Signals that ask the whole process for something. Taken over before anything else runs, and never lost after that.

Cheap to import: trio, which costs most of the start, is asked for only by ``wait``.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from types import FrameType

HANGUP = int(signal.SIGHUP)
INTERRUPT = int(signal.SIGINT)
TERMINATE = int(signal.SIGTERM)
POWER = int(signal.SIGPWR)
WATCHED = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPWR})


class Signals:
    """The asked-for signals in order of arrival; those that came before trio ran are still there."""

    def __init__(self) -> None:
        self._pending: deque[int] = deque()
        self._wake: Callable[[], None] | None = None

    def take_over(self) -> None:
        """Install the handlers, also where the parent left a signal ignored (a shell's ``&`` does so with SIGINT).

        Only then unblock: who starts us may hold signals back over the exec, so that none falls into the gap.
        """
        for number in WATCHED:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)

    def hold_back(self) -> None:
        """From here on they wait, over an exec too, until the next ``take_over``; ``pending`` tells of those before."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending.append(number)
        if self._wake is not None:
            self._wake()

    @property
    def pending(self) -> bool:
        """Whether any came that nobody took."""
        return bool(self._pending)

    def put_back(self, number: int) -> None:
        """For whoever waits next."""
        self._pending.appendleft(number)

    async def wait(self) -> int:
        """The oldest, or the next to come. One waiter at a time."""
        import trio

        readers = trio.lowlevel.ParkingLot()
        token = trio.lowlevel.current_trio_token()

        def wake() -> None:
            token.run_sync_soon(readers.unpark_all, idempotent=True)

        self._wake = wake
        try:
            while not self._pending:
                await readers.park()
            return self._pending.popleft()
        finally:
            self._wake = None


def name(number: int) -> str:
    """SIGTERM for 15."""
    return signal.Signals(number).name
