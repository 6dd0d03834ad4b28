"""Unix datagram sockets that know who speaks: for what units say of themselves (sd_notify(3))."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections.abc import Callable

from appliance.host.files import translate
from appliance.host.poller import Poller

_PATH_BYTES_MAX = 107
_MESSAGE_BYTES_MAX = 64 << 10
_DESCRIPTORS_MAX = 253  # the kernel's SCM_MAX_FD


class NotifySocket:
    """Hands (sender's pid, message, descriptors) to ``sink``, which closes the descriptors or keeps them: closing is
    also what answers ``systemd-notify``'s barrier. ``fd``: one that was bound in an earlier life.
    """

    def __init__(
        self, path: str, poller: Poller, sink: Callable[[int, bytes, list[int]], None], *, fd: int | None = None
    ) -> None:
        self._poller = poller
        self._sink = sink
        if fd is not None:
            self._socket = socket.socket(fileno=fd)
            self._socket.setblocking(False)
            name = self._socket.getsockname()
            self.address = "@" + name[1:].decode() if isinstance(name, bytes) else str(name)
            poller.add(self._socket.fileno(), self.read)
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        # A path that does not fit into an address becomes a name that needs no file system.
        fits = len(os.fsencode(path)) <= _PATH_BYTES_MAX
        self.address = path if fits else "@appliance" + path[-80:]
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            if fits:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                self._socket.bind(path)
                os.chmod(path, 0o666)  # the sender is known by its credentials, not by who may open this
            else:
                self._socket.bind("\0" + self.address[1:])
        except OSError as exc:
            self._socket.close()
            raise translate(exc, "listen on", path) from exc
        poller.add(self._socket.fileno(), self.read)

    def read(self) -> None:
        """Take what is there."""
        for _ in range(16):
            space = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(_DESCRIPTORS_MAX * 4)
            try:
                data, attached, _, _ = self._socket.recvmsg(_MESSAGE_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            pid, fds = 0, array.array("i")
            for level, kind, content in attached:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("3i", content[:12])[0]
                elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(content[: len(content) - len(content) % 4])
            self._sink(pid, data, fds.tolist())
            if self._socket.fileno() < 0:  # the sink may have closed us
                return

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Listen no more. Twice is fine."""
        if self._socket.fileno() >= 0:
            self._poller.remove(self._socket.fileno())
            self._socket.close()
