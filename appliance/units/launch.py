"""From a unit's definition to a command that the kernel understands: names looked up, environment made."""

from __future__ import annotations

from appliance.errors import ApplianceError, InputError
from appliance.host import users
from appliance.host.processes import Command
from appliance.units.service_section import ServiceSection

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def command_of(
    service: ServiceSection,
    *,
    invocation: str = "",
    cgroup: str | None = None,
    output: str | None = None,
    notify_address: str = "",
    options: tuple[str, ...] = (),
    descriptors: tuple[tuple[str, int], ...] = (),
) -> Command:
    """Nothing of our own environment is handed on.

    Raises NotFoundError for an unknown user or group, InputError for one that we may not become.
    """
    as_user = users.find_account(service.user) if service.user is not None else None
    gid = users.find_group(service.group) if service.group is not None else (as_user.gid if as_user else None)
    groups: tuple[int, ...] | None = None
    uid = as_user.uid if as_user else None
    if users.effective_uid() == 0:
        if as_user is not None and gid is not None:
            groups = users.groups_of(as_user, gid)
        elif gid is not None:
            groups = (gid,)
    elif uid == users.effective_uid() and service.group is None:
        uid = gid = None  # that is who we are
    elif uid is not None or gid is not None:
        who = f"user {service.user}" if service.user is not None else f"group {service.group}"
        raise InputError(f"cannot run as {who}: the appliance itself is not root")
    environment = {"PATH": _PATH}
    try:
        account = as_user or users.find_account(str(users.effective_uid()))
        environment |= {"HOME": account.home, "USER": account.name, "LOGNAME": account.name, "SHELL": account.shell}
    except ApplianceError:
        pass  # an unreadable /etc/passwd matters only to units that name a user
    environment |= service.environment
    if invocation:
        environment["INVOCATION_ID"] = invocation
    if notify_address:
        environment["NOTIFY_SOCKET"] = notify_address
    return Command(
        argv=service.command,
        environment=environment,
        directory=service.working_directory,
        cgroup=cgroup,
        output=output,
        uid=uid,
        gid=gid,
        groups=groups,
        umask=int(service.umask, 8),
        options=options,
        descriptors=descriptors,
    )
