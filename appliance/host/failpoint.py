"""Named places where a test kills the process, in the built binary too (as etcd's gofail does).

``APPLIANCE_FAILPOINT=NAME`` in the daemon's environment makes ``reach("NAME")`` end the process by SIGKILL: no handler,
no flush, as a crash would. ``NAME:3`` does so the third time. ``NAME=hang`` stops there for ever instead.
With ``APPLIANCE_FAILPOINT_ONCE=FILE`` only the first process that gets there dies; it makes that file.
With ``APPLIANCE_FAILPOINT_NEXT=NAME`` it is armed for whom this process becomes (exec), not for itself; ``- NAME`` for
the one after that.
"""

from __future__ import annotations

import os
import signal
import time

_armed = os.environ.pop("APPLIANCE_FAILPOINT", "")
_whole = int(os.environ.pop("APPLIANCE_FAILPOINT_OF", "") or 0)  # the daemon that we do a part of the work for
_reached = 0
if _next := os.environ.pop("APPLIANCE_FAILPOINT_NEXT", ""):
    os.environ["APPLIANCE_FAILPOINT"], _, _later = _next.partition(" ")
    if _later:
        os.environ["APPLIANCE_FAILPOINT_NEXT"] = _later


def passed_on() -> dict[str, str]:
    """For a child that does a part of our work: where it gets to the point, it and we die."""
    if not _armed:
        return {}
    once = os.environ.get("APPLIANCE_FAILPOINT_ONCE", "")
    return {
        "APPLIANCE_FAILPOINT": _armed, "APPLIANCE_FAILPOINT_OF": str(os.getpid()), "APPLIANCE_FAILPOINT_ONCE": once,
    }  # fmt: skip


def reach(name: str) -> None:
    """Do nothing, unless this failpoint was armed when the process started."""
    global _reached
    if not _armed:
        return
    wanted, _, action = _armed.partition("=")
    wanted, _, count = wanted.partition(":")
    if wanted != name:
        return
    _reached += 1
    if _reached < int(count or 1):
        return
    if action == "hang":
        while True:
            time.sleep(3600)
    if once := os.environ.get("APPLIANCE_FAILPOINT_ONCE"):
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    if _whole and _whole == os.getppid():
        os.kill(_whole, signal.SIGKILL)
    if os.getpid() == 1:
        os._exit(137)  # which no signal ends: the kernel panics
    os.kill(os.getpid(), signal.SIGKILL)
