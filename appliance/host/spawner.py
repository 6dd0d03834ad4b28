"""Starts programs through the C program ``spawn``: one that stays and forks for us, else a fresh one each time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from appliance.host.poller import Poller

_REQUEST_BYTES_MAX = 100 << 10
_ANSWER_SECONDS_MAX = 10.0
_REPORT_FD = 3
_OUT_OF_THE_WAY_FD = 512

Answered = Callable[[int | OSError], None]  # the pid of our new child, or why there is none


@dataclass(frozen=True)
class _Asked:
    words: Sequence[str]
    environment: Mapping[str, str]
    fds: Sequence[int]
    told: Answered
    passed: Sequence[int]


class Spawner:
    """Owns the serving ``spawn``, which is started at the first use, and again whenever it is gone.

    It answers in the order in which it was asked; ``poller`` hands the answers out, unless somebody waits for them.
    """

    def __init__(self, program: str, poller: Poller) -> None:
        self.program = program
        self.server_pid = 0
        self._poller = poller
        self._socket: socket.socket | None = None
        self._waiting: deque[_Asked] = deque()

    def spawn(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        fds: Sequence[int],
        told: Answered,
        passed: Sequence[int] = (),
    ) -> None:
        """Ask, and go on. ``fds``: its report, and perhaps its 0, 1, 2; ``passed``: those that ``--pass`` names.

        They stay open until it is told.
        """
        asked = _Asked(words, environment, fds, told, passed)
        request = _encode(words, environment)
        if len(request) > _REQUEST_BYTES_MAX:
            _spawn_directly(self.program, asked)
            return
        try:
            if self._socket is None:
                self._start_server()
            self._send(request, (*fds, *passed))
        except ConnectionError:  # it was killed since we last asked
            self.close()
            _spawn_directly(self.program, asked)
        except OSError as exc:
            told(exc)
        else:
            self._waiting.append(asked)

    def wait_answered(self) -> None:
        """Until every program that was asked for has its pid, or its error: a millisecond."""
        while self._waiting:
            with contextlib.suppress(ConnectionError):  # close() has seen to them
                self._wait(select.POLLIN)
                self._hand_out()

    def close(self) -> None:
        """Let the server go: it ends at the end of its socket. What it still owes is done without it."""
        if self._socket is not None:
            self._poller.remove(self._socket.fileno())
            self._socket.close()
        self._socket = None
        self.server_pid = 0
        waiting, self._waiting = self._waiting, deque()
        for asked in waiting:
            _spawn_directly(self.program, asked)

    def _hand_out(self) -> None:
        """What is answered by now."""
        while self._socket is not None:
            try:
                answer = self._socket.recv(4)
            except BlockingIOError:
                return
            except OSError:
                answer = b""
            if len(answer) != 4 or not self._waiting:
                self.close()
                return
            pid: int = struct.unpack("=i", answer)[0]
            self._waiting.popleft().told(pid if pid >= 0 else OSError(-pid, os.strerror(-pid)))

    def _send(self, request: bytes, fds: Sequence[int]) -> None:
        assert self._socket is not None
        while True:
            try:
                socket.send_fds(self._socket, [request], list(fds))
                return
            except BlockingIOError:  # it is a few hundred programs behind
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        """For the server, which only forks: should it ever hang, it is let go."""
        if self._socket is None:
            return
        poll = select.poll()
        poll.register(self._socket, event)
        if not poll.poll(_ANSWER_SECONDS_MAX * 1000):
            self.close()
            raise ConnectionResetError(0, "the program that forks for us hangs")

    def _start_server(self) -> None:
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
        ours.setblocking(False)
        self._socket = ours
        self._poller.add(ours.fileno(), self._hand_out)


def _spawn_directly(program: str, asked: _Asked) -> None:
    report, *standard = asked.fds
    moved: list[int] = []
    try:
        for fd in asked.passed:  # out of the way of where others of them go
            moved.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY_FD))
        if moved:
            report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY_FD)
            moved.append(report)
        moves = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(standard)]
        moves.append((os.POSIX_SPAWN_DUP2, report, _REPORT_FD))
        moves += [(os.POSIX_SPAWN_DUP2, fd, _REPORT_FD + 1 + number) for number, fd in enumerate(moved[:-1])]
        pid = os.posix_spawn(program, [program, *asked.words], asked.environment, file_actions=moves, setsigmask=())
    except OSError as exc:
        asked.told(exc)
    else:
        asked.told(pid)
    finally:
        for fd in moved:
            os.close(fd)


def _encode(words: Sequence[str], environment: Mapping[str, str]) -> bytes:
    strings = [os.fsencode(word) for word in words]
    strings += [os.fsencode(f"{name}={value}") for name, value in environment.items()]
    return struct.pack("=II", len(words), len(environment)) + b"\0".join(strings) + b"\0"
