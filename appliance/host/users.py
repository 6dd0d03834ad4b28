"""Accounts, from /etc/passwd and /etc/group as they are now: no NSS, no libc, so it works in an empty root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.errors import NotFoundError
from appliance.host import files
from appliance.host.files import translate

_PASSWD = "/etc/passwd"
_GROUP = "/etc/group"


@dataclass(frozen=True)
class Account:
    """One line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


def find_account(name_or_number: str) -> Account:
    """By name; a number needs no entry. Raises NotFoundError."""
    number = int(name_or_number) if name_or_number.isdecimal() else None
    for fields in _lines(_PASSWD, 7):
        if fields[0] == name_or_number or (number is not None and fields[2] == str(number)):
            return Account(fields[0], int(fields[2]), int(fields[3]), fields[5] or "/", fields[6] or "/bin/sh")
    if number is not None:
        return Account(name_or_number, number, number, "/", "/bin/sh")
    raise NotFoundError(f"cannot find user {name_or_number}: {_PASSWD} has no such account", where=_PASSWD)


def find_group(name_or_number: str) -> int:
    """The number of a group; a number needs no entry. Raises NotFoundError."""
    for fields in _lines(_GROUP, 3):
        if fields[0] == name_or_number:
            return int(fields[2])
    if name_or_number.isdecimal():
        return int(name_or_number)
    raise NotFoundError(f"cannot find group {name_or_number}: {_GROUP} has no such group", where=_GROUP)


def group_name(number: int) -> str:
    """Its name; the number itself when it has none."""
    return next((fields[0] for fields in _lines(_GROUP, 3) if fields[2] == str(number)), str(number))


def groups_of(account: Account, first: int) -> tuple[int, ...]:
    """The groups a login of that account would have, ``first`` in front."""
    more = [
        int(fields[2])
        for fields in _lines(_GROUP, 4)
        if account.name in fields[3].split(",") and fields[2].isdecimal() and int(fields[2]) != first
    ]
    return (first, *dict.fromkeys(more))


def effective_uid() -> int:
    """As whom we act."""
    return os.geteuid()


_read: dict[str, tuple[object, list[list[str]]]] = {}  # path -> what told its version apart, its lines


def _lines(path: str, fields_min: int) -> Iterator[list[str]]:
    try:
        it = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise translate(exc, "read", path) from exc
    version = (it.st_mtime_ns, it.st_ctime_ns, it.st_ino, it.st_size)
    if path not in _read or _read[path][0] != version:
        lines = files.read_bytes(path).decode(errors="surrogateescape").splitlines()
        split = [line.split(":") for line in lines if not line.startswith("#")]
        _read[path] = version, [fields for fields in split if len(fields) > 2 and fields[2].isdecimal()]
    for fields in _read[path][1]:
        if len(fields) >= fields_min:
            yield fields


def has_account(name_or_number: str | int) -> bool:
    """Whether /etc/passwd has that name, or an account or group of that number."""
    if isinstance(name_or_number, str):
        return any(fields[0] == name_or_number for fields in _lines(_PASSWD, 7))
    number = str(name_or_number)
    return any(number in (fields[2], fields[3]) for fields in _lines(_PASSWD, 7)) or any(
        fields[2] == number for fields in _lines(_GROUP, 3)
    )


def uids_in_use() -> frozenset[int]:
    """Of all processes there are."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found.add(os.stat(f"/proc/{name}").st_uid)
    return frozenset(found)
