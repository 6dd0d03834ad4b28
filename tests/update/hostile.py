"""A web server that does wrong what a server can do wrong, one thing at a time, over http or https."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Trick = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One request; a trick answers it. ``good`` does it as it should be."""

    handler: BaseHTTPRequestHandler
    data: bytes | None
    stopping: threading.Event

    def span(self) -> tuple[int, int] | None:
        wanted = self.handler.headers.get("Range", "")
        if not wanted or self.data is None:
            return None
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        return int(first), min(len(self.data), int(last) + 1 if last else len(self.data))

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.handler.send_header("Content-Length", str(length))
        self.handler.end_headers()

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.handler.wfile.write(data)
            self.handler.wfile.flush()

    def status(self, status: int) -> None:
        self.head(status, 0)

    def good(self) -> None:
        if self.data is None:
            return self.status(404)
        span = self.span()
        if span is None:
            self.head(200, len(self.data))
            return self.write(self.data)
        start, end = span
        self.head(206, end - start, Content_Range=f"bytes {start}-{end - 1}/{len(self.data)}")
        return self.write(self.data[start:end])

    def body(self) -> tuple[int, bytes, dict[str, str]]:
        """Status, bytes and headers as they should be."""
        assert self.data is not None
        span = self.span()
        if span is None:
            return 200, self.data, {}
        return 206, self.data[slice(*span)], {"Content_Range": f"bytes {span[0]}-{span[1] - 1}/{len(self.data)}"}


def truncated(exchange: Exchange) -> None:
    status, data, headers = exchange.body()
    exchange.head(status, len(data), **headers)
    exchange.write(data[: len(data) // 2])
    exchange.handler.close_connection = True


def wrong_length(exchange: Exchange) -> None:
    status, data, headers = exchange.body()
    exchange.head(status, len(data) - 10, **headers)
    exchange.write(data[:-10])


def wrong_range(exchange: Exchange) -> None:
    """Another range than asked for, and no way to get all of it."""
    if exchange.span() is None:
        return exchange.status(500)
    assert exchange.data is not None
    exchange.head(206, 100, Content_Range=f"bytes 7-106/{len(exchange.data)}")
    return exchange.write(exchange.data[7:107])


def endless(exchange: Exchange) -> None:
    exchange.head(200, None, Connection="close")
    while not exchange.stopping.is_set():
        try:
            exchange.handler.wfile.write(b"\0" * 65536)
        except OSError:
            break
    exchange.handler.close_connection = True


def endless_headers(exchange: Exchange) -> None:
    with contextlib.suppress(OSError):
        exchange.handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not exchange.stopping.is_set():
            exchange.handler.wfile.write(b"X-More: and more\r\n" * 100)
    exchange.handler.close_connection = True


def slow(exchange: Exchange) -> None:
    """A byte now and then: never silent, never done."""
    status, data, headers = exchange.body()
    exchange.head(status, len(data), **headers)
    for at in range(len(data)):
        if exchange.stopping.wait(0.05):
            break
        try:
            exchange.handler.wfile.write(data[at : at + 1])
        except OSError:
            break
    exchange.handler.close_connection = True


def slow_headers(exchange: Exchange) -> None:
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 2000:
            if exchange.stopping.wait(0.05):
                break
            exchange.handler.wfile.write(bytes((byte,)))
    exchange.handler.close_connection = True


def silent(exchange: Exchange) -> None:
    exchange.stopping.wait(60)
    exchange.handler.close_connection = True


def redirect_loop(exchange: Exchange) -> None:
    exchange.head(302, 0, Location=exchange.handler.path)


def reset(exchange: Exchange) -> None:
    exchange.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    exchange.handler.close_connection = True
    exchange.handler.connection.close()


def flipped(exchange: Exchange) -> None:
    status, data, headers = exchange.body()
    middle = len(data) // 2
    exchange.head(status, len(data), **headers)
    exchange.write(data[:middle] + bytes((data[middle] ^ 1,)) + data[middle + 1 :])


def garbage(exchange: Exchange) -> None:
    exchange.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    exchange.handler.close_connection = True


def status(number: int) -> Trick:
    return lambda exchange: exchange.status(number)


@dataclass
class Hostile:
    """Serves ``directory``; what ends with the key of ``tricks`` is answered by the trick."""

    directory: Path
    tls: ssl.SSLContext | None = None
    tricks: dict[str, Trick] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def __enter__(self) -> Hostile:
        hostile, self._stopping = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                hostile.requests.append((path, self.headers.get("Range", ""), dict(self.headers)))
                file = hostile.directory / path.removeprefix("http://").partition("/")[2].lstrip("/")
                data = file.read_bytes() if file.is_file() else None
                exchange = Exchange(self, data, hostile._stopping)
                trick = next((trick for end, trick in hostile.tricks.items() if path.endswith(end)), Exchange.good)
                trick(exchange)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._http = Quiet(("127.0.0.1", 0), Handler)
        scheme = "http"
        if self.tls is not None:
            self._http.socket = self.tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
