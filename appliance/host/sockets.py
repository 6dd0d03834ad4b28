"""Listening and who is calling: TCP and unix sockets, with the kernel's word on the peer.

A unix path longer than the kernel's 107 bytes is reached through ``/proc/self/fd/N`` of its directory (unix(7)).
Nothing here decides who may do what.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ConflictError, InputError, UnavailableError
from appliance.host.files import translate

if TYPE_CHECKING:  # the command line uses this module too, and does not pay for trio
    import trio

UNIX_PATH_MAX = 107
_SO_PEERGROUPS = 59  # socket(7) since Linux 4.13; Python has no name for it
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
GROUP = "appliance"  # its members may read on the control socket
BACKLOG_OF_ETCD = 4096  # so many of its clients come at once when a node is back
_BROKEN_BEFORE_ACCEPT = {errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}


@dataclass(frozen=True)
class Address:
    """Where a TCP listener stands: an IP address, never a name."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""
        import ipaddress

        return ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True)
class Peer:
    """Who connected to a unix socket, at the moment of connect(2)."""

    pid: int
    uid: int
    gids: frozenset[int]


def parse_address(text: str) -> Address:
    """``127.0.0.1:7780``, ``[::1]:7780`` or ``localhost:7780``. Raises InputError saying what is wrong with it."""
    import ipaddress  # only servers parse addresses; the command line need not load it

    wanted = 'write "127.0.0.1:7780", "[::1]:7780" or "localhost:7780"'
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise InputError(f'cannot listen on "{text}": it has no port; {wanted}')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InputError(f'cannot listen on "{text}": an IPv6 address stands in brackets; {wanted}')
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and int(port_text) <= 65535):
        raise InputError(f'cannot listen on "{text}": "{port_text}" is no port between 0 and 65535; {wanted}')
    if host == "localhost":
        host = "127.0.0.1"
    try:
        return Address(str(ipaddress.ip_address(host)), int(port_text))
    except ValueError:
        found = f'"{host}" is no IP address' if host else "it has no host"
        raise InputError(f'cannot listen on "{text}": {found}; {wanted}') from None


class Listener:
    """A listening socket; ``name`` is where it really listens (the port is known even when 0 was asked for)."""

    def __init__(self, raw: socket.socket, name: str, *, path: str = "", port: int = 0) -> None:
        import trio

        self.name = name
        self.path = path
        self.port = port
        raw.setblocking(False)
        self._identity = _identity(path) if path else None
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(raw))

    def fileno(self) -> int:
        """For those who accept by themselves (``host.epoll``)."""
        return int(self._listener.socket.fileno())

    async def accept(self) -> trio.SocketStream:
        """The next connection; waits while the process is out of file descriptors."""
        import trio

        while True:
            try:
                return await self._listener.accept()
            except OSError as exc:
                if exc.errno in _FULL:
                    await trio.sleep(0.1)  # nothing tells when a descriptor is free again
                elif exc.errno not in _BROKEN_BEFORE_ACCEPT:
                    raise UnavailableError(f"cannot accept on {self.name}: {exc.strerror or exc}") from exc

    def close(self) -> None:
        """Stop listening; the unix socket's name goes too, if it is still ours."""
        self._listener.socket.close()
        if self.path and self._identity is not None and _identity(self.path) == self._identity:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def listen_tcp(address: Address, *, backlog: int = 128) -> Listener:
    """Raises UnavailableError when the address is taken or is not this host's."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.bind((address.host, address.port))
        raw.listen(backlog)
    except OSError as exc:
        raw.close()
        raise UnavailableError(f"cannot listen on {address}: {exc.strerror or exc}", where=str(address)) from exc
    port = int(raw.getsockname()[1])
    return Listener(raw, str(Address(address.host, port)), port=port)


def listen_unix(path: str, *, mode: int = 0o660, group: str | None = None, backlog: int = 128) -> Listener:
    """Listen under ``path``; a name left by a dead process is replaced, one that answers is a ConflictError.

    The socket gets its mode and group (where this group exists and we may) before it has its name,
    so there is no moment at which it is open to more.
    """
    if unix_answers(path):
        raise ConflictError(f"cannot listen on {path}: another process answers there", where=path)
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temp = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)
        with unix_address(temp) as address:
            raw.bind(address)
        os.chmod(temp, mode)
        gid = group_id(group) if group else None
        if gid is not None:
            with contextlib.suppress(PermissionError):
                os.chown(temp, -1, gid)
        raw.listen(backlog)
        os.rename(temp, path)
    except OSError as exc:
        raw.close()
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise translate(exc, "listen on", path) from exc
    return Listener(raw, path, path=path)


def listen_control(path: str) -> Listener:
    """The control socket: open to root and to who is in the group. Raises as ``listen_unix``."""
    return listen_unix(path, mode=0o660, group=GROUP)


def unix_answers(path: str) -> bool:
    """Whether somebody accepts connections on this path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            with unix_address(path) as address:
                probe.connect(address)
        except BlockingIOError:  # a full backlog: somebody listens, however slowly
            return True
        except OSError:
            return False
        return True


def connect_unix(path: str, *, timeout: float | None = None) -> socket.socket:
    """A plain blocking socket, for the command line. Raises OSError as the kernel says it."""
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        raw.settimeout(timeout)
        with unix_address(path) as address:
            raw.connect(address)
    except OSError:
        raw.close()
        raise
    return raw


@contextlib.contextmanager
def unix_address(path: str) -> Iterator[str]:
    """What bind(2) and connect(2) take for ``path``, however long its directory is."""
    if len(os.fsencode(path)) <= UNIX_PATH_MAX:
        yield path
        return
    directory, name = os.path.split(path)
    fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def peer_of(stream: trio.SocketStream) -> Peer:
    """SO_PEERCRED and SO_PEERGROUPS of a unix connection."""
    size = struct.calcsize("3i")
    try:
        pid, uid, gid = struct.unpack("3i", stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    except OSError as exc:
        raise UnavailableError(f"cannot learn who called: {exc.strerror or exc}") from exc
    gids = {int(gid)}
    with contextlib.suppress(OSError):
        groups = stream.socket.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4096)
        gids.update(struct.unpack(f"{len(groups) // 4}I", groups))
    return Peer(int(pid), int(uid), frozenset(gids))


def group_id(name: str) -> int | None:
    """The number of that group on this host, if it has one."""
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, OSError):
        return None


def own_uid() -> int:
    """Whom the kernel takes us for."""
    return os.geteuid()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        it = os.lstat(path)
    except OSError:
        return None
    return it.st_dev, it.st_ino
