"""How a start of a unit ended, in systemd's words, and what its last commands are told of it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from appliance.units.service_section import ServiceSection
from appliance.units.signal_names import holds, signal_word

_CLEAN_SIGNALS = (1, 2, 13, 15)  # HUP, INT, PIPE, TERM: how services are told to go
_SIGKILL = 9


class Result(enum.Enum):
    """``$SERVICE_RESULT``; the first thing that went wrong counts."""

    SUCCESS = "success"
    CONDITION = "exec-condition"  # its condition did not hold: no failure
    ASSERT = "assert"  # what its file asserts does not hold
    RESOURCES = "resources"  # it could not be started at all
    PROTOCOL = "protocol"  # it ended without saying that it is ready, or left no process to follow
    TIMEOUT = "timeout"
    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    CORE_DUMP = "core-dump"
    WATCHDOG = "watchdog"
    OOM_KILL = "oom-kill"
    UNHEALTHY = "unhealthy"  # ours: its health check failed too often


class Ended(Protocol):
    """An exit code or a signal; neither: nobody saw."""

    @property
    def code(self) -> int | None: ...  # noqa: D102
    @property
    def signal(self) -> int | None: ...  # noqa: D102
    @property
    def core(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True)
class LastExit:
    """How the main process of the last start ended; all at their defaults: it did not, or nobody saw."""

    code: int | None = None
    signal: str = ""  # "SIGKILL"
    core: bool = False
    oom: bool = False


def result_of(ended: Ended, service: ServiceSection, *, oom: bool = False) -> Result:
    """What that end of one of its processes means."""
    if oom and ended.signal == _SIGKILL:
        return Result.OOM_KILL
    if holds(service.success_exit_codes, code=ended.code, signal=ended.signal):
        return Result.SUCCESS
    if ended.signal is not None:
        if ended.signal in _CLEAN_SIGNALS and service.type != "oneshot" and not ended.core:
            return Result.SUCCESS
        return Result.CORE_DUMP if ended.core else Result.SIGNAL
    return Result.SUCCESS if ended.code == 0 else Result.EXIT_CODE


def last_exit_of(ended: Ended, *, oom: bool) -> LastExit:
    """For people and programs."""
    name = f"SIG{signal_word(ended.signal)}" if ended.signal is not None else ""
    return LastExit(ended.code, name, ended.core, oom and ended.signal == _SIGKILL)


def variables_of(result: Result, last: LastExit) -> Mapping[str, str]:
    """What the stop and post_stop commands are told (systemd.exec(5))."""
    told = {"SERVICE_RESULT": result.value}
    if last.signal:
        told |= {"EXIT_CODE": "dumped" if last.core else "killed", "EXIT_STATUS": last.signal.removeprefix("SIG")}
    elif last.code is not None:
        told |= {"EXIT_CODE": "exited", "EXIT_STATUS": str(last.code)}
    return told
