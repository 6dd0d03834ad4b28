"""What the next supervisor must know to adopt a unit: one small file per unit, replaced whole at each turn. Pure.

It lives in the run directory, so a reboot forgets it; the boot id catches a run directory that outlives reboots.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from appliance.errors import InputError

_VERSION = 1
_TYPES: dict[str, Any] = {"int": int, "str": str, "float": int | float}


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One unit, as of its last turn. ``pid`` 0: it had no process then."""

    name: str
    boot_id: str
    state: str  # starting, ready, exited, failed
    reason: str
    pid: int = 0
    start_ticks: int = 0
    invocation: str = ""
    cgroup: str = ""
    since: float = 0.0
    failures: int = 0
    restarts: int = 0
    last_exit: str = ""
    status_text: str = ""
    digest: str = ""
    file: str = ""
    text: str = ""  # the unit file it was started from

    def encode(self) -> bytes:
        """For the file."""
        return json.dumps({"version": _VERSION, **vars(self)}, ensure_ascii=False).encode()


def decode_run_state_untrusted(data: bytes) -> RunState:
    """Of any bytes. Raises InputError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"cannot read a run state: {exc}") from exc
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        raise InputError("cannot read a run state: not one of this version")
    arguments: dict[str, Any] = {}
    for one in fields(RunState):
        value = found.get(one.name, one.default)
        wanted = _TYPES[str(one.type)]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise InputError(f"cannot read a run state: {one.name} is not a {one.type}")
        arguments[one.name] = value
    return RunState(**arguments)
