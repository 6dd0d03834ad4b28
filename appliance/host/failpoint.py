"""Named places where a test kills the process, in the built binary too (as etcd's gofail does).

``APPLIANCE_FAILPOINT=NAME`` in the daemon's environment makes ``reach("NAME")`` end the process by SIGKILL: no handler,
no flush, as a crash would. ``NAME:3`` does so the third time. ``NAME=hang`` stops there for ever instead.
"""

from __future__ import annotations

import os
import signal
import time

_armed = os.environ.pop("APPLIANCE_FAILPOINT", "")
_reached = 0


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
    os.kill(os.getpid(), signal.SIGKILL)
