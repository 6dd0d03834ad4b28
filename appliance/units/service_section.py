"""``[service]`` of a unit file: what runs, as whom, when it is ready, how it ends. Pure."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.schema import Duration, DurationOrInfinity
from appliance.units.command_lines import COMMAND, LINES, CommandTable, Lines, as_lines, lines_problem
from appliance.units.signal_names import exit_code_problem, signal_problem

_PATH: Mapping[str, Any] = {"pattern": r"/[^\0]*", "what": "an absolute path"}
_FILE: Mapping[str, Any] = {
    "pattern": r"-?/[^\0]*",
    "what": 'an absolute path, with a "-" in front if it may be missing',
}
_CREDENTIAL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}")
_DIRECTORY: Mapping[str, Any] = {
    "pattern": r"-?(/[^\0]*|~)",
    "what": 'an absolute path, or "~" for the home directory; with a "-" in front if it may be missing',
}
_USER: Mapping[str, Any] = {"pattern": r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", "what": "the name or number of an account"}
_INPUT: Mapping[str, Any] = {"pattern": r"null|data|file:/[^\0]*", "what": '"null", "file:/PATH" or "data"'}
_OUTPUT_WORDS = '"journal", "null", "file:/PATH", "append:/PATH" or "truncate:/PATH"'
_OUTPUT: Mapping[str, Any] = {"pattern": r"journal|null|(file|append|truncate):/[^\0]*", "what": _OUTPUT_WORDS}
_ERROR: Mapping[str, Any] = {
    "pattern": r"inherit|journal|null|(file|append|truncate):/[^\0]*",
    "what": f'"inherit" (as standard_output), {_OUTPUT_WORDS}',
}
_MODE: Mapping[str, Any] = {"pattern": "0?[0-7]{3,4}", "what": 'an octal mode such as "0755"'}
_BELOW: Mapping[str, Any] = {
    "pattern": r"(?!/)(?!.*:/)(?!(.*[/:])?\.\.([/:]|$))[^\0]+",
    "what": "a path without / in front and without ..",
}
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = frozenset({"INVOCATION_ID", "NOTIFY_SOCKET", "MAINPID"})


def _check_credentials(credentials: Mapping[str, str]) -> str | None:
    for name in credentials:
        if not _CREDENTIAL.fullmatch(name):
            return f'found the name "{name}", expected letters, digits, ".", "_" and "-"'
    return None


def _check_environment(environment: Mapping[str, str]) -> str | None:
    for name in environment:
        if not _ENVIRONMENT_NAME.fullmatch(name):
            return f'found the variable name "{name}", expected letters, digits and underscores'
        if name in _OURS:
            return f"found {name}, which the appliance sets itself"
    return None


def _check_base64(text: str) -> str | None:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return "found what is no base 64"
    return None


_VARIABLE: Mapping[str, Any] = {"pattern": _ENVIRONMENT_NAME.pattern, "what": "the name of a variable"}
_SOCKETS: Mapping[str, Any] = {"pattern": r"[^/\s]+\.socket", "what": "the name of a unit such as web.socket"}
_SIGNAL: Mapping[str, Any] = {"check": signal_problem}
_CODES: Mapping[str, Any] = {"check": exit_code_problem}


@dataclass(frozen=True, kw_only=True)
class ServiceSection:
    """``[service]``. The commands besides ``command`` run one after another, in the unit's own cgroup and fences."""

    command: tuple[str, ...] = field(default=(), metadata=COMMAND)
    commands: tuple[tuple[str, ...] | CommandTable, ...] = field(default=(), metadata=LINES)  # instead, of a oneshot
    type: Literal["simple", "exec", "oneshot", "notify", "notify-reload", "forking", "idle"] = "simple"
    remain_after_exit: bool = False
    exit_type: Literal["main", "cgroup"] = "main"
    pid_file: str | None = field(default=None, metadata=_PATH)
    guess_main_pid: bool = True
    notify_access: Literal["none", "main", "exec", "all"] | None = None
    non_blocking: bool = False
    sockets: tuple[str, ...] = field(default=(), metadata=_SOCKETS)
    fd_store_max: int = field(default=64, metadata={"min": 0, "max": 4096})

    condition: Lines = field(default=(), metadata=LINES)  # exit code 1 to 254: not now, and that is no failure
    pre_start: Lines = field(default=(), metadata=LINES)
    post_start: Lines = field(default=(), metadata=LINES)
    reload: Lines = field(default=(), metadata=LINES)
    stop: Lines = field(default=(), metadata=LINES)
    post_stop: Lines = field(default=(), metadata=LINES)
    reload_signal: str | None = field(default=None, metadata=_SIGNAL)

    environment: Mapping[str, str] = field(default_factory=dict, metadata={"check": _check_environment})
    environment_file: str | tuple[str, ...] = field(default=(), metadata=_FILE)
    pass_environment: tuple[str, ...] = field(default=(), metadata=_VARIABLE)
    unset_environment: tuple[str, ...] = ()
    credentials: Mapping[str, str] = field(default_factory=dict, metadata={"check": _check_credentials})
    credential_texts: Mapping[str, str] = field(default_factory=dict, metadata={"check": _check_credentials})
    working_directory: str = field(default="/", metadata=_DIRECTORY)
    user: str | None = field(default=None, metadata=_USER)
    group: str | None = field(default=None, metadata=_USER)
    supplementary_groups: tuple[str, ...] = field(default=(), metadata=_USER)
    umask: str = field(default="0022", metadata={"pattern": "0?[0-7]{3}", "what": 'an octal mask such as "0022"'})
    standard_input: str = field(default="null", metadata=_INPUT)
    input_text: str = ""  # what it reads where standard_input is "data"
    input_data: str = field(default="", metadata={"check": _check_base64})  # in base 64, instead
    standard_output: str = field(default="journal", metadata=_OUTPUT)
    standard_error: str = field(default="inherit", metadata=_ERROR)

    runtime_directory: tuple[str, ...] = field(default=(), metadata=_BELOW)  # below /run, gone when it is down
    state_directory: tuple[str, ...] = field(default=(), metadata=_BELOW)  # /var/lib
    cache_directory: tuple[str, ...] = field(default=(), metadata=_BELOW)  # /var/cache
    logs_directory: tuple[str, ...] = field(default=(), metadata=_BELOW)  # /var/log
    configuration_directory: tuple[str, ...] = field(default=(), metadata=_BELOW)  # /etc
    runtime_directory_mode: str = field(default="0755", metadata=_MODE)
    state_directory_mode: str = field(default="0755", metadata=_MODE)
    cache_directory_mode: str = field(default="0755", metadata=_MODE)
    logs_directory_mode: str = field(default="0755", metadata=_MODE)
    configuration_directory_mode: str = field(default="0755", metadata=_MODE)
    runtime_directory_preserve: Literal["no", "restart", "yes"] = "no"

    start_timeout: DurationOrInfinity | None = None
    stop_timeout: DurationOrInfinity = 10.0
    abort_timeout: DurationOrInfinity | None = None  # after the watchdog's signal; None: stop_timeout
    watchdog_timeout: Duration | None = None  # it must say WATCHDOG=1 at least that often
    watchdog_signal: str = field(default="SIGABRT", metadata=_SIGNAL)
    runtime_max: DurationOrInfinity = math.inf

    ignore_sigpipe: bool = False  # what writes to a pipe that nobody reads gets EPIPE, and lives
    kill_mode: Literal["control-group", "mixed", "process", "none"] = "control-group"
    kill_signal: str = field(default="SIGTERM", metadata=_SIGNAL)
    restart_kill_signal: str | None = field(default=None, metadata=_SIGNAL)  # when it is to come up again
    final_kill_signal: str = field(default="SIGKILL", metadata=_SIGNAL)
    send_sigkill: bool = True
    send_sighup: bool = False
    success_exit_codes: tuple[int | str, ...] = field(default=(), metadata=_CODES)  # signals by name, too
    restart_prevent_exit_codes: tuple[int | str, ...] = field(default=(), metadata=_CODES)
    restart_force_exit_codes: tuple[int | str, ...] = field(default=(), metadata=_CODES)

    @property
    def input_bytes(self) -> bytes:
        """What it reads, when its file says so."""
        return self.input_text.encode() + base64.b64decode(self.input_data)

    def lines(self, name: str) -> tuple[CommandTable, ...]:
        """The commands under that key, whichever way they were written; of "command": those of the unit itself."""
        if name == "command":
            return as_lines(self.command or self.commands)
        return as_lines(getattr(self, name))

    def start_seconds_max(self) -> float:
        """A oneshot may take its time unless told otherwise."""
        if self.start_timeout is not None:
            return self.start_timeout
        return math.inf if self.type == "oneshot" else 90.0

    def notices_from(self) -> str:
        """Whose sd_notify(3) messages count: as written; else the main process's, where we wait for any."""
        if self.notify_access is not None:
            return self.notify_access
        return "main" if self.is_notify or self.watchdog_timeout is not None else "none"

    @property
    def is_notify(self) -> bool:
        """Whether it says itself when it is ready."""
        return self.type in ("notify", "notify-reload")

    @property
    def tells_errors_apart(self) -> bool:
        """Whether the log knows which lines came from stderr; else it is one stream, in the exact order."""
        return self.standard_error == "journal"

    @property
    def signal_of_reload(self) -> str | None:
        """What makes it read its configuration again when there is no command for that."""
        return self.reload_signal or ("SIGHUP" if self.type == "notify-reload" else None)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Rules between keys, and what is wrong within the lists of commands."""
        for key in ("commands", "condition", "pre_start", "post_start", "reload", "stop", "post_stop"):
            if wrong := lines_problem(getattr(self, key)):
                yield key, wrong
        if self.command and self.commands:
            yield "commands", "found command and commands, expected only one of them"
        elif not self.command and not self.commands and not self._may_run_nothing():
            yield "command", 'missing; expected a list of strings such as ["/usr/bin/sleep", "1h"]'
        if len(self.commands) > 1 and self.type != "oneshot":
            yield "commands", f'found {len(self.commands)} commands, expected one, or type = "oneshot"'
        if self.pid_file is not None and self.type != "forking":
            yield "pid_file", f'found a pid_file, expected type = "forking", not "{self.type}"'
        if self.is_notify and self.notify_access == "none":
            yield "notify_access", f'found "none", but type = "{self.type}" waits for what it says'
        if (self.input_text or self.input_data) and self.standard_input != "data":
            yield "standard_input", 'found something to read besides, expected "data"'
        if self.reload and self.reload_signal is not None:
            yield "reload_signal", "found reload and reload_signal, expected only one of them"

    def _may_run_nothing(self) -> bool:
        return self.type == "oneshot" and self.remain_after_exit and bool(self.stop)
