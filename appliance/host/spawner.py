"""Starts programs through the C program ``spawn``: one that stays and forks for us, else a fresh one each time."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping, Sequence

from appliance.errors import UnavailableError

_REQUEST_BYTES_MAX = 100 << 10
_ANSWER_SECONDS_MAX = 10.0
_REPORT_FD = 3


class Spawner:
    """Owns the serving ``spawn``, which is started at the first use, and again whenever it is gone."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.server_pid = 0
        self._socket: socket.socket | None = None

    def spawn(self, words: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> int:
        """The pid of our new child. ``fds``: for its report, and perhaps for its 0, 1, 2. Raises OSError."""
        request = _encode(words, environment)
        if len(request) <= _REQUEST_BYTES_MAX:
            for _ in range(2):  # the server may have been killed since we last asked
                try:
                    return self._ask(request, fds)
                except ConnectionError:
                    self.close()
        return self._spawn_directly(words, environment, fds)

    def close(self) -> None:
        """Let the server go; it ends at the end of its socket."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self.server_pid = 0

    def _ask(self, request: bytes, fds: Sequence[int]) -> int:
        if self._socket is None:
            self._socket = self._start_server()
        try:
            socket.send_fds(self._socket, [request], list(fds))
            answer = self._socket.recv(4)
        except TimeoutError as exc:
            server = self.server_pid
            self.close()
            raise UnavailableError(
                f"cannot start a process: spawn (pid {server}) does not answer within {_ANSWER_SECONDS_MAX:g} s"
            ) from exc
        if len(answer) != 4:
            raise ConnectionResetError("spawn is gone")
        pid: int = struct.unpack("=i", answer)[0]
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def _start_server(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.server_pid = os.posix_spawn(
                self.program,
                [self.program, "--serve"],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), _REPORT_FD)],
                setsigmask=(),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.settimeout(_ANSWER_SECONDS_MAX)
        return ours

    def _spawn_directly(self, words: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> int:
        report, *standard = fds
        moves = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(standard)]
        moves.append((os.POSIX_SPAWN_DUP2, report, _REPORT_FD))
        return os.posix_spawn(self.program, [self.program, *words], environment, file_actions=moves, setsigmask=())


def _encode(words: Sequence[str], environment: Mapping[str, str]) -> bytes:
    strings = [os.fsencode(word) for word in words]
    strings += [os.fsencode(f"{name}={value}") for name, value in environment.items()]
    return struct.pack("=II", len(words), len(environment)) + b"\0".join(strings) + b"\0"
