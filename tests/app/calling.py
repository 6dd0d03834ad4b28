"""A client that calls again and again, in a thread, and counts what it got: nobody may be turned away."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from app.daemon import PATIENCE, wait_until

# Whom it has accepted it serves: it can be stopped only while it waits.
SERVER = """
import os, select, signal, socket
listener = socket.socket(fileno=3)
while True:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    select.select([listener], [], [])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    connection, _ = listener.accept()
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""


def free_port() -> int:
    with socket.socket() as raw:
        raw.bind(("127.0.0.1", 0))
        return int(raw.getsockname()[1])


class Caller:
    """``answers`` are what it got; ``failures`` what it should not have."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[bytes] = []
        self.failures: list[str] = []
        self._over = threading.Event()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as stream:
                    answer = stream.recv(100)
            except OSError as exc:
                self.failures.append(str(exc))
                return
            (self.answers if answer else self.failures).append(answer or "hung up")  # type: ignore[arg-type]

    def expect_more(self, count: int = 20) -> None:
        """Until it was answered that often from now on."""
        wanted = len(self.answers) + count
        wait_until(lambda: self.failures or len(self.answers) >= wanted, "answers")
        assert self.failures == []


@contextlib.contextmanager
def calling(port: int) -> Iterator[Caller]:
    caller = Caller(port)
    thread = threading.Thread(target=caller._run)
    thread.start()
    try:
        yield caller
    finally:
        caller._over.set()
        thread.join(PATIENCE)
    assert caller.failures == []
