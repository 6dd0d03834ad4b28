"""What is said of a process (systemd.exec(5)) but its fences: as whom, where, with which variables and limits. Pure."""

from __future__ import annotations

import base64
import re

from appliance.errors import InputError
from appliance.systemd.draft import Draft, Handler, Handlers, into, listed, no_equal, note, one_of, unless
from appliance.systemd.lines import Assignment
from appliance.systemd.values import boolean, duration, integer, limit, octal, seconds
from appliance.systemd.words import split_words, unescaped

_DIRECTORIES = ("Runtime", "State", "Cache", "Logs", "Configuration")
_LIMITS = (
    "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS", "RTPRIO",
    "RTTIME", "SIGPENDING", "STACK",
)  # fmt: skip
_NO_FENCE = (
    "AppArmorProfile",
    "SELinuxContext",
    "SmackProcessLabel",
    "SecureBits",
)
_NO_EQUAL = (
    "CoredumpFilter", "ExtensionDirectories",
    "ExtensionImages", "ImportCredential", "KeyringMode", "LoadCredentialEncrypted",
    "LogExtraFields", "LogFilterPatterns", "LogLevelMax", "LogNamespace",
    "MemoryKSM", "MountAPIVFS", "MountFlags", "MountImages", "NUMAMask", "NUMAPolicy",
    "PAMName", "Personality", "RootEphemeral", "RootHash", "RootHashSignature", "RootImage",
    "RootImageOptions", "RootImagePolicy", "RootVerity", "SetCredentialEncrypted", "SetLoginEnvironment",
    "TimerSlackNSec", "TTYColumns",
    "TTYPath", "TTYReset", "TTYRows", "TTYVHangup", "TTYVTDisallocate", "UtmpIdentifier", "UtmpMode",
)  # fmt: skip
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _environment(draft: Draft, at: Assignment) -> None:
    if not at.value:
        draft.tables.pop("service.environment", None)
        return
    for word in split_words(at.value):
        name, equals, value = word.partition("=")
        if not equals or not _VARIABLE.fullmatch(name):
            draft.warn(at, f'"{word}" is ignored: expected NAME=value')
        else:
            draft.set("service.environment", name, value, at)


def _directory(draft: Draft, at: Assignment) -> None:
    key = f"{at.key.removesuffix('Directory').lower()}_directory"
    if not at.value:
        draft.unset("service", key)
        return
    names = []
    for word in split_words(at.value, escapes=False):
        name, colon, link = word.partition(":")
        names.append(f"{name.rstrip('/')}{colon}{link}" if link else name.rstrip("/"))
    draft.extend("service", key, names, at)


def _output(draft: Draft, at: Assignment) -> None:
    key = {"StandardOutput": "standard_output", "StandardError": "standard_error"}[at.key]
    word = at.value
    if word in ("", "journal", "syslog", "kmsg", "inherit", "socket") or word.endswith("+console"):
        if word.endswith("+console"):
            draft.warn(at, "goes to the unit's log alone, not to the console")
        draft.unset("service", key)
        draft.said[key] = (word, at)
    elif word == "null" or word.startswith(("file:", "append:", "truncate:")):
        draft.said.pop(key, None)
        draft.set("service", key, word, at)
    else:
        draft.lose(at, f'"{word}" has no equal here: it goes to the unit\'s log')


def _input(draft: Draft, at: Assignment) -> None:
    draft.said["standard_input"] = at.value
    if at.value.startswith("file:") or at.value == "data":
        draft.set("service", "standard_input", at.value, at)
        return
    draft.unset("service", "standard_input")
    if at.value not in ("", "null", "socket"):
        draft.lose(at, f'"{at.value}" has no equal here: its input is empty')


def _data(draft: Draft, at: Assignment) -> None:
    """Lines of text and pieces in base 64, one after the other."""
    if not at.value:
        draft.said.pop("input", None)
        return
    if at.key == "StandardInputText":
        piece = f"{unescaped(at.value)}\n".encode()
    else:
        try:
            piece = base64.b64decode("".join(at.value.split()), validate=True)
        except ValueError:
            raise InputError("found what is no base 64") from None
    before = draft.said.get("input", (b"", at))[0]
    draft.said["input"] = (before + piece, at)


def _rate(draft: Draft, at: Assignment) -> None:
    if not at.value:
        draft.said.pop(at.key, None)
        return
    is_time = at.key == "LogRateLimitIntervalSec"
    draft.said[at.key] = seconds(at.value) if is_time else integer(at.value, 0, 10**9 - 1)
    draft.places["logs.rate"] = at


def _credential(draft: Draft, at: Assignment) -> None:
    """What is loaded counts before what is set; each name by its last assignment."""
    table = "service.credentials" if at.key == "LoadCredential" else "service.credential_texts"
    if not at.value:
        draft.tables.pop(table, None)
        return
    name, colon, rest = at.value.partition(":")
    if at.key == "LoadCredential":
        draft.set(table, name, rest or name, at)
    elif not colon:
        draft.warn(at, f'"{name}" is ignored: expected NAME:TEXT')
    else:
        draft.set(table, name, unescaped(rest), at)


def _search_path(draft: Draft, at: Assignment) -> None:
    before = draft.said.get("search_path", ("", at))[0] if at.value else ""
    draft.said["search_path"] = (":".join(filter(None, (before, at.value))), at)


def _supplementary(text: str) -> list[str]:
    return split_words(text, escapes=False)


