"""Controllers of cgroup v2: which can be had below a directory, and switching them on, down to it (cgroups(7))."""

from __future__ import annotations

import contextlib
import errno
import os

from appliance.errors import UnavailableError
from appliance.host.files import translate
from appliance.host.procfs import process_stat

CONTROLLERS = frozenset({"cpu", "cpuset", "io", "memory", "pids"})
SELF = "appliance.self"  # where we go ourselves: a group with processes cannot give controllers to groups below


def available(mount: str, directory: str) -> frozenset[str]:
    """Those that groups in that directory could have: on at each step down to it, or ours to switch on."""
    found = _words(f"{mount}/cgroup.controllers") & CONTROLLERS
    for step in _steps(mount, directory):
        if not os.access(f"{step}/cgroup.subtree_control", os.W_OK):
            found &= _words(f"{step}/cgroup.subtree_control")
    return found


def enable(mount: str, directory: str, controllers: frozenset[str]) -> None:
    """Have them in the groups of that directory: switched on at each step from the mount down to it.

    Raises UnavailableError, naming the directory that refuses.
    """
    for step in _steps(mount, directory):
        missing = sorted(controllers - _words(f"{step}/cgroup.subtree_control"))
        if missing:
            _switch_on(step, missing)


def _steps(mount: str, directory: str) -> list[str]:
    steps = [mount]
    for name in filter(None, directory.removeprefix(mount).split("/")):
        steps.append(f"{steps[-1]}/{name}")
    return steps


def delegate(directory: str, uid: int, gid: int) -> None:
    """Give the group to that user: it may make groups below, and move its processes there, as systemd has it."""
    with contextlib.suppress(FileNotFoundError):
        for name in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
            os.chown(f"{directory}{name}", uid, gid)


def _switch_on(directory: str, names: list[str]) -> None:
    path = f"{directory}/cgroup.subtree_control"
    text = " ".join(f"+{name}" for name in names)
    try:
        _write(path, text)
    except OSError as exc:
        if exc.errno != errno.EBUSY or not _move_away(directory):
            raise _refusal(exc, path) from exc
        try:
            _write(path, text)
        except OSError as again:
            raise _refusal(again, path) from again


def _refusal(exc: OSError, path: str) -> Exception:
    if exc.errno == errno.EBUSY:
        return UnavailableError(f"cannot switch on controllers in {path}: processes of others live in it", where=path)
    return translate(exc, "write", path)


def _move_away(directory: str) -> bool:
    """Us and our children out of it, one level down; units have groups of their own."""
    us = os.getpid()
    place = f"{directory}/{SELF}"
    moved = False
    try:
        with open(f"{directory}/cgroup.procs") as file:
            pids = [int(line) for line in file]
        os.makedirs(place, exist_ok=True)
        for pid in pids:
            stat = process_stat(pid)
            if pid == us or (stat is not None and stat.parent == us):
                with contextlib.suppress(ProcessLookupError):
                    _write(f"{place}/cgroup.procs", str(pid))
                    moved = True
    except OSError:
        return False
    return moved


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _words(path: str) -> frozenset[str]:
    try:
        with open(path) as file:
            return frozenset(file.read().split())
    except OSError:
        return frozenset()
