"""etcd's configuration file (``--config-file``, ETCD_CONFIG_FILE): as flags. JSON, or the part of YAML that it takes.

That part: ``key: value`` lines, one table or list below a key, quotes, comments. Anything else is refused by its line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from appliance.errors import InputError

_TABLES: Mapping[str, Mapping[str, str]] = {
    "client-transport-security": {
        "cert-file": "cert-file", "key-file": "key-file", "client-cert-auth": "client-cert-auth",
        "trusted-ca-file": "trusted-ca-file", "auto-tls": "auto-tls", "client-crl-file": "client-crl-file",
    },
    "peer-transport-security": {
        "cert-file": "peer-cert-file", "key-file": "peer-key-file", "client-cert-auth": "peer-client-cert-auth",
        "trusted-ca-file": "peer-trusted-ca-file", "auto-tls": "peer-auto-tls", "client-crl-file": "peer-crl-file",
    },
}  # fmt: skip
_LINE = re.compile(r"""(?P<indent> *)(?P<key>[A-Za-z][\w.-]*|"[^"\\]+"|'[^']+')\s*:(?:\s+(?P<value>.*))?""")
_ITEM = re.compile(r"(?P<indent> *)-\s+(?P<value>\S.*)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_NULLS = {"", "~", "null", "Null", "NULL"}

Value = str | list[str] | dict[str, str] | None


def flags_of(text: str, where: str) -> dict[str, str]:
    """Flags and their texts; what it leaves out, or sets to null, is not there. Raises InputError."""
    found: dict[str, str] = {}
    for key, value in (_json(text, where) if text.lstrip().startswith("{") else _yaml(text, where)).items():
        if isinstance(value, dict):
            names = _TABLES.get(key)
            if names is None:
                raise InputError(f"cannot read {where}: {key} is no table", where=where)
            found |= {names.get(inner, f"{key}.{inner}"): text for inner, text in value.items()}
        elif isinstance(value, list):
            found[key] = ",".join(value)
        elif value is not None:
            found[key] = value
    return found


def _json(text: str, where: str) -> dict[str, Value]:
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise InputError(f"cannot read {where}: {exc}", where=where) from exc
    return {key: _from_json(value, f"{where}: {key}") for key, value in found.items()}


def _from_json(value: object, where: str) -> Value:
    match value:
        case None:
            return None
        case dict():
            return {str(key): _word(each, where) for key, each in value.items()}
        case list():
            return [_word(each, where) for each in value]
        case _:
            return _word(value, where)


def _word(value: object, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise InputError(f"cannot read {where}: a text, a number or a truth value is wanted", where=where)


def _yaml(text: str, where: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    above = ""  # the key that tables and lists stand below
    for number, line in enumerate(text.splitlines(), 1):
        at = f"{where}: line {number}"
        if not line.strip() or line.lstrip().startswith("#") or line in ("---", "..."):
            continue
        if item := _ITEM.fullmatch(line.rstrip()):
            listed = found.get(above)
            if not above or not isinstance(listed, list | None):
                raise _unreadable(at, line)
            found[above] = [*(listed or []), _scalar(item["value"], at)]
            continue
        pair = _LINE.fullmatch(line.rstrip())
        if pair is None:
            raise _unreadable(at, line)
        key, value = pair["key"].strip("\"'"), (pair["value"] or "").strip()
        if pair["indent"]:
            table = found.get(above)
            if not above or not isinstance(table, dict | None):
                raise _unreadable(at, line)
            scalar = _scalar(value, at)
            found[above] = {**(table or {}), **({key: scalar} if scalar not in _NULLS else {})}
            continue
        if key in found:
            raise InputError(f"cannot read {at}: {key} is there twice", where=where)
        flow = _COMMENT.sub("", value).strip()
        if flow.startswith("["):
            if not flow.endswith("]"):
                raise _unreadable(at, line)
            found[key] = [_scalar(each.strip(), at) for each in flow[1:-1].split(",") if each.strip()]
            above = ""
        elif _COMMENT.sub("", value).strip() in _NULLS:
            found[key], above = None, key
        else:
            found[key], above = _scalar(value, at), ""
    return found


def _scalar(value: str, at: str) -> str:
    """One value; quoted or not, with or without a comment behind it."""
    if value[:1] == '"':
        end = re.match(r'"(?:[^"\\]|\\.)*"', value)
        if end is None or _COMMENT.sub("", value[end.end() :]).strip():
            raise _unreadable(at, value)
        try:
            return str(json.loads(end[0]))
        except ValueError as exc:
            raise _unreadable(at, value) from exc
    if value[:1] == "'":
        end = re.match(r"'(?:[^']|'')*'", value)
        if end is None or _COMMENT.sub("", value[end.end() :]).strip():
            raise _unreadable(at, value)
        return end[0][1:-1].replace("''", "'")
    plain = _COMMENT.sub("", value).strip()
    if plain[:1] in tuple("[]{}&*!|>%@`,?") or plain.startswith("- "):
        raise _unreadable(at, value)
    return plain


def _unreadable(at: str, line: str) -> InputError:
    return InputError(f"cannot read {at}: {line.strip()!r} is not what an etcd's configuration has", where=at)
