"""The file that we are: what the launcher (packaging/launcher) told us when it started Python, and the way back to it.

From source there is no launcher: the origin is then the script, and the only thing to know is where ``spawn`` lies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from appliance.errors import CorruptError
from appliance.host.failpoint import reach
from appliance.host.signals import WATCHED
from appliance.version import version

_SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = "appliance"
_FROM_LAUNCHER = (
    "APPLIANCE_SLOT",
    "APPLIANCE_TRIAL",
    "APPLIANCE_ORIGIN",
    "APPLIANCE_SELF",
    "APPLIANCE_PAYLOAD",
    "APPLIANCE_BUNDLE",
    "APPLIANCE_LOCK_FD",
    "APPLIANCE_GUARD",
    "APPLIANCE_START_FD",
    "APPLIANCE_NOTE",
    "APPLIANCE_LAUNCHER",
)
_taken: Bundle | None = None


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What runs now, and where it came from."""

    origin: str  # the file a person dropped: what their init starts
    file: str  # the launcher file that started this process: origin, or <slots>/X/appliance
    payload_id: str  # sha256 of its packed payload; "source" when run from source
    slot: str  # "a", "b", or "none" when origin runs by itself
    trial: bool  # a try was spent for this start
    guard_pid: int | None  # the process that starts origin again should this trial die
    guard_fd: int  # its pidfd; -1 without a guard
    directory: str  # the unpacked bundle; the source tree when run from source
    spawn_program: str  # the C program that starts units
    note: str  # what the launcher wants said: why it did not start what the slot record asked for
    version: str
    frozen: bool  # False when run from source
    start_fd: int = -1  # holds the lock that keeps other launchers from starting a trial beside us


def take(environ: MutableMapping[str, str] | None = None) -> Bundle:
    """Read what the launcher said, once, and remove it: no child of ours shall see it. Later calls return the same.

    ``APPLIANCE_ROOT`` and ``APPLIANCE_CACHE`` are the user's own and stay. Raises CorruptError when frozen
    and not started by the launcher.
    """
    global _taken
    if _taken is None:
        source: MutableMapping[str, str] = os.environ if environ is None else environ
        said = {name: source.pop(name, "") for name in _FROM_LAUNCHER}
        for name in [name for name in source if name.startswith("_PYI_")]:
            del source[name]
        _taken = _from_launcher(said) if getattr(sys, "frozen", False) else _from_source()
    return _taken


def command_of_ours(bundle: Bundle, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Argv and the environment to add, that start this very version again as another process, without the launcher."""
    if not bundle.frozen:
        return [sys.executable, "-m", "appliance", *arguments], {"PYTHONPATH": _SOURCE}
    program = f"{bundle.directory}/{_PROGRAM}"
    return [program, *arguments], {
        "APPLIANCE_SLOT": bundle.slot,
        "APPLIANCE_ORIGIN": bundle.origin,
        "APPLIANCE_SELF": bundle.file,
        "APPLIANCE_PAYLOAD": bundle.payload_id,
        "APPLIANCE_BUNDLE": bundle.directory,
        "_PYI_ARCHIVE_FILE": program,
        "_PYI_PARENT_PROCESS_LEVEL": "-1",
        "_PYI_LINUX_PROCESS_NAME": _PROGRAM,
    }


def dismiss_guard(bundle: Bundle) -> None:
    """Tell the guard that we need it no longer: blessed, stopped on purpose, or about to exec the launcher."""
    if bundle.guard_fd >= 0:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(bundle.guard_fd, signal.SIGTERM)


def end_turn(bundle: Bundle) -> None:
    """We have the daemon's lock, by which every launcher sees that we live: no start waits for its turn any more."""
    if bundle.start_fd >= 0:
        os.close(bundle.start_fd)


def exec_launcher(bundle: Bundle, arguments: Sequence[str], spare: str = "") -> NoReturn:
    """Become the launcher, which picks the slot anew; ``arguments`` do not hold the program's name.

    Origin is started; when a person has removed it the slot's own file, or ``spare``: any file that is ours. Our pid,
    standard streams and children stay; every other descriptor of ours is close-on-exec. Signals that are held back
    stay so: whom we start unblocks them when it listens. Raises CorruptError when no file can be started.
    """
    reach("update.switch.guarded")
    dismiss_guard(bundle)
    reach("update.switch.exec")
    for number in signal.valid_signals():
        if signal.getsignal(number) == signal.SIG_IGN:  # execve keeps these and resets the rest (execve(2))
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals() - WATCHED)
    sys.stdout.flush()
    sys.stderr.flush()
    if not bundle.frozen:
        os.execve(sys.executable, [sys.executable, "-m", "appliance", *arguments], os.environ)
    causes = []
    for path in filter(None, dict.fromkeys((bundle.origin, bundle.file, spare))):
        try:
            os.execve(path, [path, *arguments], os.environ)
        except OSError as exc:
            causes.append(f"{path}: {exc.strerror}")
    raise CorruptError(f"cannot start the launcher: {'; '.join(causes)}", where=bundle.origin)


def _from_launcher(said: dict[str, str]) -> Bundle:
    directory = said["APPLIANCE_BUNDLE"]
    if not directory:
        raise CorruptError("cannot start: this program was not started by its launcher", where=sys.executable)
    if said["APPLIANCE_LOCK_FD"]:
        os.set_inheritable(int(said["APPLIANCE_LOCK_FD"]), False)
    start_fd = int(said["APPLIANCE_START_FD"] or -1)
    if start_fd >= 0:
        os.set_inheritable(start_fd, False)
    guard_pid = int(said["APPLIANCE_GUARD"] or 0) or None
    guard_fd = -1
    if guard_pid is not None:
        with contextlib.suppress(OSError):  # it is our child and nobody waited for it yet, so the pid is still its own
            guard_fd = os.pidfd_open(guard_pid)
    return Bundle(
        origin=said["APPLIANCE_ORIGIN"],
        file=said["APPLIANCE_SELF"],
        payload_id=said["APPLIANCE_PAYLOAD"],
        slot=said["APPLIANCE_SLOT"] or "none",
        trial=said["APPLIANCE_TRIAL"] == "1",
        guard_pid=guard_pid,
        guard_fd=guard_fd,
        directory=directory,
        spawn_program=directory + "/spawn",
        note=said["APPLIANCE_NOTE"],
        version=version(),
        frozen=True,
        start_fd=start_fd,
    )


def _from_source() -> Bundle:
    spawn_program = _SOURCE + "/.build/launcher/spawn"
    source = _SOURCE + "/packaging/launcher"
    names = [name for name in os.listdir(source) if name.startswith(("spawn", "hold"))]
    if not all(_is_newer(spawn_program, f"{source}/{name}") for name in names):
        script = _SOURCE + "/packaging/launcher/build.sh"
        pid = os.posix_spawn(script, [script, "spawn"], os.environ)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise CorruptError(f"cannot build {spawn_program}: {script} failed", where=source)
    return Bundle(
        origin=os.path.abspath(sys.argv[0]),
        file=os.path.abspath(sys.argv[0]),
        payload_id="source",
        slot="none",
        trial=False,
        guard_pid=None,
        guard_fd=-1,
        directory=_SOURCE,
        spawn_program=spawn_program,
        note="",
        version=version(),
        frozen=False,
    )


def _is_newer(made: str, source: str) -> bool:
    try:
        return os.stat(made).st_mtime >= os.stat(source).st_mtime
    except FileNotFoundError:
        return False
