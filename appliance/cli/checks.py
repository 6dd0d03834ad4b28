"""What this host must have to run everything: each check looks, changes nothing that lasts, and says what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from appliance.host.layout import Layout

KERNEL_MIN = (5, 4)  # pidfd_open(2) is of 5.3; 5.4 is the oldest kernel still kept up by anybody
STATE_BYTES_MIN, UNPACK_BYTES_MIN = 200 << 20, 100 << 20
CONTROLLERS = ("cpu", "io", "memory", "pids")
NOFILE_MIN, NOFILE_FOR_UNITS = 1024, 576  # below the latter what a unit is given has no place (host/spawner.py)
_FLEETING = {"tmpfs", "ramfs", "overlay"}
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "virtiofs"}


@dataclass(frozen=True)
class Check:
    """One answer: "ok", "warn" (something will be missing) or "bad" (it cannot run)."""

    name: str
    state: str
    found: str
    remedy: str = ""


def check_host(layout: Layout, config_file: str | None) -> list[Check]:
    """Every check; one that fails to look is itself a warning."""
    checks: list[Check] = []
    for name, look in _all(layout, config_file):
        try:
            checks += look()
        except OSError as error:
            checks.append(Check(name, "warn", f"cannot look: {error}"))
    return checks


def _all(layout: Layout, config_file: str | None) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    yield "kernel", _kernel
    yield "user", _user
    yield "process control", _process_control
    yield "cgroups", _cgroups
    yield "settings", lambda: _settings(layout, config_file)
    yield "state", lambda: _place("state", layout.state, STATE_BYTES_MIN, lasting=True)
    yield "run", lambda: _place("run", layout.run, 1 << 20, lasting=False)
    yield "sockets", lambda: _sockets(layout)
    yield "unpack place", _unpack_place
    yield "clock", _clock
    yield "open files", _open_files
    yield "init", _init
    yield "hardening", _hardening


def _kernel() -> Iterator[Check]:
    it = os.uname()
    found = f"Linux {it.release} on {it.machine}"
    numbers = re.match(r"(\d+)\.(\d+)", it.release)
    if it.sysname != "Linux" or not numbers or tuple(map(int, numbers.groups())) < KERNEL_MIN:
        yield Check("kernel", "bad", found, f"Linux {KERNEL_MIN[0]}.{KERNEL_MIN[1]} or later is needed")
    else:
        yield Check("kernel", "ok", found)


def _user() -> Iterator[Check]:
    if os.geteuid() == 0:
        yield Check("user", "ok", "root")
    else:
        yield Check("user", "warn", f"uid {os.geteuid()}", "without root: no other user for units, no cgroups of ours")


def _process_control() -> Iterator[Check]:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        yield Check("process control", "bad", f"pidfd_open: {error.strerror}", "allow pidfd_open (seccomp profile)")
    else:
        yield Check("process control", "ok", "pidfd works")
    if not os.path.exists("/proc/self/stat"):
        yield Check("proc", "bad", "/proc is not mounted", "mount -t proc proc /proc")


def _mounts() -> dict[str, tuple[str, set[str]]]:
    """Mount point -> file system and options; the last mount on a point wins."""
    mounts = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fields = left.split()
            point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])  # \040 is a blank
            mounts[point] = (right.split()[0], set(fields[5].split(",")) | set(right.split()[2].split(",")))
    return mounts


def _mount_of(path: str) -> tuple[str, set[str]]:
    mounts = _mounts()
    path = os.path.realpath(path)
    while path not in mounts and path != "/":
        path = os.path.dirname(path)
    return mounts.get(path, ("unknown", set()))


def _cgroups() -> Iterator[Check]:
    points = {point: options for point, (kind, options) in _mounts().items() if kind == "cgroup2"}
    point = next((one for one in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", *points) if one in points), "")
    if not point:
        remedy = "mount -t cgroup2 cgroup2 /sys/fs/cgroup; until then units are tracked by session only"
        yield Check("cgroups", "warn", "no cgroup2 mounted", remedy)
        return
    with open("/proc/self/cgroup") as file:
        ours = next((line.strip()[3:] for line in file if line.startswith("0::")), "/")
    here = point + ours.rstrip("/")
    if not os.access(here, os.W_OK) or "ro" in points[point]:
        remedy = "Delegate=yes in the unit of our init, or run as root; until then units are tracked by session only"
        yield Check("cgroups", "warn", f"{here} is not writable", remedy)
    else:
        yield Check("cgroups", "ok", f"cgroup2 at {here}")
    with open(f"{here}/cgroup.controllers") as file:
        have = set(file.read().split())
    missing = [one for one in CONTROLLERS if one not in have]
    if missing:
        if len(missing) == len(CONTROLLERS):
            found = "this host has no cgroup v2 controllers: [resources] of units are not in force"
            remedy = "boot with systemd.unified_cgroup_hierarchy=1, or mount no v1 controllers"
        else:
            found = f"missing {', '.join(missing)}"
            remedy = "limits by these are not in force; enable them in the parent's cgroup.subtree_control"
        yield Check("controllers", "warn", found, f"{remedy}; units with resources.strict are refused")
    else:
        yield Check("controllers", "ok", ", ".join(CONTROLLERS))


def _settings(layout: Layout, config_file: str | None) -> Iterator[Check]:
    from appliance import settings

    loaded = settings.load(layout, config_file)
    if loaded.value is None:
        yield Check("settings", "bad", loaded.problem, "see `appliance config check`")
        return
    yield Check("settings", "ok", ", ".join(loaded.files) or "none: all defaults")
    repository = loaded.value.update.repository
    if repository and not os.path.exists(layout.trust_root):
        remedy = f"put the publisher's root.json at {layout.trust_root}"
        yield Check("trust", "warn", f"{repository} is configured, {layout.trust_root} is missing", remedy)
    if loaded.value.status.listen != "off":
        yield from _port(loaded.value.status.listen, layout)


def _port(address: str, layout: Layout) -> Iterator[Check]:
    from appliance.host.sockets import parse_address, unix_answers

    where = parse_address(address)
    with socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((where.host, where.port))
            yield Check("status port", "ok", f"{where} is free")
        except OSError as error:
            if error.errno == errno.EADDRINUSE and unix_answers(layout.control_socket):
                yield Check("status port", "ok", f"{where} is in use while our appliance runs")
            else:
                remedy = "free it, or set [status] listen to another port"
                yield Check("status port", "warn", f"{where}: {error.strerror}", remedy)


def _nearest(path: str) -> str:
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _place(name: str, path: str, bytes_min: int, *, lasting: bool) -> Iterator[Check]:
    there = _nearest(path)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
            os.fsync(file.fileno())
    except OSError as error:
        yield Check(name, "bad", f"{path}: cannot write in {there}: {error.strerror}", "make it writable for us")
        return
    room = os.statvfs(there)
    free = room.f_bavail * room.f_frsize
    kind, _ = _mount_of(there)
    found = f"{path} on {kind}, {free >> 20} MB free"
    if free < bytes_min:
        yield Check(name, "bad", found, f"make room: {bytes_min >> 20} MB are needed")
    elif lasting and kind in _FLEETING:
        yield Check(name, "warn", found, "does not last (memory, or a container's layer): mount a disk there")
    elif lasting and kind in _REMOTE:
        yield Check(name, "warn", found, "a remote file system: durability and locks are only as good as its server's")
    else:
        yield Check(name, "ok", found)


def _sockets(layout: Layout) -> Iterator[Check]:
    from appliance.host.sockets import unix_address

    there = _nearest(layout.run)
    path = os.path.join(there, f".doctor.{os.getpid()}.sock")
    try:
        with socket.socket(socket.AF_UNIX) as probe, unix_address(path) as address:
            probe.bind(address)
        yield Check("sockets", "ok", f"unix sockets work in {there}")
    except OSError as error:
        yield Check("sockets", "bad", f"{there}: {error.strerror}", "a file system that holds unix sockets is needed")
    finally:
        if os.path.lexists(path):
            os.unlink(path)


def _unpack_place() -> Iterator[Check]:
    """The launcher's rule: a place of ours, that may execute, with room."""
    home = os.environ.get("HOME", "")
    cache = os.environ.get("XDG_CACHE_HOME") or (home + "/.cache" if home else "")
    of_root = ["/var/cache/appliance", "/run/appliance-cache"]
    of_user = [*([cache + "/appliance"] if cache else []), f"/var/tmp/appliance-{os.geteuid()}", "/tmp", "/dev/shm"]
    places = of_root if os.geteuid() == 0 else of_user
    if chosen := os.environ.get("APPLIANCE_CACHE"):
        places = [chosen]
    reasons = []
    for place in places:
        there = _nearest(place)
        _, options = _mount_of(there)
        room = os.statvfs(there)
        free = room.f_bavail * room.f_frsize
        if not os.access(there, os.W_OK):
            reasons.append(f"{place}: not writable")
        elif "noexec" in options:
            reasons.append(f"{place}: mounted noexec")
        elif free < UNPACK_BYTES_MIN:
            reasons.append(f"{place}: {free >> 20} MB free")
        else:
            yield Check("unpack place", "ok", place)
            return
    state, remedy = ("warn", "it will unpack into memory") if os.geteuid() == 0 else ("bad", "set APPLIANCE_CACHE")
    yield Check("unpack place", state, "; ".join(reasons), remedy)


