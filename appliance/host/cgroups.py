"""Groups of processes that nobody can leave: one cgroup (v2) per unit, with or without controllers (cgroups(7))."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Container

from appliance.host import bpf, controllers
from appliance.host.files import translate
from appliance.host.poller import CHANGED, Poller

_KILL_ROUNDS = 50
_ROOT_MARK = "user.appliance.root"  # whose group that is, for those who find it empty


class CgroupRoot:
    """The directory below which every unit has its cgroup."""

    def __init__(self, directory: str, poller: Poller) -> None:
        self.directory = directory
        self._poller = poller

    def group(self, name: str) -> Cgroup:
        """The cgroup of one unit, not made yet."""
        return Cgroup(f"{self.directory}/{name}", self._poller)

    def controllers(self) -> frozenset[str]:
        """Which of the kernel's controllers groups in it may have."""
        mount = _mount_point()
        return frozenset() if mount is None else controllers.available(mount, os.path.dirname(self.directory))

    def sweep(self, in_use: Container[str]) -> None:
        """Take away what a killed appliance left empty: groups of units that nobody starts or runs now (``in_use`` are
        the others), and those of appliances whose root is gone.
        """
        for path in _directories(self.directory):
            if path not in in_use:
                Cgroup(path, self._poller).remove()
        for path in _directories(os.path.dirname(self.directory)):
            if path != self.directory and os.path.basename(path).startswith("appliance-") and _is_of_nobody(path):
                Cgroup(path, self._poller).remove()

    def remove(self) -> None:
        """Take it away, if no unit is left in it; it comes again when one starts."""
        with contextlib.suppress(OSError):
            os.rmdir(self.directory)


