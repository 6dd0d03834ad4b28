"""Start, watch, signal and reap processes. ONE reaper, on SIGCHLD, for the whole appliance.

It reaps every child: one that we spawned or adopted gets its status, a stranger's (an orphan that fell to us as
PID 1 or subreaper, or a child of the program we were before exec) is kept for a while, in case it is adopted late.
So nothing else in the daemon may wait for children: no subprocess, no trio.run_process.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from appliance.errors import UnavailableError
from appliance.host.poller import Poller
from appliance.host.process_self import raise_file_limit
from appliance.host.procfs import process_stat
from appliance.host.spawner import Spawner

_ORPHANS_KEPT = 1024
_PR_SET_CHILD_SUBREAPER = 36
_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), Linux 6.15
_PIDFD_INFO_EXIT = 1 << 3
_OUTPUT_PIPE_BYTES = 1 << 20
_CAPTURE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Both None: it is gone, and nobody can say how."""

    code: int | None = None
    signal: int | None = None
    core: bool = False  # a core was dumped

    @property
    def clean(self) -> bool:
        """Exit code 0."""
        return self.code == 0

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}{' (core dumped)' if self.core else ''}"
        return "ended, nobody saw how" if self.code is None else f"exited with code {self.code}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to start, and as what. Names are numbers and absolute paths already; nothing is looked up any more."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None
    cgroup: str | None = None  # directory; the child moves itself into it before anything else
    output: str | None = None  # a named pipe (host.pipes) for its stdout and stderr; else ours
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    umask: int | None = None
    standard: tuple[int, int, int] | None = None  # our descriptors that become its 0, 1, 2
    options: tuple[str, ...] = ()  # more words for spawn: fences
    descriptors: tuple[tuple[str, int], ...] = ()  # FDNAME and descriptor; they become its 3, 4, ...


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What ``run_command`` saw."""

    exit: Exit
    stdout: bytes
    stderr: bytes
    timed_out: bool = False


class Child:
    """One process under our eyes, until its end is known."""

    def __init__(self, pid: int, start_ticks: int, processes: Processes) -> None:
        self.pid = pid
        self.start_ticks = start_ticks
        self.exit: Exit | None = None
        self.spawn_failure = ""  # the step that failed between fork and execve, with its reason
        self._processes = processes
        self._pidfd = -1  # only of one that is not our child
        self._report_fd = -1
        self._on_exec: Callable[[], None] | None = None
        self._on_exit: Callable[[], None] | None = None
        self._over: trio.Event | None = None

    def on_exec(self, callback: Callable[[], None]) -> None:
        """Call once when execve succeeded, or failed (then ``spawn_failure`` says how)."""
        self._on_exec = callback

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call once when it is over. Of a process that is over already: at once."""
        if self.exit is not None:
            callback()
        else:
            self._on_exit = callback

    async def wait(self) -> Exit:
        """Until it is over, and how."""
        if self.exit is None:
            if self._over is None:
                self._over = trio.Event()
            await self._over.wait()
        assert self.exit is not None
        return self.exit

    def send(self, number: int) -> None:
        """Signal it; one that is over already is fine. Raises UnavailableError when the kernel refuses."""
        if self.exit is not None:
            return
        try:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)  # ours and not reaped yet: the pid is nobody else's
        except ProcessLookupError:
            pass
        except OSError as exc:
            raise UnavailableError(f"cannot signal process {self.pid}: {exc.strerror}") from exc

    def _read_report(self) -> None:
        try:
            data = os.read(self._report_fd, 4096)
        except BlockingIOError:
            return
        if data:
            self.spawn_failure = (self.spawn_failure + data.decode(errors="replace")).strip()
            return
        self._close_report()

    def _close_report(self) -> None:
        self._processes.poller.remove(self._report_fd)
        os.close(self._report_fd)
        self._report_fd = -1
        if self._on_exec is not None:
            callback, self._on_exec = self._on_exec, None
            callback()

    def _end(self, how: Exit) -> None:
        while self._report_fd >= 0:  # the reason first; its writer is dead, so the end is there
            before = self.spawn_failure
            self._read_report()
            if self._report_fd >= 0 and self.spawn_failure == before:
                self._close_report()
        if self._pidfd >= 0:
            self._processes.poller.remove(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self.exit = how
        if self._over is not None:
            self._over.set()
        if self._on_exit is not None:
            callback, self._on_exit = self._on_exit, None
            callback()


class Processes:
    """The registry. ``spawn`` and ``adopt`` do not wait; ends are noticed while ``run`` runs."""

    def __init__(self, spawn_program: str) -> None:
        self.poller = Poller()
        self._spawner = Spawner(spawn_program, self.poller)
        self._ours: dict[int, Child] = {}
        self._orphans: dict[tuple[int, int], Exit] = {}  # (pid, start ticks), oldest first

    @property
    def spawn_program(self) -> str:
        """The small C program through which everything is started."""
        return self._spawner.program

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reap and watch until ``stopping``: it is the first service up and the last one down."""
        become_subreaper()
        raise_file_limit()
        try:
            await self._watch(stopping, task_status)
        finally:
            self._spawner.wait_answered()
            self._spawner.close()  # comes again when something is started all the same

    async def _watch(self, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:  # around the nursery: no reader outlives it
            async with trio.open_nursery() as nursery:
                self._reap()  # what ended before we listened, under the program we were before exec too
                nursery.start_soon(self.poller.run)
                nursery.start_soon(self._reap_on, signals)
                task_status.started()
                await stopping.wait()
                nursery.cancel_scope.cancel()

    def spawn(self, command: Command) -> Child:
        """Start it. Raises UnavailableError when the kernel has no process or descriptor left for us."""
        found: list[Child | UnavailableError] = []
        self.spawn_soon(command, found.append)
        self._spawner.wait_answered()
        (child,) = found
        if isinstance(child, UnavailableError):
            raise child
        return child

    def spawn_soon(self, command: Command, started: Callable[[Child | UnavailableError], None]) -> None:
        """Start it without waiting for its pid; ``started`` is called with it, perhaps before this returns."""
        try:
            report_read, report_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            started(UnavailableError(f"cannot start {command.argv[0]}: {exc.strerror}"))
            return

        def told(answer: int | OSError) -> None:
            os.close(report_write)
            if isinstance(answer, OSError):
                os.close(report_read)
                where = self._spawner.program
                error = UnavailableError(f"cannot start {command.argv[0]}: {where}: {answer.strerror}", where=where)
                started(error)
                return
            stat = process_stat(answer)  # it is there: we have not reaped it, and nobody else may
            child = Child(answer, stat.start_ticks if stat else 0, self)
            child._report_fd = report_read
            self._ours[answer] = child
            self.poller.add(report_read, child._read_report)
            started(child)

        words = [*_spawn_options(command), "--", *command.argv]
        passed = tuple(fd for _, fd in command.descriptors)
        self._spawner.spawn(words, command.environment, (report_write, *(command.standard or ())), told, passed)

    def wait_spawned(self) -> None:
        """Until every ``spawn_soon`` has called back: a millisecond."""
        self._spawner.wait_answered()

    def adopt(self, pid: int, start_ticks: int) -> Child | None:
        """Watch a process that somebody else started, if it is still that one. Its end is known if anybody can tell."""
        if (kept := self._orphans.pop((pid, start_ticks), None)) is not None:
            child = Child(pid, start_ticks, self)
            child.exit = kept
            return child
        if pid in self._ours:
            return self._ours[pid] if self._ours[pid].start_ticks == start_ticks else None
        child = Child(pid, start_ticks, self)
        stat = process_stat(pid)
        if stat is None or stat.start_ticks != start_ticks:
            return None
        if stat.parent == os.getpid():
            self._ours[pid] = child
            return child
        try:
            child._pidfd = os.pidfd_open(pid)
        except OSError:
            return None
        again = process_stat(pid)  # the descriptor is that of the process we mean only if it still is
        if again is None or again.start_ticks != start_ticks:
            os.close(child._pidfd)
            return None
        self.poller.add(child._pidfd, lambda: child._end(_exit_of_stranger(child)))
        return child

    async def run_command(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        groups: tuple[int, ...] | None = None,
        input: bytes = b"",  # noqa: A002
        cgroup: str | None = None,
        umask: int | None = None,
        options: tuple[str, ...] = (),
    ) -> Finished:
        """A short command with its output (the first MiB of each). At the timeout its whole session is killed.

        Raises UnavailableError when it cannot be started at all.
        """
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (input_read, input_write), (out_read, out_write), (err_read, err_write) = pipes
        try:
            child = self.spawn(
                Command(
                    argv=argv, environment=environment or {}, directory=directory, uid=uid, gid=gid, groups=groups,
                    cgroup=cgroup, standard=(input_read, out_write, err_write), umask=umask, options=options,
                )
            )  # fmt: skip
        except UnavailableError:
            for fd in (input_write, out_read, err_read):
                os.close(fd)
            raise
        finally:
            for fd in (input_read, out_write, err_write):
                os.close(fd)
        out, err, timed_out = bytearray(), bytearray(), True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_feed, input_write, input)
                nursery.start_soon(_drain, out_read, out)
                nursery.start_soon(_drain, err_read, err)
                with trio.move_on_after(timeout):
                    await child.wait()
                    timed_out = False
                _kill_session(child)  # also what a command that is over left behind
                nursery.cancel_scope.deadline = trio.current_time() + 1  # a stray may hold the pipes open for ever
        finally:
            child.send(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            how = await child.wait()
        if child.spawn_failure:
            raise UnavailableError(f"cannot {child.spawn_failure}", where=argv[0])
        return Finished(exit=how, stdout=bytes(out), stderr=bytes(err), timed_out=timed_out)

    async def _reap_on(self, signals: object) -> None:
        async for _ in signals:  # type: ignore[attr-defined]
            self._reap()

    def _reap(self) -> None:
        while True:
            try:  # look first, so that a stranger's start time can still be read
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if seen is None:
                return
            if seen.si_pid not in self._ours:
                self._spawner.wait_answered()  # it may be over before its pid was told
            child = self._ours.pop(seen.si_pid, None)
            stat = process_stat(seen.si_pid) if child is None else None
            _, status = os.waitpid(seen.si_pid, 0)
            how = _exit(status)
            if child is not None:
                child._end(how)
            elif stat is not None:
                self._orphans[seen.si_pid, stat.start_ticks] = how
                while len(self._orphans) > _ORPHANS_KEPT:
                    del self._orphans[next(iter(self._orphans))]


def become_subreaper() -> None:
    """Orphans of our descendants become our children, so that they can be found and reaped (prctl(2))."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_name(number: int) -> str:
    """SIGTERM for 15; real-time ones as a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def signal_number(name: str) -> int | None:
    """15 for SIGTERM; None when there is no such signal."""
    found = signal.Signals.__members__.get(name)
    return None if found is None else int(found)


def _spawn_options(command: Command) -> list[str]:
    options: list[str] = []
    if command.cgroup is not None:
        options += ["--cgroup", command.cgroup]
    if command.standard is None:
        options += ["--input", "/dev/null"]
    if command.output is not None:
        options += ["--output", command.output, "--output-size", str(_OUTPUT_PIPE_BYTES)]
    if command.groups is not None:
        options += ["--groups", ",".join(map(str, command.groups))]
    if command.gid is not None:
        options += ["--gid", str(command.gid)]
    if command.uid is not None:
        options += ["--uid", str(command.uid)]
    if command.directory is not None:
        options += ["--directory", command.directory]
    if command.umask is not None:
        options += ["--umask", f"{command.umask:o}"]
    if command.descriptors:
        options += ["--pass", ":".join(name for name, _ in command.descriptors)]
    return [*options, *command.options]


def _exit(status: int) -> Exit:
    if os.WIFSIGNALED(status):
        return Exit(signal=os.WTERMSIG(status), core=os.WCOREDUMP(status))
    return Exit(code=os.WEXITSTATUS(status))


def _exit_of_stranger(child: Child) -> Exit:
    """A zombie still shows its status in /proc; once its parent reaped it, a new kernel's pidfd remembers."""
    stat = process_stat(child.pid)
    if stat is not None and stat.state == "Z" and stat.start_ticks == child.start_ticks:
        return _exit(stat.wait_status)
    info = bytearray(struct.pack("=Q56x", _PIDFD_INFO_EXIT))
    try:
        fcntl.ioctl(child._pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return Exit()
    mask, status = struct.unpack("=Q52xi", info)
    return _exit(status) if mask & _PIDFD_INFO_EXIT else Exit()


def _kill_session(child: Child) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)  # it leads its session and group; a group outlives its leader
    child.send(signal.SIGKILL)


async def _feed(fd: int, data: bytes) -> None:
    async with trio.lowlevel.FdStream(fd) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)


async def _drain(fd: int, into: bytearray) -> None:
    async with trio.lowlevel.FdStream(fd) as stream:
        async for piece in stream:
            into += piece[: max(0, _CAPTURE_BYTES_MAX - len(into))]