def _clock() -> Iterator[Check]:
    now = time.time()
    built = os.stat(sys.executable).st_mtime
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < built - 86400:
        yield Check("clock", "warn", f"{text} is before this program was built", "set the clock: updates need it")
    elif not os.path.exists("/run/systemd/timesync/synchronized") and not _keeps_time():
        yield Check("clock", "ok", f"{text}; nothing seems to keep it right (no NTP service seen)")
    else:
        yield Check("clock", "ok", text)


def _keeps_time() -> bool:
    names = {"chronyd", "ntpd", "ntpsec", "openntpd", "systemd-timesyn"}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() in names:
                    return True
        except OSError:
            continue
    return False


def _open_files() -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    if hard != resource.RLIM_INFINITY and hard < NOFILE_MIN:
        state = "bad" if hard < NOFILE_FOR_UNITS else "warn"
        words = "no unit can be started: " if state == "bad" else ""
        yield Check("open files", state, f"limit {soft}, hard {limit}", f"{words}raise it to {NOFILE_MIN} or more")
    else:
        yield Check("open files", "ok", f"limit {soft}, hard {limit}")


def _init() -> Iterator[Check]:
    from appliance.cli.service_file import init_of_this_host

    yield Check("init", "ok", init_of_this_host())


def _hardening() -> Iterator[Check]:
    from appliance.cli.hardening import hardening  # it has its Check from here

    yield from hardening()
