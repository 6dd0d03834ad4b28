"""``[Service]``, but for what is of sandbox, limits and resources; and ``[Timer]``-less facts of a service. Pure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from appliance.errors import InputError
from appliance.systemd.command_lines import Line, as_toml, read_commands
from appliance.systemd.draft import Draft, Handler, Handlers, into, listed, no_equal, note, one_of, unless
from appliance.systemd.lines import Assignment
from appliance.systemd.unit_keys import START_LIMIT
from appliance.systemd.values import boolean, duration, integer, seconds
from appliance.systemd.words import split_words

_COMMANDS = {
    "ExecStart": "commands", "ExecCondition": "condition", "ExecStartPre": "pre_start", "ExecStartPost": "post_start",
    "ExecReload": "reload", "ExecStop": "stop", "ExecStopPost": "post_stop",
}  # fmt: skip
_STOP_SECONDS = 90.0  # what systemd gives a service unless told otherwise
_RESTART_SECONDS = 0.1
_START_LIMIT = (5, 10.0)
_NO_EQUAL = (
    "BusPolicy", "FileDescriptorStorePreserve", "OpenFile", "RefreshOnReload",
    "RestartMode", "RootDirectoryStartOnly", "RuntimeRandomizedExtraSec", "TimeoutStartFailureMode",
    "TimeoutStopFailureMode", "USBFunctionDescriptors", "USBFunctionStrings",
)  # fmt: skip


def _command(key: str) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        lines: list[Line] = draft.said.setdefault(key, [])
        if not at.value:
            lines.clear()
            draft.unset("service", key)
            return
        try:
            found, odd = read_commands(at.value)
        except InputError as error:
            draft.findings.append(at.finding(error.message, is_error=True))
            return
        for words in odd:
            draft.warn(at, words)
        for line in found:
            draft.places[f"service.{key}[{len(lines)}]"] = at
            lines.append(line)
        draft.places.setdefault(f"service.{key}", at)

    return handle


def _span(key: str, *, zero_is_endless: bool = False, infinity: bool = True) -> Handler:
    def read(text: str) -> str:
        value = seconds(text)
        return duration(math.inf if zero_is_endless and value == 0 else value, infinity=infinity)

    return into("service", key, read)


def _both_timeouts(draft: Draft, at: Assignment) -> None:
    for key in ("start_timeout", "stop_timeout"):
        _span(key, zero_is_endless=True)(draft, at)


def _watchdog(draft: Draft, at: Assignment) -> None:
    value = seconds(at.value) if at.value else 0.0
    if 0 < value < math.inf:
        draft.set("service", "watchdog_timeout", duration(value), at)
    else:
        draft.unset("service", "watchdog_timeout")


def _type(draft: Draft, at: Assignment) -> None:
    kind = one_of("simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle")(at.value)
    if kind == "dbus":
        draft.warn(at, "is treated as simple: it counts as ready at once, not when its name is on the bus")
        kind = "simple"
    draft.set("service", "type", kind, at)


def _codes(key: str) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        if not at.value:
            draft.unset("service", key)
            return
        draft.extend("service", key, [int(one) if one.isdecimal() else one for one in split_words(at.value)], at)

    return handle


def _preserve(text: str) -> str:
    return "restart" if text == "restart" else "yes" if boolean(text) else "no"


def _restart_key(name: str, read: Any) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        if at.value:
            draft.said[name] = read(at.value)
            draft.places[f"restart.{name}"] = at
        else:
            draft.said.pop(name, None)

    return handle


def _oom_policy(draft: Draft, at: Assignment) -> None:
    if one_of("continue", "stop", "kill")(at.value) == "kill":
        draft.set("resources", "oom_group", True, at)
    else:
        draft.lose(at, "the kernel kills one process; the service goes on, or not, as it would at any other death")


def _start_only(draft: Draft, at: Assignment) -> None:
    draft.said["PermissionsStartOnly"] = boolean(at.value) if at.value else False


def _absolute_run(text: str) -> str:
    path = text if text.startswith("/") else f"/run/{text}"
    return path.replace("/var/run/", "/run/", 1) if path.startswith("/var/run/") else path


SERVICE: Handlers = {
    **START_LIMIT,
    **{name: _command(key) for name, key in _COMMANDS.items()},
    **{name: no_equal() for name in _NO_EQUAL},
    "Type": _type,
    "BusName": note,
    "RemainAfterExit": into("service", "remain_after_exit", boolean),
    "ExitType": into("service", "exit_type", one_of("main", "cgroup")),
    "GuessMainPID": into("service", "guess_main_pid", boolean),
    "PIDFile": into("service", "pid_file", _absolute_run),
    "NonBlocking": into("service", "non_blocking", boolean),
    "Sockets": listed("service", "sockets", lambda text: split_words(text, escapes=False)),
    "NotifyAccess": into("service", "notify_access", one_of("none", "main", "exec", "all")),
    "FileDescriptorStoreMax": into("service", "fd_store_max", lambda text: min(integer(text, 0, 1 << 31), 4096)),
    "TimeoutStartSec": _span("start_timeout", zero_is_endless=True),
    "TimeoutStopSec": _span("stop_timeout", zero_is_endless=True),
    "TimeoutSec": _both_timeouts,
    "TimeoutAbortSec": _span("abort_timeout", zero_is_endless=True),
    "RuntimeMaxSec": _span("runtime_max", zero_is_endless=True),
    "WatchdogSec": _watchdog,
    "WatchdogSignal": into("service", "watchdog_signal", str),
    "ReloadSignal": into("service", "reload_signal", str),
    "KillMode": into("service", "kill_mode", one_of("control-group", "mixed", "process", "none")),
    "KillSignal": into("service", "kill_signal", str),
    "RestartKillSignal": into("service", "restart_kill_signal", str),
    "FinalKillSignal": into("service", "final_kill_signal", str),
    "SendSIGKILL": into("service", "send_sigkill", boolean),
    "SendSIGHUP": into("service", "send_sighup", boolean),
    "SuccessExitStatus": _codes("success_exit_codes"),
    "RestartPreventExitStatus": _codes("restart_prevent_exit_codes"),
    "RestartForceExitStatus": _codes("restart_force_exit_codes"),
    "RuntimeDirectoryPreserve": into("service", "runtime_directory_preserve", _preserve),
    "Restart": _restart_key("policy", one_of(
        "no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog")),
    "RestartSec": _restart_key("delay", seconds),
    "RestartSteps": _restart_key("steps", lambda text: integer(text, 0, 1 << 31)),
    "RestartMaxDelaySec": _restart_key("delay_max", seconds),
    "OOMPolicy": _oom_policy,
    "PermissionsStartOnly": _start_only,
    "SysVStartPriority": unless(frozenset()),
}  # fmt: skip


def finish_service(draft: Draft) -> None:
    """What only makes sense together, and what systemd takes for granted but our files do not."""
    said = draft.said
    for key in _COMMANDS.values():
        lines: list[Line] = said.get(key, [])
        if said.get("PermissionsStartOnly") and key != "commands":
            lines = [replace(line, privileged=True) for line in lines]
        if not lines:
            continue
        if key == "commands" and len(lines) == 1 and lines[0].is_plain:
            draft.set("service", "command", list(lines[0].words))
            draft.places["service.command"] = draft.places["service.commands"]
        else:
            draft.set("service", key, as_toml(lines))
    if not said.get("commands") and draft.get("service", "type") is None:
        draft.set("service", "type", "oneshot")
    draft.tables.setdefault("service", {}).setdefault("stop_timeout", duration(_STOP_SECONDS))
    if draft.get("service", "pid_file") is not None and draft.get("service", "type") != "forking":
        at = draft.places["service.pid_file"]
        draft.lost.append((at, "counts only with Type=forking"))
        draft.unset("service", "pid_file")
    if draft.get("service", "reload") is not None and draft.get("service", "reload_signal") is not None:
        draft.lose(draft.places["service.reload_signal"], "ignored, for there is ExecReload=")
        draft.unset("service", "reload_signal")
    _finish_restart(draft)


def _finish_restart(draft: Draft) -> None:
    said = draft.said
    draft.set("restart", "policy", said.get("policy", "no"))
    delay = said.get("delay", _RESTART_SECONDS)
    longest = max(delay, said.get("delay_max", delay)) if said.get("steps") else delay
    draft.set("restart", "delay", duration(delay, infinity=False))
    draft.set("restart", "delay_max", duration(longest, infinity=False))
    burst = said.get("StartLimitBurst", _START_LIMIT[0])
    interval = said.get("StartLimitIntervalSec", _START_LIMIT[1])
    if burst and interval:
        draft.set("restart.limit", "burst", min(burst, 1000))
        draft.set("restart.limit", "interval", duration(max(interval, 0.001), infinity=False))
