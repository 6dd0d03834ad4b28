"""Users, roles and permissions: between etcd's buckets (authpb of etcd 3.4 and 3.5) and the book our store keeps. Pure.

The book is JSON: what etcdapi/auth_book.py writes. Passwords are kept by both as bcrypt makes them, so they go along.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from appliance.migration.protobuf import NUMBER, bytes_field, fields, listed, number_field, only_bytes, whole

BOOK_FACT = b"auth/book"  # under this name our store keeps it
AUTH, USERS, ROLES = b"auth", b"authUsers", b"authRoles"
_ENABLED, _REVISION = b"authEnabled", b"authRevision"
_FORMAT = 1

Pairs = Iterable[tuple[bytes, bytes]]


def buckets_of(book: bytes) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """What stands in etcd's buckets for this book, in order."""
    found: Mapping[str, Any] = json.loads(book)
    return {
        AUTH: [(_ENABLED, bytes((bool(found["enabled"]),))), (_REVISION, NUMBER.pack(found["revision"]))],
        USERS: sorted((name.encode(), _user(name, *rest)) for name, rest in found["users"].items()),
        ROLES: sorted((name.encode(), _role(name, permissions)) for name, permissions in found["roles"].items()),
    }


def _user(name: str, secret: str, roles: list[str]) -> bytes:
    message = [bytes_field(1, name.encode()), bytes_field(2, secret.encode())]
    message += [bytes_field(3, role.encode()) for role in sorted(roles)]
    options = number_field(1, 0 if secret else 1)  # no_password
    return b"".join((*message, bytes_field(4, options)))


def _role(name: str, permissions: list[tuple[int, str, str]]) -> bytes:
    message = [bytes_field(1, name.encode())]
    for kind, key, end in permissions:
        permission = number_field(1, kind) + bytes_field(2, _bytes(key)) + bytes_field(3, _bytes(end))
        message.append(bytes_field(2, permission, always=True))
    return b"".join(message)


def book_of(auth: Pairs, users: Pairs, roles: Pairs) -> bytes:
    """The other way; empty when there is nothing to keep. Raises ValueError."""
    facts = dict(auth)
    revision = int.from_bytes(facts.get(_REVISION, b""), "big") or 1
    known = {name.decode(): _decoded_user(data) for name, data in users}
    permitted = {name.decode(): _decoded_role(data) for name, data in roles}
    enabled = is_enabled(facts.items())
    if not (known or permitted or enabled or revision > 1):
        return b""
    book = {"format": _FORMAT, "enabled": enabled, "revision": revision, "users": known, "roles": permitted}
    return json.dumps(book, indent=1).encode()


def is_enabled(auth: Pairs) -> bool:
    """Whether everybody is asked who they are."""
    return dict(auth).get(_ENABLED) == b"\x01"


def _decoded_user(data: bytes) -> list[object]:
    found = listed(fields(data))
    secret = only_bytes(found, 2).decode()
    without = whole(dict(fields(only_bytes(found, 4))).get(1, 0))
    return ["" if without else secret, sorted({only_bytes({3: [role]}, 3).decode() for role in found.get(3, ())})]


def _decoded_role(data: bytes) -> list[tuple[int, str, str]]:
    permissions = []
    for each in listed(fields(data)).get(2, ()):
        found = listed(fields(only_bytes({2: [each]}, 2)))
        kind = whole(found.get(1, [0])[-1])
        if kind > 2:
            raise ValueError(f"{kind} is no kind of permission")
        permissions.append((kind, _text(only_bytes(found, 2)), _text(only_bytes(found, 3))))
    return permissions


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
