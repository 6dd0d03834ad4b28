"""HTTP/1.1 over the control socket with the plainest means: http.client alone would load ssl and email.

Every answer is read to the end of its framing; a cut answer is an error, never a short one.
"""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from appliance import errors
from appliance.host.layout import Layout
from appliance.host.sockets import connect_unix

_PIECE = 1 << 16
_LINE_MAX = 1 << 16


def call(
    layout: Layout,
    method: str,
    path: str,
    body: object = None,
    *,
    timeout: float | None = 60.0,
    headers: Mapping[str, str] | None = None,
    socket_path: str = "",
) -> Any:
    """The decoded JSON of the answer, or its text when it is not JSON. Raises the error that the daemon names."""
    raw, kind = call_raw(layout, method, path, body, timeout=timeout, headers=headers, socket_path=socket_path)
    if kind.startswith("application/json"):
        return _decode(raw, path)
    return raw.decode(errors="replace")


def call_raw(
    layout: Layout,
    method: str,
    path: str,
    body: object = None,
    *,
    timeout: float | None = 60.0,
    headers: Mapping[str, str] | None = None,
    socket_path: str = "",
) -> tuple[bytes, str]:
    """The bytes of the answer and its content type. ``socket_path``: not the control socket but this one."""
    with _exchange(layout, method, path, body, timeout, headers, socket_path) as (answer, kind):
        return b"".join(answer), kind


def stream(
    layout: Layout,
    path: str,
    *,
    method: str = "GET",
    body: object = None,
    timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """The lines of an answer as they come, without their ends."""
    rest = b""
    for piece in stream_bytes(layout, path, method=method, body=body, timeout=timeout, headers=headers):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def stream_bytes(
    layout: Layout,
    path: str,
    *,
    method: str = "GET",
    body: object = None,
    timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """The pieces of an answer as they come, for what is too long for memory."""
    with _exchange(layout, method, path, body, timeout, headers) as (answer, _):
        yield from answer


@contextmanager
def _exchange(
    layout: Layout,
    method: str,
    path: str,
    body: object,
    timeout: float | None,
    headers: Mapping[str, str] | None,
    socket_path: str = "",
) -> Iterator[tuple[Iterator[bytes], str]]:
    content = b"" if body is None else json.dumps(body).encode()
    lines = {"Host": "appliance", "Connection": "close", "Accept": "application/json", **(headers or {})}
    if body is not None or method != "GET":
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    connection = _connect(layout, timeout, socket_path or layout.control_socket)
    try:
        with connection, connection.makefile("rb") as answer:
            with suppress(BrokenPipeError):  # refused before all was sent; the answer says why
                connection.sendall(head.encode() + content)
            status, said = _read_head(answer, path)
            pieces = _body(answer, said, path)
            if status >= 400:
                raise _error(status, b"".join(pieces), method, path)
            yield pieces, said.get("content-type", "")
    except TimeoutError as exc:
        raise errors.UnavailableError(f"cannot {method} {path}: no answer for {timeout:g} s") from exc
    except ConnectionError as exc:
        raise errors.UnavailableError(f"cannot {method} {path}: {exc.strerror or exc}") from exc


def _connect(layout: Layout, timeout: float | None, path: str) -> socket.socket:
    try:
        return connect_unix(path, timeout=timeout)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as exc:
        what, start = "no appliance runs here", "appliance run"
        if layout.root != "/":
            what, start = f"no appliance runs below {layout.root}", f"appliance --root {layout.root} run"
        raise errors.NotRunningError(f"cannot connect to {path}: {what} (start it: {start})", where=path) from exc
    except PermissionError as exc:
        message = f"cannot connect to {path}: {exc.strerror}; be root, or in the group appliance to read"
        raise errors.UntrustedError(message, where=path) from exc
    except OSError as exc:
        raise errors.UnavailableError(f"cannot connect to {path}: {exc.strerror or exc}", where=path) from exc


def _read_head(answer: io.BufferedReader, path: str) -> tuple[int, dict[str, str]]:
    first = _read_line(answer, path)
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise errors.CorruptError(f"cannot read the answer to {path}: it starts with {first[:60]!r}")
    headers = {}
    while line := _read_line(answer, path):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(rest[:3]), headers


def _read_line(answer: io.BufferedReader, path: str) -> str:
    line = answer.readline(_LINE_MAX)
    if not line.endswith(b"\n"):
        raise _cut(path)
    return line.decode("latin-1").rstrip("\r\n")


def _body(answer: io.BufferedReader, headers: Mapping[str, str], path: str) -> Iterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        yield from _chunks(answer, path)
    elif "content-length" in headers:
        left = int(headers["content-length"])
        while left:
            piece = answer.read1(min(left, _PIECE))
            if not piece:
                raise _cut(path)
            left -= len(piece)
            yield piece
    else:
        while piece := answer.read1(_PIECE):
            yield piece


def _chunks(answer: io.BufferedReader, path: str) -> Iterator[bytes]:
    while left := int(_read_line(answer, path).partition(";")[0], 16):
        while left:
            piece = answer.read1(min(left, _PIECE))
            if not piece:
                raise _cut(path)
            left -= len(piece)
            yield piece
        _read_line(answer, path)
    while _read_line(answer, path):  # trailers
        pass


def _cut(path: str) -> errors.UnavailableError:
    return errors.UnavailableError(f"cannot read the answer to {path}: the connection was cut")


def _decode(raw: bytes, path: str) -> Any:
    try:
        return json.loads(raw)
    except ValueError as exc:
        raise errors.CorruptError(f"cannot read the answer to {path}: not JSON: {exc}") from exc


def _error(status: int, raw: bytes, method: str, path: str) -> errors.ApplianceError:
    """The error of ours that the body names; else the nearest by its status."""
    ours = errors.ApplianceError
    kinds = {one.kind: one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ours)}
    try:
        said = json.loads(raw)["error"]
        if isinstance(said, str):  # etcd's gateway
            said = {"kind": "", "message": f"cannot {method} {path}: {said}"}
        kind, message, where = str(said["kind"]), str(said["message"]), str(said.get("where") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        kind, where = "", ""
        message = f"cannot {method} {path}: HTTP {status} {raw[:200].decode(errors='replace').strip()}".rstrip()
    by_status = {one.http_status: one for one in reversed(kinds.values())}
    return (kinds.get(kind) or by_status.get(status, ours))(message, where=where)
