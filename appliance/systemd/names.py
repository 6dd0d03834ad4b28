"""Names of systemd's units: kinds, and the targets that every host is taken to have reached. Pure."""

from __future__ import annotations

import re

KINDS = (".service", ".timer", ".socket", ".path", ".target")  # files that we read
OTHERS = (".mount", ".automount", ".swap", ".slice", ".scope", ".device", ".snapshot")  # named, never there
_REACHED = (
    "basic boot-complete cloud-init cryptsetup cryptsetup-pre default factory-reset first-boot-complete getty "
    "getty-pre graphical integritysetup integritysetup-pre local-fs local-fs-pre machines multi-user network "
    "network-online network-pre nfs-client nss-lookup nss-user-lookup paths remote-cryptsetup remote-fs remote-fs-pre "
    "remote-veritysetup rpcbind slices sockets ssh-access storage-target-mode swap sysinit system-update-pre time-set "
    "time-sync timers tpm2 usb-gadget veritysetup veritysetup-pre runlevel2 runlevel3 runlevel4 runlevel5"
)
_NOT_REACHED = (
    "bluetooth ctrl-alt-del emergency exit final halt hibernate hybrid-sleep initrd initrd-fs initrd-root-device "
    "initrd-root-fs initrd-switch-root initrd-usr-fs kbrequest kexec poweroff printer reboot rescue runlevel0 "
    "runlevel1 runlevel6 shutdown sigpwr sleep smartcard soft-reboot sound suspend suspend-then-hibernate "
    "system-update umount"
)
REACHED = frozenset(f"{one}.target" for one in _REACHED.split())
NOT_REACHED = frozenset(f"{one}.target" for one in _NOT_REACHED.split())
_SYSTEMDS_OWN = re.compile(r"(systemd-[a-z0-9@:._-]+|syslog|dbus|dbus-org\..*)\.(service|socket|timer|path|target)")


def is_built_in(name: str) -> bool:
    """A target that needs no file: up always, or (shutdown and the like) never of interest."""
    return name in REACHED or name in NOT_REACHED


def is_systemds_own(name: str) -> bool:
    """Part of systemd itself, or of what comes with it: the host has it by itself, or not at all."""
    return _SYSTEMDS_OWN.fullmatch(name) is not None


def kind_of(file_name: str) -> str:
    """``.service`` of ``web.service``; empty of what is no unit file of systemd's."""
    if file_name.startswith("."):
        return ""
    return next((kind for kind in KINDS if file_name.endswith(kind) and len(file_name) > len(kind)), "")


def unit_of_file(file_name: str) -> str:
    """Our name of it: ``web`` of ``web.service``, and ``web.timer`` as it is."""
    return file_name.removesuffix(".service")


def drop_in_directories(file_name: str) -> tuple[str, ...]:
    """Where its drop-ins lie, the least specific first: ``service.d``, ``foo-.service.d``, ``foo-bar.service.d``."""
    kind = kind_of(file_name)
    stem = file_name.removesuffix(kind)
    prefix, at, instance = stem.partition("@")
    parts = prefix.split("-")
    found = [f"{kind[1:]}.d"]
    found += [f"{'-'.join(parts[:count])}-{kind}.d" for count in range(1, len(parts))]
    if at and instance:
        found.append(f"{prefix}@{kind}.d")
    return tuple(dict.fromkeys((*found, f"{file_name}.d")))
