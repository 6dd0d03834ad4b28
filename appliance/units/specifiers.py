"""``%i``, ``%n``, ``%H``: what stands for something else in the strings of a unit file, as in systemd. Pure.

In a template and its instances always; in other files only where ``[unit] specifiers = true`` says so, for there a
``%`` has always been a plain character (``date +%F``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from appliance.errors import InputError

_ONE = re.compile(r"%(.?)", re.DOTALL)
_KIND = re.compile(r"\.(timer|socket|path|target)\Z")
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")
FIXED: Mapping[str, str] = {
    "C": "/var/cache", "E": "/etc", "L": "/var/log", "S": "/var/lib", "t": "/run", "T": "/tmp", "V": "/var/tmp",
    "D": "/usr/share", "%": "%",
}  # fmt: skip
HOST = {
    "a": "the architecture", "A": "IMAGE_VERSION of /etc/os-release", "b": "the boot id",
    "B": "BUILD_ID of /etc/os-release", "g": "our group", "G": "our group's number", "h": "our home directory",
    "H": "the host name", "l": "the short host name", "m": "the machine id (/etc/machine-id)",
    "M": "IMAGE_ID of /etc/os-release", "o": "ID of /etc/os-release", "q": "the pretty host name", "s": "our shell",
    "u": "our user", "U": "our user's number", "v": "the kernel release", "w": "VERSION_ID of /etc/os-release",
    "W": "VARIANT_ID of /etc/os-release",
}  # fmt: skip


def split_name(name: str) -> tuple[str, str]:
    """Prefix and instance: ``web`` and ``1`` of ``web@1``, and of ``web@1.timer``, as systemd calls its kinds."""
    prefix, _, instance = _KIND.sub("", name).partition("@")
    return prefix, instance


def template_of(name: str) -> str:
    """``web@`` of ``web@1``, ``web@.timer`` of ``web@1.timer``; empty when that is no instance."""
    prefix, instance = split_name(name)
    return f"{prefix}@{_ending(name)}" if instance else ""


def is_template(name: str) -> bool:
    """``web@``, ``web@.timer``: of which units are made."""
    return "@" in name and not split_name(name)[1]


def instance_name(template: str, instance: str) -> str:
    """``web@1`` of ``web@``."""
    ending = _ending(template)
    return f"{template.removesuffix(ending)}{instance}{ending}"


def _ending(name: str) -> str:
    found = _KIND.search(name)
    return found[0] if found else ""


def unescape(text: str) -> str:
    r"""As ``systemd-escape --unescape``: ``-`` is a slash, ``\x2d`` a dash."""
    plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text.replace("-", "/"))
    try:  # each escape is a byte of UTF-8
        return plain.encode("latin-1").decode()
    except UnicodeError:
        return plain


def expander(name: str, file: str, host: Mapping[str, str], *, suffix: str = "") -> Callable[[str], str]:
    """Puts in what each specifier stands for; ``suffix`` is what ``%n`` has after the name (".service").

    The function raises InputError for one that is unknown, or that this host has no value for.
    """
    prefix, instance = split_name(name)
    last = prefix.rpartition("-")[2]
    known = {
        **FIXED, **host, "n": name + suffix, "N": _KIND.sub("", name), "p": prefix, "P": unescape(prefix),
        "i": instance,
        "I": unescape(instance), "j": last, "J": unescape(last), "f": "/" + unescape(instance or prefix).lstrip("/"),
        "d": f"/run/credentials/{_KIND.sub('', name)}.service", "y": file, "Y": file.rpartition("/")[0],
    }  # fmt: skip

    def put(found: re.Match[str]) -> str:
        letter = found[1]
        value = known.get(letter)
        if value is None and letter in HOST:
            raise InputError(f"found %{letter}, but this host does not know {HOST[letter]}")
        if value is None:
            what = f"the unknown specifier %{letter}" if letter else "a % at the end"
            raise InputError(f"found {what}; write %% for a percent sign")
        return value

    return lambda text: _ONE.sub(put, text) if "%" in text else text
