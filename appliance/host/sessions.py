"""Groups of processes where there are no cgroups: what one start of a unit left behind, found by its marks in /proc.

The marks: the session that the unit's process leads, descent from it, and INVOCATION_ID in the environment, which
forks and execs hand down. We are the subreaper, so a double fork stays below us. Something that changes its session,
its environment and its parent all at once is not found: a cgroup has no such hole.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from appliance.host.bpf import Program
from appliance.host.poller import Poller
from appliance.host.procfs import ProcessStat, has_in_environment, process_ids, process_stat


class Session:
    """The processes of one start of one unit. Has the shape of ``cgroups.Cgroup``."""

    kind = "session"
    path: str | None = None

    def __init__(self, invocation: str, poller: Poller) -> None:
        self._mark = f"INVOCATION_ID={invocation}".encode()
        self._poller = poller
        self._leader = 0
        self._leader_start_ticks = 0

    def lead(self, pid: int, start_ticks: int) -> None:
        """The unit's first process, which leads a session of its own."""
        self._leader, self._leader_start_ticks = pid, start_ticks

    def has(self, pid: int) -> bool:
        """Whether that process is one of them."""
        return pid in self._processes()

    def pids(self) -> list[int]:
        """Those that can be found now."""
        return sorted(self._processes())

    def oom_killed(self) -> bool:
        """Only cgroups tell."""
        return False

    def empty(self) -> bool:
        """Whether none of them is left."""
        return not self._processes()

    def kill(self) -> None:
        """SIGKILL to all that can be found now."""
        for pid in self._processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def signal(self, number: int, *, but: tuple[int, ...] = ()) -> None:
        """To all that can be found now ``but`` those."""
        for pid in self._processes().difference(but):
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def attach(self, programs: tuple[Program, ...]) -> None:
        """Only cgroups have programs."""

    def limit(self, values: tuple[tuple[str, str], ...]) -> None:
        """Only cgroups have limits."""

    def when_empty(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once none is left: at once when that is so. What is returned calls it off."""
        return self._wait(callback, kill=False)

    def clear(self, callback: Callable[[], None]) -> None:
        """Kill, wait, look again, until none is left; then call back: at once when none is left already."""
        self._wait(callback, kill=True)

    def _wait(self, callback: Callable[[], None], *, kill: bool) -> Callable[[], None]:
        waiting: set[int] = set()
        off = False

        def watch(pid: int) -> None:
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                return
            if kill:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            waiting.add(fd)
            self._poller.add(fd, lambda: over(fd))

        def over(fd: int) -> None:
            self._poller.remove(fd)
            os.close(fd)
            waiting.discard(fd)
            if not waiting:
                look()

        def look() -> None:
            if off:
                return
            for pid in self._processes():
                watch(pid)
            if not waiting:
                callback()

        def forget() -> None:
            nonlocal off
            off = True
            for fd in waiting:
                self._poller.remove(fd)
                os.close(fd)
            waiting.clear()

        look()
        return forget

    def renew(self) -> None:
        """Nothing to make."""

    def remove(self) -> None:
        """Nothing to take away."""

    def _processes(self) -> set[int]:
        me = os.getpid()
        stats = {pid: stat for pid in process_ids() if pid != me and (stat := process_stat(pid)) is not None}
        # A number is not given away while a session bears it. So a leader of another birth means: that session is over.
        there = stats.get(self._leader)
        leader = self._leader if there is None or there.start_ticks == self._leader_start_ticks else 0
        return {
            pid
            for pid, stat in stats.items()
            if stat.state not in "ZX" and (_is_kin(stat, leader, stats) or has_in_environment(pid, self._mark))
        }


def _is_kin(stat: ProcessStat | None, leader: int, stats: dict[int, ProcessStat]) -> bool:
    if not leader:
        return False
    steps = 0
    while stat is not None and steps < 64:
        if leader in (stat.pid, stat.session):
            return True
        stat = stats.get(stat.parent)
        steps += 1
    return False
