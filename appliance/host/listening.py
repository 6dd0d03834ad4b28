"""Sockets and fifos that are opened for others: what a unit is given to listen on (socket(7), ip(7), unix(7))."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from appliance.errors import ApplianceError, ConflictError, InputError, UnavailableError
from appliance.host.files import translate
from appliance.host.socket_options import PIPE_BYTES, Options, set_options
from appliance.host.sockets import unix_answers

_IP_TRANSPARENT, _IPV6_TRANSPARENT, _IP_FREEBIND, _IPV6_FREEBIND = 19, 75, 15, 78
_TYPES = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where to listen, and how. ``listen``: "127.0.0.1:80", "[::]:80", "/run/x.sock" or "@name"."""

    listen: str
    type: str = "stream"  # stream, dgram, seqpacket, fifo
    backlog: int = 4096
    mode: int = 0o666
    directory_mode: int = 0o755
    uid: int | None = None
    gid: int | None = None
    reuse_port: bool = False
    keep_alive: bool = False
    no_delay: bool = False
    free_bind: bool = False
    transparent: bool = False
    v6only: bool | None = None
    receive_buffer: int | None = None
    send_buffer: int | None = None
    options: Options = field(default_factory=dict)
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """A connection that was accepted: its descriptor, and who calls. ``source`` is the same for all of one host."""

    fd: int
    local: str
    remote: str
    source: str
    remote_address: str = ""
    remote_port: str = ""


def open_endpoint(endpoint: Endpoint) -> int:
    """A descriptor of the caller's, closed at exec. Raises UnavailableError, ConflictError, InputError."""
    try:
        fd = _open_fifo(endpoint) if endpoint.type == "fifo" else _open_socket(endpoint)
        for link in endpoint.links:
            _link(link, endpoint)
        return fd
    except ApplianceError:
        raise
    except OSError as exc:
        if endpoint.listen.startswith("/"):
            raise translate(exc, "listen on", endpoint.listen) from exc
        raise UnavailableError(f"cannot listen on {endpoint.listen}: {exc.strerror}", where=endpoint.listen) from exc


def is_endpoint(fd: int, endpoint: Endpoint) -> bool:
    """Whether that descriptor, which somebody opened before, listens there still."""
    try:
        it = os.fstat(fd)
        if endpoint.type == "fifo":
            there = os.stat(endpoint.listen)
            return stat.S_ISFIFO(it.st_mode) and (it.st_dev, it.st_ino) == (there.st_dev, there.st_ino)
        if not stat.S_ISSOCK(it.st_mode):
            return False
        with _borrowed(fd) as raw:
            family, address = _address_of(endpoint)
            if raw.family != family or raw.type != _TYPES[endpoint.type]:
                return False
            if bool(raw.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) is (endpoint.type == "dgram"):
                return False
            name = raw.getsockname()
            if family == socket.AF_UNIX:
                if endpoint.listen.startswith("@"):
                    return bool(name == b"\0" + os.fsencode(endpoint.listen[1:]))
                return bool(name == endpoint.listen) and stat.S_ISSOCK(os.lstat(endpoint.listen).st_mode)
            return tuple(name[:2]) == tuple(address[:2])
    except OSError:
        return False


def set_blocking(fd: int, blocking: bool) -> None:
    """Of the open socket, for all who have it."""
    os.set_blocking(fd, blocking)


def close(fd: int) -> None:
    """Twice is fine."""
    with contextlib.suppress(OSError):
        os.close(fd)


def remove_endpoint(endpoint: Endpoint) -> None:
    """Its name in the file system, if it has one."""
    if endpoint.listen.startswith("/"):
        for link in endpoint.links:
            with contextlib.suppress(OSError):
                if os.readlink(link) == endpoint.listen:
                    os.unlink(link)
        with contextlib.suppress(OSError):
            os.unlink(endpoint.listen)


def accept(fd: int) -> Call | None:
    """The next caller; None when nobody waits any more. Raises UnavailableError: no descriptors are left."""
    with _borrowed(fd) as raw:
        while True:
            try:
                connection, _ = raw.accept()
                break
            except BlockingIOError:
                return None
            except ConnectionError:
                continue  # hung up before we came
            except OSError as exc:
                raise UnavailableError(f"cannot accept a connection: {exc.strerror}") from exc
    connection.setblocking(True)
    call = _describe(connection)
    connection.detach()
    return call


def drain(fd: int) -> None:
    """Forget the callers that wait: nobody will serve them."""
    with contextlib.suppress(ApplianceError):
        while (call := accept(fd)) is not None:
            close(call.fd)