def _files(draft: Draft, at: Assignment) -> None:
    if not at.value:
        draft.unset("service", "environment_file")
    else:
        draft.extend("service", "environment_file", [at.value], at)


def _cpus(draft: Draft, at: Assignment) -> None:
    if not at.value:
        draft.unset("limits", "cpu_affinity")
        return
    ranges = ",".join(at.value.replace(",", " ").split())
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", ranges):
        raise InputError(f'found "{at.value}", expected numbers and ranges such as 0-3 8')
    before = draft.get("limits", "cpu_affinity")
    draft.set("limits", "cpu_affinity", f"{before},{ranges}" if before else ranges, at)


def _limit_keys() -> dict[str, Handler]:
    def read(name: str) -> Handler:
        key = "nice_max" if name == "NICE" else name.lower()
        return into("limits", key, lambda text: limit(name.lower(), text))

    return {f"Limit{name}": read(name) for name in _LIMITS}


def _number_or(words: str) -> Handler:
    names = words.split()

    def read(text: str) -> str:
        return names[int(text)] if text.isdecimal() and int(text) < len(names) else one_of(*names)(text)

    return into("limits", "io_scheduling", read)


def _user(key: str) -> Handler:
    return into("service", key, str)


EXEC: Handlers = {
    **{name: no_equal() for name in _NO_EQUAL},
    **{name: no_equal("this fence is not put up") for name in _NO_FENCE},
    **_limit_keys(),
    **{f"{name}Directory": _directory for name in _DIRECTORIES},
    **{f"{name}DirectoryMode": into("service", f"{name.lower()}_directory_mode", octal) for name in _DIRECTORIES},
    "Environment": _environment,
    "EnvironmentFile": _files,
    "UnsetEnvironment": listed("service", "unset_environment", split_words),
    "WorkingDirectory": into("service", "working_directory", str),
    "User": _user("user"),
    "Group": _user("group"),
    "SupplementaryGroups": listed("service", "supplementary_groups", _supplementary),
    "UMask": into("service", "umask", octal),
    "StandardInput": _input,
    "SyslogIdentifier": note,  # lines are known by their unit
    "SyslogFacility": note,
    "SyslogLevel": note,
    "SyslogLevelPrefix": unless(frozenset({"yes", "true", "1", "on", ""})),
    "StandardInputText": _data,
    "StandardInputData": _data,
    "LogRateLimitIntervalSec": _rate,
    "LogRateLimitBurst": _rate,
    "PassEnvironment": listed("service", "pass_environment", split_words),
    "StandardOutput": _output,
    "StandardError": _output,
    "Nice": into("limits", "nice", lambda text: integer(text, -20, 19)),
    "OOMScoreAdjust": into("limits", "oom_score_adjust", lambda text: integer(text, -1000, 1000)),
    "CPUSchedulingPolicy": into("limits", "cpu_scheduling", one_of("other", "batch", "idle", "fifo", "rr")),
    "CPUSchedulingPriority": into("limits", "cpu_scheduling_priority", lambda text: integer(text, 0, 99)),
    "CPUSchedulingResetOnFork": into("limits", "cpu_scheduling_reset_on_fork", boolean),
    "CPUAffinity": _cpus,
    "IOSchedulingClass": _number_or("none realtime best-effort idle"),
    "IOSchedulingPriority": into("limits", "io_scheduling_priority", lambda text: integer(text, 0, 7)),
    "IgnoreSIGPIPE": into("service", "ignore_sigpipe", boolean),
    "ExecSearchPath": _search_path,
    "LoadCredential": _credential,
    "SetCredential": _credential,
}


def finish_exec(draft: Draft) -> None:
    """Output that follows the input; and what systemd does unless told otherwise."""
    if draft.get("service", "ignore_sigpipe") is None:
        draft.set("service", "ignore_sigpipe", True)
    _finish_input(draft)
    _finish_rate(draft)
    path, at = draft.said.get("search_path", ("", None))
    if path and "PATH" not in draft.tables.get("service.environment", {}):
        draft.set("service.environment", "PATH", path, at)
    for key in ("standard_output", "standard_error"):
        word, at = draft.said.get(key, ("", None))
        if word == "inherit" and key == "standard_output" and draft.said.get("standard_input", "") in ("", "null"):
            draft.set("service", key, "null", at)
        elif key == "standard_error" and word not in ("", "inherit", "socket"):
            draft.set("service", key, "journal", at)


def _finish_input(draft: Draft) -> None:
    data, at = draft.said.get("input", (b"", None))
    word = draft.said.get("standard_input", "")
    if word not in ("", "data") or (not data and word != "data"):
        return  # systemd: what is to be read counts only where nothing else is said
    draft.set("service", "standard_input", "data", at)
    if data:
        try:
            draft.set("service", "input_text", data.decode(), at)
        except UnicodeDecodeError:
            draft.set("service", "input_data", base64.b64encode(data).decode(), at)


def _finish_rate(draft: Draft) -> None:
    """Both halves, of which one may be journald's own."""
    if "logs.rate" not in draft.places:
        return
    burst = draft.said.get("LogRateLimitBurst", 10_000)
    interval = min(draft.said.get("LogRateLimitIntervalSec", 30.0), 86400.0)
    rate = f"{burst}/{duration(max(interval, 0.001))}" if burst and interval else "unlimited"
    draft.set("logs", "rate", rate, draft.places["logs.rate"])
