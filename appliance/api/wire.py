"""Values to and from JSON. Pure. What comes from a caller raises only InputError."""

from __future__ import annotations

import base64
import binascii
import enum
import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from typing import Any

from appliance.errors import ApplianceError, InputError

SECRET_WORDS = ("password", "passwd", "secret", "token", "credential", "private_key", "passphrase", "authorization")
REDACTED = "(redacted)"


def plain(value: Any) -> Any:
    """The same in dicts, lists, strings and numbers: what has fields by field, bytes as base64, enums by value."""
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else "infinity" if value > 0 else None
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a NamedTuple
        return {name: plain(item) for name, item in zip(value._fields, value, strict=True)}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise AssertionError(f"no JSON form for {type(value).__name__}")


def dumps(value: Any) -> bytes:
    """Compact JSON, one line, ASCII."""
    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False).encode()


def error_body(error: ApplianceError) -> dict[str, Any]:
    """What every failing answer carries."""
    return {"error": {"kind": error.kind, "message": error.message, "where": error.where}}


def redacted(document: Any) -> Any:
    """``plain(document)`` without what looks secret: by the key's name, and passwords inside URLs."""
    return _redact(plain(document))


def _redact(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: REDACTED if item not in (None, "", [], {}) and _is_secret(key) else _redact(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_redact(item) for item in value]
    if isinstance(value, str) and "://" in value and "@" in value:
        scheme, _, rest = value.partition("://")
        authority, slash, path = rest.partition("/")
        user, at, host = authority.rpartition("@")
        if at and ":" in user:
            return f"{scheme}://{user.partition(':')[0]}:{REDACTED}@{host}{slash}{path}"
    return value


def _is_secret(key: str) -> bool:
    name = key.lower().replace("-", "_")
    return not name.endswith(("_file", "_path")) and any(word in name for word in SECRET_WORDS)


def object_untrusted(body: bytes) -> Mapping[str, Any]:
    """A JSON object from a request; an empty body is an empty object. Raises only InputError."""
    if not body.strip():
        return {}
    try:
        value = json.loads(body.decode("utf-8-sig"))
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "cannot read the request body: it holds half a surrogate pair, which is no text and cannot be kept"
        raise InputError(message, where="body") from None
    except (ValueError, RecursionError) as exc:  # not JSON, not UTF-8, a number of 5,000 digits, 10,000 brackets
        raise InputError(f"cannot read the request body: it is no JSON: {exc}", where="body") from None
    if not isinstance(value, dict):
        raise InputError("cannot read the request body: it is no JSON object", where="body")
    return value


class Fields:
    """Takes typed values out of a request's object or query. Every getter raises only InputError; so does ``done``."""

    def __init__(self, values: Mapping[str, Any], where: str = "body") -> None:
        self._values = values
        self._where = where
        self._taken: set[str] = set()

    def _take(self, name: str) -> Any:
        self._taken.add(name)
        return self._values.get(name)

    def _bad(self, name: str, wanted: str) -> InputError:
        return InputError(f"cannot read {name}: it must be {wanted}", where=f"{self._where}.{name}")

    def bytes_(self, name: str, *, default: bytes | None = None) -> bytes:
        """Base64, as etcd's gateway has it; needed unless there is a default."""
        found = self.bytes_or_none(name)
        if found is not None:
            return found
        if default is None:
            raise self._bad(name, "given, as base64")
        return default

    def bytes_or_none(self, name: str) -> bytes | None:
        """Base64; absent or null is None."""
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._bad(name, "base64 in a string")
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise self._bad(name, "base64 in a string") from None

    def integer(self, name: str, *, default: int = 0, low: int = -(2**63), high: int = 2**63 - 1) -> int:
        """A whole number, also as a decimal string (JSON of 64-bit numbers, and queries)."""
        value = self._take(name)
        if value is None:
            return default
        if isinstance(value, str) and len(value) < 20 and value.isascii() and value.removeprefix("-").isdigit():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._bad(name, f"a whole number from {low} to {high}")
        return value

    def text(self, name: str, *, length_max: int = 256) -> str:
        """A string; absent or null is empty."""
        value = self._take(name)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > length_max:
            raise self._bad(name, f"a string of at most {length_max} characters")
        return value

    def flag(self, name: str) -> bool:
        """True / false, 1 / 0; absent is false."""
        value = self._take(name)
        if value in (None, False, "0", "false") or (value == 0 and isinstance(value, int)):
            return False
        if value in (True, "1", "true", "") or (value == 1 and isinstance(value, int)):
            return True
        raise self._bad(name, "true or false")

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """One of the words; the first is the default."""
        value = self._take(name)
        if value is None:
            return allowed[0]
        if not isinstance(value, str) or value.lower() not in allowed:
            raise self._bad(name, "one of " + ", ".join(allowed))
        return value.lower()

    def objects(self, name: str, *, count_max: int = 1024) -> list[Fields]:
        """A list of objects; absent is empty."""
        value = self._take(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > count_max or not all(isinstance(item, dict) for item in value):
            raise self._bad(name, f"a list of at most {count_max} objects")
        return [Fields(item, f"{self._where}.{name}[{number}]") for number, item in enumerate(value)]

    def object_or_none(self, name: str) -> Fields | None:
        """An object within; absent is None."""
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._bad(name, "an object")
        return Fields(value, f"{self._where}.{name}")

    @property
    def where(self) -> str:
        """The path of this object in the request."""
        return self._where

    def done(self) -> None:
        """Everything the caller sent was asked for."""
        unknown = sorted(set(self._values) - self._taken)
        if unknown:
            known = f"known: {', '.join(sorted(self._taken))}" if self._taken else "nothing is taken here"
            raise InputError(
                f"cannot read {self._where}: it has no {', '.join(unknown)}; {known}",
                where=f"{self._where}.{unknown[0]}",
            )
