"""From a unit's definition to a command that the kernel understands: names looked up, environment made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.errors import ApplianceError, InputError, NotFoundError
from appliance.host import file_marks, files, own_environment, users
from appliance.host.processes import Command
from appliance.units.command_lines import CommandTable, expand_words
from appliance.units.directories import Below, directory_variables
from appliance.units.environment_file import parse_environment_file
from appliance.units.service_section import ServiceSection

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Who:
    """As whom it runs; None: as we do."""

    uid: int | None
    gid: int | None
    groups: tuple[int, ...] | None
    account: users.Account | None


def who_of(service: ServiceSection) -> Who:
    """Raises NotFoundError for an unknown user or group, InputError for one that we may not become."""
    as_user = users.find_account(service.user) if service.user is not None else None
    gid = users.find_group(service.group) if service.group is not None else (as_user.gid if as_user else None)
    groups: tuple[int, ...] | None = None
    uid = as_user.uid if as_user else None
    if users.effective_uid() == 0:
        more = tuple(users.find_group(name) for name in service.supplementary_groups)
        if as_user is not None and gid is not None:
            groups = tuple(dict.fromkeys((*users.groups_of(as_user, gid), *more)))
        elif gid is not None:
            groups = tuple(dict.fromkeys((gid, *more)))
        elif more:
            groups = more
    elif uid == users.effective_uid() and service.group is None:
        uid = gid = None  # that is who we are
    elif uid is not None or gid is not None:
        who = f"user {service.user}" if service.user is not None else f"group {service.group}"
        raise InputError(f"cannot run as {who}: the appliance itself is not root")
    return Who(uid, gid, groups, as_user)


def environment_of(service: ServiceSection, who: Who, below: Below = str) -> dict[str, str]:
    """Nothing of our own is handed on. Raises ApplianceError for a file of variables that cannot be read."""
    environment = {"PATH": _PATH}
    try:
        account = who.account or users.find_account(str(users.effective_uid()))
        environment |= {"HOME": account.home, "USER": account.name, "LOGNAME": account.name, "SHELL": account.shell}
    except ApplianceError:
        pass  # an unreadable /etc/passwd matters only to units that name a user
    environment |= own_environment.variables(service.pass_environment)
    environment |= directory_variables(service, below)
    environment |= service.environment
    paths = service.environment_file
    for path in (paths,) if isinstance(paths, str) else paths:
        found = file_marks.matching(path.removeprefix("-")) or (path.removeprefix("-"),)
        try:
            for one in found:
                environment |= parse_environment_file(files.read_text(one, size_max=_FILE_BYTES_MAX))
        except NotFoundError:
            if not path.startswith("-"):
                raise
    for name in service.unset_environment:
        variable, equals, value = name.partition("=")
        if not equals or environment.get(variable) == value:
            environment.pop(variable, None)
    return environment


def command_of(
    service: ServiceSection,
    line: CommandTable | None = None,
    *,
    told: Mapping[str, str] | None = None,
    cgroup: str | None = None,
    output: str | None = None,
    options: tuple[str, ...] = (),
    descriptors: tuple[tuple[str, int], ...] = (),
    below: Below = str,
) -> Command:
    """That line of it, or its own command. ``told``: variables that are ours to set.

    Raises NotFoundError for an unknown user or group, InputError for one that we may not become.
    """
    line = line or service.lines("command")[0]
    who = who_of(service)
    environment = {**environment_of(service, who, below), **(told or {})}
    as_us = line.privileged or line.as_root
    words = () if line.privileged else options
    if line.argv0 is not None:
        words = (*words, "--argv0", line.argv0)
    if service.ignore_sigpipe:
        words = (*words, "--ignore-sigpipe", "1")
    return Command(
        argv=expand_words(line, environment),
        environment=environment,
        directory=_directory(service, environment),
        cgroup=cgroup,
        output=output,
        uid=None if as_us else who.uid,
        gid=None if as_us else who.gid,
        groups=None if as_us else who.groups,
        umask=int(service.umask, 8),
        options=words,
        descriptors=descriptors,
    )


def _directory(service: ServiceSection, environment: Mapping[str, str]) -> str:
    wanted = service.working_directory.removeprefix("-")
    if wanted == "~":
        wanted = environment.get("HOME", "/")
    if service.working_directory.startswith("-") and not files.exists(wanted):
        return "/"
    return wanted
