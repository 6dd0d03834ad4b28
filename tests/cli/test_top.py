"""``top`` on a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from dataclasses import dataclass

from cli.peer import Peer, command, environment, http, run


@dataclass
class Terminal:
    process: subprocess.Popen[bytes]
    fd: int
    seen: bytes = b""

    def read_until(self, wanted: bytes) -> None:
        while wanted not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], 60)
            assert ready, f"waited for {wanted!r}, saw {self.seen!r}"
            self.seen += os.read(self.fd, 4096)


@contextlib.contextmanager
def terminal(*words: str) -> Iterator[Terminal]:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 12, 60, 0, 0))
    with subprocess.Popen(
        command(*words), env=environment(), stdin=follower, stdout=follower, stderr=subprocess.PIPE
    ) as process:
        os.close(follower)
        try:
            yield Terminal(process, leader)
        finally:
            process.kill()
            os.close(leader)


def test_it_draws_follows_and_leaves_the_terminal_as_it_was(peer: Peer) -> None:
    names = ["first", "second"]
    peer.answers["GET /v1/status"] = lambda connection: connection.sendall(
        http(json.dumps({"ready": True, "node": {"name": names.pop(0) if len(names) > 1 else names[0]}}).encode())
    )

    def events(connection: object) -> None:
        assert hasattr(connection, "sendall")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: unit\ndata: {}\n\n")
        connection.recv(1)  # type: ignore[attr-defined]

    peer.answers["GET /v1/events"] = events
    with terminal("top", "--root", peer.layout.root) as top:
        top.read_until(b"\x1b[?1049h\x1b[?25l")
        top.read_until(b"second")
        top.read_until(b"q quit")
        os.write(top.fd, b"q")
        top.read_until(b"\x1b[?25h\x1b[?1049l")
        assert top.process.wait(30) == 0
    assert b"\x1b[2J" not in top.seen  # it never wipes the screen, so it does not flicker


def test_it_says_when_nothing_runs_and_ends_by_ctrl_c(peer: Peer) -> None:
    with terminal("top", "--root", peer.layout.root + "/nothing") as top:
        top.read_until(b"cannot connect")
        top.process.send_signal(signal.SIGINT)
        top.read_until(b"\x1b[?1049l")
        assert top.process.wait(30) == 130


def test_without_a_terminal_it_refuses(peer: Peer) -> None:
    done = run("top", "--root", peer.layout.root)
    assert done.returncode == 2
    assert done.stderr == "appliance: cannot draw: this is not a terminal; use `appliance status`\n"
