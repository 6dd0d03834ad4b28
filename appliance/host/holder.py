"""Keeps file descriptors over our own death: a tiny process (hold.c) that holds copies, until it is told to let go.

It is started at the first ``put`` and costs nothing before. After a kill -9, a crash or a change of version the next
daemon finds it by its socket, and in it everything as it was. All calls are short and blocking, as between a program
and the kernel, but for ``put_soon`` and ``drop_soon``: what they send is done though we be killed at once, and nobody
waits for the answer.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from appliance.errors import UnavailableError
from appliance.host.poller import Poller
from appliance.host.sockets import unix_address

_ANSWER_SECONDS_MAX = 10.0
_LISTENER_FD = 3
_BYTES_MAX = 8192
_OWED_MAX = 64  # answers: more of them could fill its buffer, and then it would wait for us, and we for it


class Holder:
    """Descriptors by key; each has a name, and names need not differ. What is put in stays open here and there."""

    def __init__(self, path: str, program: str, poller: Poller) -> None:
        self.path = path
        self.on_lost: list[Callable[[], None]] = []  # called when it was killed: what it held is gone
        self._program = program
        self._poller = poller
        self._socket: socket.socket | None = None
        self._owed: deque[Callable[[int], None]] = deque()  # who is told of answers that are still to come
        self._known: set[str] | None = None  # keys under which there may be something; None: not asked yet

    def put_soon(self, key: str, name: str, fd: int, failed: Callable[[UnavailableError], None]) -> None:
        """As ``put``, of a key under which nothing is held yet; ``failed`` is called, perhaps later, if it must be."""
        try:
            if self._socket is None and not self._find():
                self._start()
            self._send(b"P", key, name, fd)
        except UnavailableError:
            try:
                self.put(key, name, fd)
            except UnavailableError as exc:
                failed(exc)
            return

        def told(answer: int) -> None:
            if answer < 0:
                message = f"cannot hold descriptor {name} of {key}: {os.strerror(-answer)}"
                failed(UnavailableError(message, where=self.path))

        self._owed.append(told)

    def drop_soon(self, key: str) -> None:
        """As ``drop``. Raises UnavailableError when it cannot even be asked."""
        if self._socket is None and not self._find():
            return
        self._send(b"D", key, "")

        def told(left: int) -> None:
            if left == 0 and not self._owed:
                self.close()  # nobody calls and nothing is held: it ends

        self._owed.append(told)

    def put(self, key: str, name: str, fd: int) -> None:
        """Hold a copy. The same open file under the same key and name is held once. Raises UnavailableError."""
        try:
            answer = self._ask(b"P", key, name, fd)
        except UnavailableError:  # it was killed since we last called
            answer = self._ask(b"P", key, name, fd)
        if answer < 0:
            raise UnavailableError(f"cannot hold descriptor {name} of {key}: {os.strerror(-answer)}", where=self.path)

    def take(self, key: str) -> list[tuple[str, int]]:
        """New copies of what is held there, in the order it came, with their names; it stays held until ``drop``.

        They are the caller's to close, and close themselves at exec. Raises UnavailableError.
        """
        found: list[tuple[str, int]] = []
        try:
            for _ in range(self._ask(b"T", key)):
                data, fds = self._receive()
                if len(fds) != 1:
                    raise UnavailableError(
                        f"cannot take what is held for {key}: no descriptors left for us", where=self.path
                    )
                found.append((data[:-1].decode(errors="surrogateescape"), fds[0]))
        except UnavailableError:
            for _, fd in found:
                os.close(fd)
            self.close()
            raise
        return found

    def drop(self, key: str, name: str = "") -> None:
        """Let go of all of that key, or of those with that name. What is not held is fine. Raises UnavailableError."""
        if self._ask(b"D", key, name) == 0:
            self.close()  # nobody calls and nothing is held: it ends

    def keys(self) -> tuple[str, ...]:
        """All that something is held for. Raises UnavailableError."""
        count = self._ask(b"L")
        return tuple(dict.fromkeys(self._receive()[0][:-1].decode(errors="surrogateescape") for _ in range(count)))

    def holds(self, key: str) -> bool:
        """Whether ``take`` may find something: asked once for all keys, for nobody else puts anything in.

        Raises UnavailableError.
        """
        if self._known is None:
            self._known = set(self.keys())
        return key in self._known

    def end(self) -> None:
        """Let go of everything; there is no holder afterwards. Never raises: it is the way out."""
        with contextlib.suppress(UnavailableError):
            if self._socket is not None or self._find():
                self._ask(b"E")
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def close(self) -> None:
        """Hang up. It goes on holding, for whoever calls next."""
        if self._socket is not None:
            self._poller.remove(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._owed.clear()
        self._known = None

    def _find(self) -> bool:
        """The one that an earlier daemon, or we, left running."""
        try:
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        except OSError as exc:
            raise UnavailableError(f"cannot call the holder: {exc.strerror}", where=self.path) from exc
        try:
            with unix_address(self.path) as address:
                raw.connect(address)
        except OSError:
            raw.close()
            return False
        self._take_up(raw)
        return True

    def _take_up(self, raw: socket.socket) -> None:
        raw.settimeout(_ANSWER_SECONDS_MAX)
        self._socket = raw
        self._poller.add(raw.fileno(), self._readable)

    def _start(self) -> None:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener:
                with unix_address(self.path) as address:
                    listener.bind(address)
                os.chmod(self.path, 0o600)
                listener.listen(8)
                moves = [(os.POSIX_SPAWN_DUP2, listener.fileno(), _LISTENER_FD)]
                os.posix_spawn(self._program, [self._program, "--hold"], {}, file_actions=moves, setsigmask=())
        except OSError as exc:
            raise UnavailableError(f"cannot start the holder: {exc.strerror}", where=self.path) from exc
        if not self._find():
            raise UnavailableError("cannot start the holder: it does not answer", where=self.path)

    def _readable(self) -> None:
        """Answers that nobody waits for; else it is gone: it says nothing unasked."""
        if not self._owed:
            self._hung_up()
            return
        with contextlib.suppress(UnavailableError):
            self._take_owed(socket.MSG_DONTWAIT)

    def _take_owed(self, flags: int = 0) -> None:
        while self._owed and self._socket is not None:
            try:
                data = self._socket.recv(4, flags)
            except BlockingIOError:
                return
            except OSError as exc:
                self._fail(exc)
            if len(data) != 4:
                self._fail(ConnectionResetError(0, "it is gone"))
            told = self._owed.popleft()
            told(struct.unpack("=i", data)[0])

    def _hung_up(self) -> None:
        """It is gone. Whoever has copies puts them in again."""
        self.close()
        for callback in self.on_lost:
            callback()

    def _ask(self, letter: bytes, key: str = "", name: str = "", fd: int | None = None) -> int:
        self._take_owed()
        called = self._socket is None
        if called and not self._find():  # there is none, or the last of these answers was that it holds nothing
            if letter == b"P":
                self._start()
            else:
                return 0
        try:
            self._send(letter, key, name, fd)
            data, _ = self._receive()
        except UnavailableError as exc:
            if called and letter != b"P" and isinstance(exc.__cause__, ConnectionError):
                return 0  # it was about to end as we called: it holds nothing
            raise
        if len(data) != 4:
            self._fail(OSError(0, "it said nothing that we understand"))
        answer: int = struct.unpack("=i", data)[0]
        return answer

    def _send(self, letter: bytes, key: str, name: str, fd: int | None = None) -> None:
        if len(self._owed) >= _OWED_MAX:
            self._take_owed()
            if self._socket is None:
                raise UnavailableError("cannot talk to the holder: it has just let go of all", where=self.path)
        assert self._socket is not None
        if letter == b"P" and self._known is not None:
            self._known.add(key)
        words = b"\0".join((letter + os.fsencode(key), os.fsencode(name), b""))
        try:
            socket.send_fds(self._socket, [words], [] if fd is None else [fd])
        except OSError as exc:
            self._fail(exc)

    def _receive(self) -> tuple[bytes, list[int]]:
        assert self._socket is not None
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, _BYTES_MAX, 1)
        except OSError as exc:
            self._fail(exc)
        if not data:
            self._fail(ConnectionResetError(0, "it is gone"))
        for fd in fds:
            os.set_inheritable(fd, False)
        return data, fds

    def _fail(self, exc: OSError) -> NoReturn:
        """Whatever is wrong with it, the next call finds it or another one."""
        if isinstance(exc, ConnectionError):
            self._hung_up()
        self.close()
        raise UnavailableError(f"cannot talk to the holder: {exc.strerror or exc}", where=self.path) from exc
