"""A thread of one's own for blocking calls, one after another, cheaper than trio's threads by half and more.

A thread switch costs ten microseconds; what takes long is the way through the loop and back. So a call that may be over
in a moment can be waited for with the whole loop, for a moment.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import trio


class Worker:
    """Begins with the first call, ends with ``close``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._done = -1  # an eventfd
        self._over = threading.Lock()  # held until the call is over
        self._result: Any = None
        self._error: BaseException | None = None
        self._asleep = False  # the loop needs the eventfd
        self._busy = False

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run it in the thread. Once begun it is waited for, cancelled or not. One call at a time."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._start(function, args, 0.0)
        await self._sleep()
        return self._outcome()

    def call_now(self, function: Callable[..., Any], *args: Any, patience: float) -> bool:
        """Run it in the thread while the whole loop waits. False: it is not over, go on with ``finish``."""
        if not self._start(function, args, patience):
            return False
        self._outcome()
        return True

    async def finish(self) -> Any:
        """Wait for the call that ``call_now`` did not see the end of."""
        await self._sleep()
        return self._outcome()

    def _start(self, function: Callable[..., Any], args: tuple[Any, ...], patience: float) -> bool:
        assert not self._busy, f"{self._name} has a call already"
        if self._thread is None:
            self._begin()
        self._busy = True
        self._asleep = not patience
        self._calls.put((function, args))
        return bool(patience) and self._over.acquire(timeout=patience)

    def _outcome(self) -> Any:
        self._busy = False
        result, error = self._result, self._error
        self._result = self._error = None
        if error is not None:
            raise error
        return result

    async def _sleep(self) -> None:
        """First say so, then look: the thread lets go of the lock, then looks whether somebody sleeps."""
        self._asleep = True
        with trio.CancelScope(shield=True):
            while not self._over.acquire(blocking=False):
                await trio.lowlevel.wait_readable(self._done)
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._done)  # it may be of a call before, which was over when we looked

    def close(self) -> None:
        """Between calls; twice is fine."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
            self._thread = None
            os.close(self._done)

    def _begin(self) -> None:
        self._done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._over = threading.Lock()
        self._over.acquire()
        self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (wanted := self._calls.get()) is not None:
            function, args = wanted
            try:
                self._result = function(*args)
            except BaseException as exc:  # noqa: BLE001  # raised where the caller is
                self._error = exc
            del function, args, wanted
            self._over.release()
            if self._asleep:
                os.eventfd_write(self._done, 1)
