"""What the specifiers of unit files stand for on this host, by letter (systemd.unit(5), "Specifiers")."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from functools import cache

from appliance.errors import ApplianceError
from appliance.host import clock, files, node, users

_OS_RELEASE = {"A": "IMAGE_VERSION", "B": "BUILD_ID", "M": "IMAGE_ID", "o": "ID", "w": "VERSION_ID", "W": "VARIANT_ID"}

_ARCHITECTURES = {
    "x86_64": "x86-64", "i686": "x86", "i386": "x86", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm",
    "ppc64le": "ppc64-le",
}  # fmt: skip


@cache
def _of_this_boot() -> Mapping[str, str]:
    said = read_variables("/etc/os-release") or read_variables("/usr/lib/os-release")
    found = {letter: said.get(key, "") for letter, key in _OS_RELEASE.items()}
    release, machine = node.kernel()
    found |= {"v": release, "a": _ARCHITECTURES.get(machine, machine), "b": clock.boot_id().replace("-", "")}
    if machine_id := _first_line("/etc/machine-id"):
        found["m"] = machine_id
    uid, gid = os.geteuid(), os.getegid()
    found |= {"U": str(uid), "G": str(gid)}
    try:
        account = users.find_account(str(uid))
        found |= {"u": account.name, "h": account.home, "s": account.shell, "g": users.group_name(gid)}
    except ApplianceError:
        found |= {"u": str(uid), "h": "/", "s": "/bin/sh", "g": str(gid)}
    return found


def host_facts() -> Mapping[str, str]:
    """All of them; the name of the host may change, the rest stays as it is until the next start."""
    name = node.hostname()
    pretty = read_variables("/etc/machine-info").get("PRETTY_HOSTNAME") or name
    return {**_of_this_boot(), "H": name, "l": name.partition(".")[0], "q": pretty}


def read_variables(path: str) -> Mapping[str, str]:
    """NAME=value lines, quoted as a shell would; empty when there is no such file."""
    found = {}
    try:
        lines = files.read_text(path, size_max=1 << 16).splitlines()
    except ApplianceError:
        return {}
    for line in lines:
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            try:
                found[name] = " ".join(shlex.split(value))
            except ValueError:
                found[name] = value
    return found


def _first_line(path: str) -> str:
    try:
        return files.read_text(path, size_max=1 << 12).partition("\n")[0].strip()
    except ApplianceError:
        return ""
