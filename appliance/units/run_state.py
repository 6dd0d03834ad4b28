"""What the next supervisor must know to adopt a unit: one small file per unit, replaced whole at each turn. Pure.

It lives in the run directory, so a reboot forgets it; the boot id catches a run directory that outlives reboots. Other
versions read it too, older ones after a rollback: a field is added, never changed or taken away, and one that is
missing or unknown does no harm. ``state`` is one of the four that the first version knew; ``phase`` tells all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from appliance.errors import InputError

_VERSION = 1
_JSON = json.JSONEncoder(ensure_ascii=False)


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
    phase: str = ""  # what was being done; "backoff" while it waits for its restart; empty in older versions
    step: int = 0  # which of the phase's commands
    control_pid: int = 0  # the process of that command
    control_start_ticks: int = 0
    result: str = "success"
    fault: str = ""
    asked: bool = False  # it goes down because somebody asked
    main_result: str = ""  # of a main process that ended well while the unit goes on
    follows_group: bool = False  # it has no main process that we know, and lives as long as its group is not empty
    exit_code: int = -1
    exit_signal: str = ""
    exit_core: bool = False
    exit_oom: bool = False
    up_since: float = -1.0  # monotonic, as are the times below; -1: not up since its last start
    due: float = 0.0  # when its restart is due
    starts: tuple[float, ...] = ()
    restart_times: tuple[float, ...] = ()
    since_boot: float = -1.0

    def encode(self) -> bytes:
        """For the file."""
        return _JSON.encode({"version": _VERSION, **vars(self)}).encode()


def _int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _float(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_CHECKS: dict[str, Any] = {
    "int": _int,
    "str": lambda value: isinstance(value, str),
    "float": _float,
    "bool": lambda value: isinstance(value, bool),
    "tuple[float, ...]": lambda value: isinstance(value, list | tuple) and all(map(_float, value)),
}


def decode_run_state_untrusted(data: bytes) -> RunState:
    """Of any bytes; of any version from the first one on. Raises InputError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"cannot read a run state: {exc}") from exc
    version = found.get("version") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(version, int) or version < _VERSION:
        raise InputError("cannot read a run state: it says no version that we know")
    arguments: dict[str, Any] = {}
    for one in fields(RunState):
        value = found.get(one.name, one.default)
        if not _CHECKS[str(one.type)](value):
            raise InputError(f"cannot read a run state: {one.name} is not a {one.type}")
        arguments[one.name] = tuple(value) if isinstance(value, list) else value
    return RunState(**arguments)