class Cgroup:
    """One unit's cgroup, by its path (also one that an earlier supervisor made)."""

    kind = "cgroup"

    def __init__(self, path: str, poller: Poller) -> None:
        self.path: str | None = path
        self._directory = path
        self._poller = poller

    def lead(self, pid: int, start_ticks: int) -> None:
        """A cgroup needs no leader."""

    def has(self, pid: int) -> bool:
        """Whether that process lives in it or below it."""
        try:
            with open(f"/proc/{pid}/cgroup") as file:
                lines = file.read().splitlines()
        except OSError:
            return False
        own = next((line[3:] for line in lines if line.startswith("0::")), "")
        return f"{own}/".startswith(self._directory.removeprefix(_mount_point() or "") + "/")

    def pids(self) -> list[int]:
        """The processes in it and below it."""
        return self._processes()

    def oom_killed(self) -> bool:
        """Whether the kernel killed one of its processes for want of memory; never without the memory controller."""
        try:
            with open(f"{self._directory}/memory.events") as file:
                return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in file)
        except OSError:
            return False

    def empty(self) -> bool:
        """Whether no process is left in it or below it."""
        try:
            with open(f"{self._directory}/cgroup.events") as file:
                return "populated 1" not in file.read()
        except OSError:
            return True

    def kill(self) -> None:
        """SIGKILL to everything in it, forks in flight included (Linux 5.14; before that, round by round)."""
        try:
            with open(f"{self._directory}/cgroup.kill", "w") as file:
                file.write("1")
        except FileNotFoundError:
            for _ in range(_KILL_ROUNDS):
                pids = self._processes()
                for pid in pids:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                if not pids:
                    return
        except OSError:
            pass

    def signal(self, number: int, *, but: tuple[int, ...] = ()) -> None:
        """To every process in it ``but`` those, each as it is found; one that is born meanwhile may miss it."""
        for pid in self._processes():
            if pid not in but:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)

    def attach(self, programs: tuple[bpf.Program, ...]) -> None:
        """Have the kernel ask them for whatever lives in it. Raises UnavailableError."""
        if programs:
            bpf.attach(self._directory, programs)

    def limit(self, values: tuple[tuple[str, str], ...]) -> None:
        """Write each value into that file of it; the controllers that takes are switched on, down to it.

        "delegate" is no file: its value, UID:GID:CONTROLLERS, says whose the group becomes.
        Raises UnavailableError or InputError at the first that is refused.
        """
        if not values:
            return
        given = [word for name, value in values if name == "delegate" for word in value.split(":")[2].split(",")]
        wanted = frozenset([*(name.partition(".")[0] for name, _ in values), *given]) & controllers.CONTROLLERS
        mount = _mount_point()
        if wanted and mount is not None:
            controllers.enable(mount, os.path.dirname(self._directory), wanted)
        for name, value in values:
            if name == "delegate":
                uid, gid, _ = value.split(":")
                controllers.delegate(self._directory, int(uid), int(gid))
                continue
            path = f"{self._directory}/{name}"
            try:
                with open(path, "w") as file:
                    file.write(value)
            except OSError as exc:
                raise translate(exc, "write", path) from exc

    def when_empty(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once no process is left in it: at once when that is so. What is returned calls it off."""
        fd = -1

        def forget() -> None:
            nonlocal fd
            if fd >= 0:
                self._poller.remove(fd)
                os.close(fd)
                fd = -1

        def look() -> None:
            if fd < 0 or b"populated 1" in os.pread(fd, 4096, 0):  # reading also arms the next EPOLLPRI
                return
            forget()
            callback()

        if self.empty():
            callback()
            return forget
        try:
            fd = os.open(f"{self._directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # somebody took the cgroup away, or no descriptor is left: SIGKILL cannot be refused anyway
            self.kill()
            callback()
            return forget
        self._poller.add(fd, look, events=CHANGED)
        look()
        return forget

    def clear(self, callback: Callable[[], None]) -> None:
        """Kill what is in it, and call back once it is empty: at once when it is empty already."""
        if self.empty():
            callback()
            return
        self.kill()
        self.when_empty(callback)

    def renew(self) -> None:
        """Make it, as if there had been none: one that has seen cgroup.kill kills those who are born in it (spawn.c).

        It must be empty. Raises UnavailableError or InputError.
        """
        try:
            try:
                self._make_anew()
            except FileExistsError:  # held by something that is no process of it; then another name
                self._directory = self.path = f"{self._directory}.{os.urandom(4).hex()}"
                os.makedirs(self._directory)
        except OSError as exc:
            raise translate(exc, "make cgroup", self._directory) from exc

    def _make_anew(self) -> None:
        try:
            os.mkdir(self._directory)
        except FileExistsError:
            self.remove()
            os.mkdir(self._directory)
        except FileNotFoundError:
            os.makedirs(self._directory)

    def remove(self) -> None:
        """Take the empty cgroup away, and those that the unit made below it; one in use stays."""
        for directory, _, _ in os.walk(self._directory, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)

    def _processes(self) -> list[int]:
        found = []
        for directory, _, _ in os.walk(self._directory):
            with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs") as file:
                found += [int(line) for line in file]
        return found


def find_cgroup_root(tag: str, poller: Poller) -> CgroupRoot | None:
    """A place for our cgroups: below our own one, else at the top of the hierarchy; None where we may not write.

    ``tag`` tells appliances apart that share a host: it is the root directory of this one.
    """
    mount = _mount_point()
    if mount is None:
        return None
    name = "appliance" if tag == "/" else f"appliance-{hashlib.sha256(tag.encode()).hexdigest()[:8]}"
    own = _own_path().rstrip("/").removesuffix(f"/{controllers.SELF}")
    for parent in dict.fromkeys((mount + own, mount)):
        directory = f"{parent}/{name}"
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError:
            continue
        with contextlib.suppress(OSError):
            os.setxattr(directory, _ROOT_MARK, os.fsencode(os.path.abspath(tag)))
        if os.access(f"{directory}/cgroup.procs", os.W_OK) and os.access(f"{parent}/cgroup.procs", os.W_OK):
            return CgroupRoot(directory, poller)
    return None


def _directories(path: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _is_of_nobody(path: str) -> bool:
    try:
        return not os.path.lexists(os.getxattr(path, _ROOT_MARK))
    except OSError:
        return False


def _mount_point() -> str | None:
    try:
        with open("/proc/self/mountinfo") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                if rest.startswith("cgroup2 "):
                    return fields.split()[4].encode().decode("unicode_escape")
    except OSError:
        pass
    return None


def _own_path() -> str:
    try:
        with open("/proc/self/cgroup") as file:
            return next((line[3:].strip() for line in file if line.startswith("0::")), "/")
    except OSError:
        return "/"
