"""``[Unit]`` and ``[Install]``. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.errors import InputError
from appliance.systemd.draft import Draft, Handler, Handlers, into, listed, no_equal, note
from appliance.systemd.lines import Assignment
from appliance.systemd.names import KINDS, NOT_REACHED, OTHERS, REACHED, is_systemds_own, unit_of_file
from appliance.systemd.values import boolean, integer, seconds
from appliance.systemd.words import split_words

_RELATIONS = {
    "Requires": "requires", "RequiresOverridable": "requires", "Requisite": "requisite",
    "RequisiteOverridable": "requisite", "Wants": "wants", "BindsTo": "binds_to", "BindTo": "binds_to",
    "PartOf": "part_of", "Upholds": "upholds", "Conflicts": "conflicts", "After": "after", "Before": "before",
    "OnFailure": "on_failure", "OnSuccess": "on_success", "PropagatesStopTo": "propagates_stop_to",
    "StopPropagatedFrom": "stop_propagated_from", "PropagatesReloadTo": "propagates_reload_to",
    "PropagateReloadTo": "propagates_reload_to", "ReloadPropagatedFrom": "reload_propagated_from",
    "PropagateReloadFrom": "reload_propagated_from",
}  # fmt: skip
_CONDITIONS = {
    "PathExists": "path_exists", "PathExistsGlob": "path_exists_glob", "PathIsDirectory": "path_is_directory",
    "PathIsSymbolicLink": "path_is_symbolic_link", "PathIsMountPoint": "path_is_mount_point",
    "PathIsReadWrite": "path_is_read_write", "DirectoryNotEmpty": "directory_not_empty",
    "FileNotEmpty": "file_not_empty", "FileIsExecutable": "file_is_executable",
    "KernelCommandLine": "kernel_command_line", "KernelVersion": "kernel_version",
    "Virtualization": "virtualization", "Host": "host", "Architecture": "architecture", "User": "user",
    "Group": "group", "Environment": "environment", "Memory": "memory", "CPUs": "cpus", "Capability": "capability",
    "ACPower": "ac_power", "Security": "security", "FirstBoot": "first_boot", "NeedsUpdate": "needs_update",
    "ControlGroupController": "control_group_controller", "CPUFeature": "cpu_feature", "OSRelease": "os_release",
    "Credential": "credential", "Firmware": "firmware",
}  # fmt: skip
_OTHER_CONDITIONS = (
    "CPUPressure", "IOPressure", "MemoryPressure", "PathIsEncrypted", "Version",
)  # fmt: skip
_INSTALL = {"WantedBy": "wanted_by", "RequiredBy": "required_by", "UpheldBy": "upheld_by"}
_NO_EQUAL = (
    "CollectMode", "FailureAction", "FailureActionExitStatus",
    "JobRunningTimeoutSec", "JobTimeoutAction", "JobTimeoutRebootArgument", "JobTimeoutSec", "JoinsNamespaceOf",
    "RebootArgument", "StartLimitAction",
    "SuccessAction", "SuccessActionExitStatus", "SurviveFinalKillSignal", "DebugInvocation",
)  # fmt: skip
_NO_MATTER = (  # nothing is isolated here, jobs have no modes, and what is mounted is so before units start
    "AllowIsolate", "IgnoreOnIsolate", "OnFailureIsolate", "OnFailureJobMode", "OnSuccessJobMode",
    "RequiresMountsFor", "WantsMountsFor",
)  # fmt: skip
_FLAGS = {
    "RefuseManualStart": "refuse_manual_start", "RefuseManualStop": "refuse_manual_stop",
    "StopWhenUnneeded": "stop_when_unneeded",
}  # fmt: skip


def _unit_names(draft: Draft, at: Assignment, key: str) -> list[str]:
    names = []
    for word in split_words(at.value, escapes=False):
        if word.endswith(OTHERS):
            draft.warn(at, f"{word} is ignored: there are no units of that kind here")
        elif not word.endswith(KINDS):
            draft.warn(at, f'"{word}" is ignored: a unit has a name such as {word}.service')
        elif is_systemds_own(word):
            if key not in ("after", "before", "conflicts"):
                draft.warn(at, f"{word} is ignored: it is part of systemd, or comes with it")
        else:
            name = unit_of_file(word)
            names.append(word if name.endswith((".service", "%n")) else name)  # the end of it belongs to the instance
    return names


def _relation(key: str) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        if at.value:  # as in systemd, an empty one does not take back what was said
            names = _unit_names(draft, at, key)
            if names:
                draft.extend("unit", key, names, at)

    return handle


def _install(key: str) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        if not at.value:
            draft.unset("install", key)
            return
        names = _unit_names(draft, at, key)
        if names:
            draft.extend("install", key, names, at)
            if all(name in NOT_REACHED for name in names):
                draft.warn(at, "this host never comes there: the unit starts only when something else asks for it")

    return handle


def _alias(draft: Draft, at: Assignment) -> None:
    if not at.value:
        draft.unset("install", "alias")
        return
    good = []
    for word in split_words(at.value, escapes=False):
        if word in REACHED or word in NOT_REACHED or is_systemds_own(word):
            draft.lost.append((at, "a name that only systemd itself asks for"))
        elif word.endswith(draft.kind):
            good.append(unit_of_file(word))
        else:
            draft.warn(at, f'"{word}" is ignored: expected another name that ends with {draft.kind}')
    if good:
        draft.extend("install", "alias", good, at)


def _condition(name: str, key: str, table: str) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        if not at.value:
            draft.tables.pop(table, None)
            return
        marks = at.value[: len(at.value) - len(at.value.lstrip("|!"))]
        value = at.value.removeprefix(marks).strip()
        if not key:
            draft.lose(at, f"nobody can tell here whether {name} holds: ignored, as if it did")
            return
        marks = "|" * ("|" in marks) + "!" * ("!" in marks)
        draft.extend(table, key, [marks + value], at)

    return handle


def _keep(read: Callable[[str], Any]) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        name = {"StartLimitInterval": "StartLimitIntervalSec"}.get(at.key, at.key)
        if at.value:
            draft.said[name] = read(at.value)
            draft.places.setdefault("restart.limit", at)
        else:
            draft.said.pop(name, None)

    return handle


def _text(value: str) -> str:
    return value


def _instance(value: str) -> str:
    if not value or set(value) & set("/@ "):
        raise InputError(f'found "{value}", expected the name of an instance')
    return value


def _nothing_by_default(draft: Draft, at: Assignment) -> None:
    """There are no dependencies here that nobody wrote."""
    if at.value:
        boolean(at.value)


START_LIMIT: Handlers = {
    "StartLimitIntervalSec": _keep(seconds),
    "StartLimitInterval": _keep(seconds),
    "StartLimitBurst": _keep(lambda text: integer(text, 0, 1_000_000)),
    "StartLimitAction": no_equal(),
    "FailureAction": no_equal(),
    "RebootArgument": no_equal(),
}


def _unit() -> dict[str, Handler]:
    keys: dict[str, Handler] = {name: _relation(key) for name, key in _RELATIONS.items()}
    keys |= {name: no_equal() for name in _NO_EQUAL}
    keys |= dict.fromkeys(_NO_MATTER, note)
    keys |= {name: into("unit", key, boolean) for name, key in _FLAGS.items()}
    for kind, table in (("Condition", "unit.conditions"), ("Assert", "unit.asserts")):
        for name, key in (*_CONDITIONS.items(), *((one, "") for one in _OTHER_CONDITIONS)):
            keys[kind + name] = _condition(kind + name, key, table)
    keys |= {"Description": into("unit", "description", _text), "Documentation": note, "SourcePath": note}
    keys |= {"DefaultDependencies": _nothing_by_default}
    return {**keys, **START_LIMIT}


UNIT: Handlers = _unit()
INSTALL: Handlers = {
    **{name: _install(key) for name, key in _INSTALL.items()},
    "Also": listed("install", "also", lambda value: [unit_of_file(one) for one in split_words(value, escapes=False)]),
    "Alias": _alias,
    "DefaultInstance": into("install", "default_instance", _instance),
}
