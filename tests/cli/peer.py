"""A small real server on a unix socket, that says what a test told it to; and ways to run the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.host.layout import Layout

SOURCE = Path(__file__).parents[2]
Talk = Callable[[socket.socket], None]


@dataclass
class Peer:
    """``answers``: "GET /path" -> bytes to send, or a function that talks on the connection."""

    layout: Layout
    answers: dict[str, bytes | Talk] = field(default_factory=dict)
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    def says(self, request: str, data: Any, *, status: int = 200) -> None:
        self.answers[request] = http(json.dumps(data).encode(), status=status)


def http(body: bytes, *, status: int = 200, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} Word\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def chunked(*pieces: bytes, kind: str = "application/json", end: bool = True) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    body = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces)
    return head + body + (b"0\r\n\r\n" if end else b"")


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Peer]:
    peer = Peer(Layout(str(root)))
    directory = Path(peer.layout.run)
    directory.mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX)
    fd = os.open(directory, os.O_PATH)
    listener.bind(f"/proc/self/fd/{fd}/control.sock")  # pytest's directories may be longer than 107 bytes
    os.close(fd)
    listener.listen()

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            length = next((int(one.split(":")[1]) for one in lines if one.lower().startswith("content-length")), 0)
            while len(body) < length:
                body += connection.recv(1 << 16)
            request = " ".join(lines[0].split(" ")[:2])
            peer.requests.append((request, body))
            answer = peer.answers.get(request, http(b'{"error": {"kind": "not-found", "message": "no"}}', status=404))
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield peer
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("APPLIANCE", "NO_COLOR"))}
    return {**clean, "PYTHONPATH": str(SOURCE), "TERM": "xterm", **more}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "appliance", *words]


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own."""
    return subprocess.run(
        command(*words), env=environment(**more), capture_output=True, text=True, timeout=60, check=False
    )


def here(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """The command line in this process, which is quicker by far; ``text`` is its standard input."""
    done = here_in_bytes(*words, text=text)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def here_in_bytes(*words: str, text: str = "") -> subprocess.CompletedProcess[bytes]:
    """The same, where what comes is no text."""
    from appliance.cli import main

    out, err = io.BytesIO(), io.BytesIO()
    told, complained = io.TextIOWrapper(out, "utf-8"), io.TextIOWrapper(err, "utf-8", errors="backslashreplace")
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(complained):
            code = main(words)
    finally:
        sys.stdin = before
    told.flush()
    complained.flush()
    return subprocess.CompletedProcess(list(words), code, out.getvalue(), err.getvalue())
