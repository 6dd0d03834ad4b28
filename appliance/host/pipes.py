"""Named pipes for the output of units: what is written while nobody reads waits in the pipe for the next reader."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable

from appliance.host.files import translate
from appliance.host.poller import Poller

_READ_BYTES = 256 << 10


def make_pipe(path: str) -> None:
    """A named pipe there; an existing one is kept with what it holds. Raises UnavailableError or InputError."""
    try:
        try:
            os.mkfifo(path, 0o600)
        except FileExistsError:
            if not stat.S_ISFIFO(os.lstat(path).st_mode):
                os.unlink(path)
                os.mkfifo(path, 0o600)
    except OSError as exc:
        raise translate(exc, "make pipe", path) from exc


class PipeReader:
    """Hands what comes to ``sink``, from the poller's task. The pipe is ours to write too, so it never ends."""

    def __init__(self, path: str, poller: Poller, sink: Callable[[bytes], None]) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise translate(exc, "open", path) from exc
        self._poller = poller
        self._sink = sink
        poller.add(self._fd, self.read)

    def read(self) -> bool:
        """One piece of what is there; False when there was nothing."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        self._sink(data)
        return True

    def drain(self, size_max: int = 4 << 20) -> None:
        """All that is there now: the writers are gone, so it is at most what a pipe holds."""
        rest = size_max
        while rest > 0 and self.read():
            rest -= _READ_BYTES

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def close(self) -> None:
        """Stop reading; what is still in the pipe is lost unless somebody else holds it open. Twice is fine."""
        if self._fd >= 0:
            self._poller.remove(self._fd)
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