def _describe(connection: socket.socket) -> Call:
    fd = connection.fileno()
    try:
        if connection.family == socket.AF_UNIX:
            size = struct.calcsize("3i")
            pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            return Call(fd, "", f"{pid}-{uid}", f"uid {uid}")
        local, remote = connection.getsockname()[:2], connection.getpeername()[:2]
    except OSError:  # gone already: whoever reads from it will see
        return Call(fd, "", "gone", "")
    here, there = (ipaddress.ip_address(str(host).partition("%")[0]) for host, _ in (local, remote))
    texts = [str(getattr(one, "ipv4_mapped", None) or one) for one in (here, there)]
    return Call(fd, f"{texts[0]}:{local[1]}", f"{texts[1]}:{remote[1]}", texts[1], texts[1], str(remote[1]))


def _address_of(endpoint: Endpoint) -> tuple[int, tuple[str, int]]:
    if endpoint.listen.startswith(("/", "@")):
        return socket.AF_UNIX, ("", 0)
    host, _, port = endpoint.listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise InputError(f"cannot listen on {endpoint.listen}: that is no address") from None
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    return family, (str(address), int(port))


def _open_socket(endpoint: Endpoint) -> int:
    family, address = _address_of(endpoint)
    raw = socket.socket(family, _TYPES[endpoint.type] | socket.SOCK_CLOEXEC)
    try:
        _set_options(raw, endpoint)
        if family != socket.AF_UNIX:
            raw.bind(address)
        elif endpoint.listen.startswith("@"):
            raw.bind(b"\0" + os.fsencode(endpoint.listen[1:]))
        else:
            _bind_path(raw, endpoint)
        if endpoint.type != "dgram":
            raw.listen(endpoint.backlog)
        return raw.detach()
    finally:
        raw.close()


def _set_options(raw: socket.socket, endpoint: Endpoint) -> None:
    if raw.family != socket.AF_UNIX:
        v6 = raw.family == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
        if endpoint.type == "stream":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.reuse_port:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if v6 and endpoint.v6only is not None:
            raw.setsockopt(level, socket.IPV6_V6ONLY, endpoint.v6only)
        if endpoint.free_bind:
            raw.setsockopt(level, _IPV6_FREEBIND if v6 else _IP_FREEBIND, 1)
        if endpoint.transparent:
            raw.setsockopt(level, _IPV6_TRANSPARENT if v6 else _IP_TRANSPARENT, 1)
        if endpoint.keep_alive:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if endpoint.no_delay and endpoint.type == "stream":
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, size in ((socket.SO_RCVBUF, endpoint.receive_buffer), (socket.SO_SNDBUF, endpoint.send_buffer)):
        if size is not None:
            raw.setsockopt(socket.SOL_SOCKET, option, size)
    set_options(raw, endpoint.options)


def _link(path: str, endpoint: Endpoint) -> None:
    """Another name of it. One that something else has is left alone."""
    os.makedirs(os.path.dirname(path), mode=endpoint.directory_mode, exist_ok=True)
    if not os.path.lexists(path):
        os.symlink(endpoint.listen, path)


def _bind_path(raw: socket.socket, endpoint: Endpoint) -> None:
    """With its mode from the first moment on. A name that a dead process left is replaced."""
    path = endpoint.listen
    os.makedirs(os.path.dirname(path), mode=endpoint.directory_mode, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            if endpoint.type == "stream" and unix_answers(path):
                raise ConflictError(f"cannot listen on {path}: another process answers there", where=path)
            os.unlink(path)
    before = os.umask(0o777 & ~endpoint.mode)
    try:
        raw.bind(path)
    finally:
        os.umask(before)
    _own(path, endpoint)


def _open_fifo(endpoint: Endpoint) -> int:
    path = endpoint.listen
    os.makedirs(os.path.dirname(path), mode=endpoint.directory_mode, exist_ok=True)
    try:
        os.mkfifo(path, endpoint.mode)
        os.chmod(path, endpoint.mode)
        _own(path, endpoint)
    except FileExistsError:
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            raise InputError(f"cannot listen on {path}: what is there is no fifo", where=path) from None
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # read-write: it never ends
    os.set_blocking(fd, True)
    if PIPE_BYTES in endpoint.options:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, endpoint.options[PIPE_BYTES])
    return fd


def _own(path: str, endpoint: Endpoint) -> None:
    if endpoint.uid is not None or endpoint.gid is not None:
        os.chown(path, -1 if endpoint.uid is None else endpoint.uid, -1 if endpoint.gid is None else endpoint.gid)


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    raw = socket.socket(fileno=fd)
    try:
        yield raw
    finally:
        raw.detach()
