"""The fences of a process: ``[sandbox]`` of our files means what these directives mean (systemd.exec(5)). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from appliance.errors import InputError
from appliance.systemd.draft import Draft, Handler, Handlers, into, listed, no_equal, one_of
from appliance.systemd.lines import Assignment
from appliance.systemd.values import boolean
from appliance.systemd.words import split_words

_FLAGS = {
    "NoNewPrivileges": "no_new_privileges", "PrivateDevices": "private_devices", "PrivateNetwork": "private_network",
    "PrivateIPC": "private_ipc", "PrivateMounts": "private_mounts",
    "ProtectKernelTunables": "protect_kernel_tunables", "ProtectKernelModules": "protect_kernel_modules",
    "ProtectKernelLogs": "protect_kernel_logs", "ProtectClock": "protect_clock",
    "RestrictRealtime": "restrict_realtime", "RestrictSUIDSGID": "restrict_suid_sgid",
    "LockPersonality": "lock_personality", "MemoryDenyWriteExecute": "memory_deny_write_execute",
    "DynamicUser": "dynamic_user",
}  # fmt: skip
_STRICTER: dict[str, tuple[str, dict[str, bool | str]]] = {  # some words of newer systemd ask for more than "yes"
    "PrivateTmp": ("private_tmp", {"disconnected": True}),
    "PrivateUsers": ("private_users", {"self": True, "identity": True, "full": True}),
    "ProtectControlGroups": ("protect_control_groups", {"private": True, "strict": True}),
    "ProtectHostname": ("protect_hostname", {"private": True}),
    "ProtectSystem": ("read_only_root", {"full": "full", "strict": "strict"}),
    "ProtectHome": ("protect_home", {"read-only": "read-only", "tmpfs": "tmpfs"}),
}  # fmt: skip
_NO_FENCE = (
    "RestrictFileSystems",
    "PrivatePIDs",
    "BPFProgram",
)
_NO_EQUAL = (
    "IPCNamespacePath", "NetworkNamespacePath", "PrivateBPF", "RemoveIPC",
    "SystemCallLog", "UserNamespacePath",
)  # fmt: skip
_CAPABILITY = re.compile(r"[A-Z_0-9]+")


def _flag_or(words: dict[str, bool | str]) -> Callable[[str], bool | str]:
    def read(text: str) -> bool | str:
        return words[text] if text in words else boolean(text)

    return read


def merged(before: list[str] | None, words: list[str], *, turned: bool) -> list[str]:
    """A list with or without ``~`` before it, and what one more assignment makes of it.

    As in systemd: words add to what is allowed; words after a ``~`` are taken from it.
    """
    if before is None:
        return _with_sign(words, turned=turned)
    was_turned = bool(before) and before[0].startswith("~")
    plain = [one.removeprefix("~") for one in before]
    if was_turned is turned:
        return _with_sign([*plain, *(one for one in words if one not in plain)], turned=turned)
    return _with_sign([one for one in plain if one not in words], turned=was_turned)


def _with_sign(words: list[str], *, turned: bool) -> list[str]:
    return [f"~{words[0]}", *words[1:]] if turned and words else words


def _turnable(key: str, clean: Callable[[str], str] = str, *, empty: list[str] | None = None) -> Handler:
    """``empty``: what an empty assignment sets."""

    def handle(draft: Draft, at: Assignment) -> None:
        turned = at.value.startswith("~")
        words = [clean(one) for one in split_words(at.value.removeprefix("~"), escapes=False)]
        if not words:
            draft.unset("sandbox", key)
            if not turned and empty is not None:
                draft.set("sandbox", key, list(empty), at)
            return
        before = draft.get("sandbox", key)
        found = merged(before, words, turned=turned)
        if not found and before and before[0].startswith("~"):
            draft.unset("sandbox", key)  # all that was forbidden is allowed again
        else:
            draft.set("sandbox", key, found, at)

    return handle


def _capability(word: str) -> str:
    name = word.upper()
    return name if _CAPABILITY.fullmatch(name) else word


def _namespaces(draft: Draft, at: Assignment) -> None:
    try:
        value = boolean(at.value)
    except InputError:
        before = draft.get("sandbox", "restrict_namespaces")
        if isinstance(before, bool):
            draft.unset("sandbox", "restrict_namespaces")
        _turnable("restrict_namespaces")(draft, at)
    else:
        draft.set("sandbox", "restrict_namespaces", value, at)


def _calls(draft: Draft, at: Assignment) -> None:
    if not at.value:
        draft.unset("sandbox", "system_calls")
        return
    sign = "~" if at.value.startswith("~") else ""
    words = split_words(at.value.removeprefix("~"), escapes=False)
    draft.extend("sandbox", "system_calls", [sign + one for one in words], at)


def _paths(key: str, *, bind: bool = False) -> Handler:
    def read(text: str) -> list[str]:
        found = split_words(text)
        return [one.replace("+", "", 1) if one.startswith(("+", "-+")) else one for one in found] if bind else found

    return listed("sandbox", key, read)


def _binds(key: str) -> Handler:
    return listed("sandbox", key, split_words)


SANDBOX: Handlers = {
    **{name: into("sandbox", key, boolean) for name, key in _FLAGS.items()},
    **{name: into("sandbox", key, _flag_or(words)) for name, (key, words) in _STRICTER.items()},
    **{name: no_equal() for name in _NO_EQUAL},
    **{name: no_equal("this fence is not put up") for name in _NO_FENCE},
    "CapabilityBoundingSet": _turnable("capabilities", _capability, empty=[]),
    "AmbientCapabilities": _turnable("ambient_capabilities", _capability),
    "RestrictAddressFamilies": _turnable("restrict_address_families"),
    "RestrictNamespaces": _namespaces,
    "SystemCallFilter": _calls,
    "SystemCallErrorNumber": into("sandbox", "system_call_error", str),
    "SystemCallArchitectures": listed("sandbox", "system_call_architectures", split_words),
    "ProtectProc": into("sandbox", "protect_proc", one_of("default", "noaccess", "invisible", "ptraceable")),
    "ProcSubset": into("sandbox", "proc_subset", one_of("all", "pid")),
    "ReadWritePaths": _paths("writable_paths"),
    "ReadWriteDirectories": _paths("writable_paths"),
    "ReadOnlyPaths": _paths("bind_read_only_paths", bind=True),
    "ReadOnlyDirectories": _paths("bind_read_only_paths", bind=True),
    "InaccessiblePaths": _paths("inaccessible_paths"),
    "InaccessibleDirectories": _paths("inaccessible_paths"),
    "ExecPaths": _paths("exec_paths"),
    "NoExecPaths": _paths("no_exec_paths"),
    "BindPaths": _binds("bind_paths"),
    "BindReadOnlyPaths": _binds("bind_read_only_paths"),
    "TemporaryFileSystem": _binds("temporary_file_system"),
    "RootDirectory": into("sandbox", "root_directory", str),
}
