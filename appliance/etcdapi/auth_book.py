"""Users, roles and what they permit: the whole of it as one value that never changes, and the rules of changing. Pure.

Texts, order of checks and the special place of root are etcd's (auth/store.go).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from appliance.errors import CorruptError
from appliance.etcdapi.statuses import refused

ROOT = "root"
READ, WRITE, READWRITE = 0, 1, 2
_FORMAT = 1

T = TypeVar("T")
Interval = tuple[bytes, bytes | None]  # from, to (not with it; None: to the end)


class Permission(NamedTuple):
    """``kind`` of access to a key, or to a range as requests give one."""

    kind: int
    key: bytes
    range_end: bytes = b""


class User(NamedTuple):
    """``secret`` is what passwords.py made of the password; empty: there is none, only a certificate will do."""

    secret: str
    roles: tuple[str, ...] = ()


def interval(key: bytes, range_end: bytes | None) -> Interval:
    """What a request or a permission speaks of."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == b"\0" else range_end


@dataclass(frozen=True)
class Book:
    """``revision`` counts changes. Every verb returns the next one, or raises RefusedError."""

    enabled: bool = False
    revision: int = 1
    users: Mapping[str, User] = field(default_factory=lambda: MappingProxyType({}))
    roles: Mapping[str, tuple[Permission, ...]] = field(default_factory=lambda: MappingProxyType({}))

    # What is so

    def is_root(self, user: str) -> bool:
        """Whether it may do anything."""
        found = self.users.get(user)
        return found is not None and ROOT in found.roles

    def permits(self, user: str, kind: int) -> tuple[Interval, ...]:
        """What this user may read (or write): intervals in order, apart from each other."""
        found = self.users.get(user)
        wanted = [
            interval(permission.key, permission.range_end)
            for role in (found.roles if found is not None else ())
            for permission in self.roles.get(role, ())
            if permission.kind in (kind, READWRITE)
        ]
        wanted.sort(key=lambda each: each[0])
        merged: list[Interval] = []
        for start, end in wanted:
            if merged and (merged[-1][1] is None or start <= merged[-1][1]):
                last = merged[-1][1]
                merged[-1] = (merged[-1][0], None if last is None or end is None else max(last, end))
            else:
                merged.append((start, end))
        return tuple(merged)

    # What changes it

    def with_enabled(self) -> Book:
        """From now on everybody is asked who they are."""
        if self.enabled:
            return self
        if ROOT not in self.users:
            raise refused("root user missing")
        if not self.is_root(ROOT):
            raise refused("root role missing")
        return replace(self, enabled=True)

    def with_disabled(self) -> Book:
        """Nobody is asked."""
        return replace(self, enabled=False, revision=self.revision + 1) if self.enabled else self

    def with_user(self, name: str, secret: str) -> Book:
        """A new one."""
        if not name:
            raise refused("user empty")
        if name in self.users:
            raise refused("user exists")
        return self._users({**self.users, name: User(secret)})

    def without_user(self, name: str) -> Book:
        """It is gone."""
        if self.enabled and name == ROOT:
            raise refused("invalid auth management")
        self.user(name)
        return self._users({other: user for other, user in self.users.items() if other != name})

    def with_password(self, name: str, secret: str) -> Book:
        """Another one."""
        return self._users({**self.users, name: self.user(name)._replace(secret=secret)})

    def with_granted(self, name: str, role: str) -> Book:
        """The user has the role, too. ``root`` is one even where nobody made it."""
        user = self.user(name)
        if role != ROOT:
            self.role(role)
        if role in user.roles:
            return self
        return self._users({**self.users, name: user._replace(roles=tuple(sorted((*user.roles, role))))})

    def with_revoked(self, name: str, role: str) -> Book:
        """The user has it no more."""
        if self.enabled and name == ROOT and role == ROOT:
            raise refused("invalid auth management")
        user = self.user(name)
        if role not in user.roles:
            raise refused("role not granted")
        return self._users({**self.users, name: _without(user, role)})

    def with_role(self, name: str) -> Book:
        """A new one that permits nothing."""
        if not name:
            raise refused("role empty")
        if name in self.roles:
            raise refused("role exists")
        return self._roles({**self.roles, name: ()})

    def without_role(self, name: str) -> Book:
        """It is gone, from users too."""
        if self.enabled and name == ROOT:
            raise refused("invalid auth management")
        self.role(name)
        book = self._roles({other: permissions for other, permissions in self.roles.items() if other != name})
        return replace(book, users=_frozen({other: _without(user, name) for other, user in self.users.items()}))

    def with_permission(self, role: str, permission: Permission) -> Book:
        """A role's permission of exactly this range, new or of another kind."""
        kept = [other for other in self.role(role) if other[1:] != permission[1:]]
        return self._roles({**self.roles, role: tuple(sorted((*kept, permission), key=lambda each: each.key))})

    def without_permission(self, role: str, key: bytes, range_end: bytes) -> Book:
        """The same, away."""
        permissions = self.role(role)
        kept = tuple(each for each in permissions if each[1:] != (key, range_end))
        if len(kept) == len(permissions):
            raise refused("permission not granted")
        return self._roles({**self.roles, role: kept})

    def user(self, name: str) -> User:
        """Raises RefusedError."""
        if name not in self.users:
            raise refused("user not found")
        return self.users[name]

    def role(self, name: str) -> tuple[Permission, ...]:
        """Raises RefusedError."""
        if name not in self.roles:
            raise refused("role not found")
        return self.roles[name]

    def _users(self, users: dict[str, User]) -> Book:
        return replace(self, users=_frozen(users), revision=self.revision + 1)

    def _roles(self, roles: dict[str, tuple[Permission, ...]]) -> Book:
        return replace(self, roles=_frozen(roles), revision=self.revision + 1)

    # As bytes

    def encoded(self) -> bytes:
        """For a file."""
        return json.dumps(
            {
                "format": _FORMAT, "enabled": self.enabled, "revision": self.revision,
                "users": {name: [user.secret, list(user.roles)] for name, user in self.users.items()},
                "roles": {
                    name: [[kind, _text(key), _text(end)] for kind, key, end in permissions]
                    for name, permissions in self.roles.items()
                },
            },
            indent=1,
        ).encode()  # fmt: skip


def decoded(data: bytes) -> Book:
    """Raises CorruptError: who cannot read the book must not let anybody in."""
    try:
        found = json.loads(data)
        if found["format"] != _FORMAT:
            raise CorruptError(f"cannot read users and roles: they are of format {found['format']}, we know {_FORMAT}")
        return Book(
            bool(found["enabled"]), int(found["revision"]),
            _frozen({str(name): User(str(secret), tuple(roles)) for name, (secret, roles) in found["users"].items()}),
            _frozen(
                {
                    str(name): tuple(Permission(int(kind), _bytes(key), _bytes(end)) for kind, key, end in permissions)
                    for name, permissions in found["roles"].items()
                }
            ),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CorruptError(f"cannot read users and roles: {exc}") from exc


def _without(user: User, role: str) -> User:
    return user._replace(roles=tuple(other for other in user.roles if other != role))


def _frozen(mapping: dict[str, T]) -> Mapping[str, T]:
    return MappingProxyType(dict(sorted(mapping.items())))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
