"""Takes secrets out of texts before they leave the host. Pure. It rather takes too much."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

MARK = "***"
_LENGTH_OF_A_SECRET = 6  # a shorter value of an environment ("1", "yes") may well be said elsewhere
_USERINFO = re.compile(r"(\w+://)[^/\s\"'@]+@")
_SECRET_WORD = r"(?:pass(?:word|wd|phrase)?|secret|token|credentials?|private|api_?key|access_?key|auth\w*|bearer)"
_ASSIGNED = re.compile(
    rf"""(?P<name>["']?[\w.-]*{_SECRET_WORD}[\w.-]*["']?\s*[:=]\s*)"""
    rf"""(?P<value>{'"' * 3}[\s\S]*?{'"' * 3}|'''[\s\S]*?'''|"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,}}\]]+)""",
    re.IGNORECASE,
)
_IS_A_PLACE = re.compile(r"(?:_|-)(?:file|path|dir)\b", re.IGNORECASE)
_FLAG = re.compile(
    rf"""(--?[\w-]*{_SECRET_WORD}[\w-]*["']?(?:\s*,\s*["']|[\s=]))(?:"[^"]*"|'[^']*'|[^\s"',]+)""", re.IGNORECASE
)
_USER = re.compile(r"""((?:-u|--user)["']?(?:\s*,\s*["']|[\s=]["']?)[^\s:"',]+:)[^\s"',]+""")
_HEADER_LINE = re.compile(r"""(authorization\s*:\s*)(?:\w+\s+)?[^\s"']+""", re.IGNORECASE)
_PEM = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END [A-Z ]*PRIVATE KEY-----)", re.DOTALL)
_HEADER = re.compile(r"^\s*\[{1,2}\s*(?P<name>[^\]]+?)\s*\]{1,2}", re.MULTILINE)
_ENVIRONMENT_VALUE = re.compile(r"""^(?P<name>\s*["']?[\w.-]+["']?\s*=\s*)(?P<value>.+)$""")
_ENVIRONMENT_INLINE = re.compile(
    r"^(?P<name>(?!\s*#).*?\b(?:environment|credential_texts|SetCredential)\b[^={\[]*=\s*)(?P<value>.+)$", re.IGNORECASE
)
_TABLES_OF_SECRETS = ("environment", "credential_texts")
_LONG_QUOTE = re.compile(r'"""|' + "'''")


def redact(text: str) -> str:
    """Passwords in addresses, private keys, and whatever is assigned to a name that sounds secret."""
    text = _PEM.sub(rf"\1{MARK}\2", text)
    text = _USERINFO.sub(rf"\1{MARK}@", text)
    text = _FLAG.sub(rf"\1{MARK}", text)
    text = _USER.sub(rf"\1{MARK}", text)
    text = _HEADER_LINE.sub(rf"\1{MARK}", text)
    return _ASSIGNED.sub(_unless_place, text)


def redact_unit(text: str) -> str:
    """The same for a unit file, and no value of its environment, or of its credentials, at all.

    Line by line, so that it looks as on the host; where TOML's own reader still finds a value, it is written anew.
    """
    clean = redact("\n".join(_without_environment(text))) + "\n"
    data = _read(text)
    if data is None:
        return clean
    for secret in sorted(set(_environment_of(data)), key=len, reverse=True):
        if len(secret) >= _LENGTH_OF_A_SECRET:
            clean = clean.replace(secret, MARK)
    left = _read(clean)
    if left is None or any(value != MARK for value in _environment_of(left)):
        from appliance.schema import to_toml

        return "# Not line by line as on the host.\n" + redact(to_toml(_masked(data)))
    return clean


def _without_environment(text: str) -> Iterator[str]:
    in_environment = goes_on = False
    open_brackets = 0
    quote = ""  # of a string of several lines that is being left out
    for line in text.splitlines():
        if quote:
            quote = "" if quote in line else quote
        elif goes_on:  # systemd's, after a backslash
            goes_on = line.endswith("\\")
        elif open_brackets > 0:
            open_brackets += _depth(line)
        elif header := _HEADER.match(line):
            in_environment = header["name"].split(".")[-1].strip(" \"'").lower() in _TABLES_OF_SECRETS
            yield line
        elif found := (_ENVIRONMENT_VALUE if in_environment else _ENVIRONMENT_INLINE).match(line):
            value = found["value"]
            opened = _LONG_QUOTE.findall(value)
            quote = opened[0] if len(opened) % 2 else ""
            open_brackets = 0 if quote else _depth(found["name"] + value)
            goes_on = value.endswith("\\")
            yield f'{found["name"]}"{MARK}"' + "}" * (found["name"].count("{") - found["name"].count("}"))
        elif not in_environment or not line.strip() or line.lstrip().startswith("#"):
            yield line


def _read(text: str) -> dict[str, Any] | None:
    import tomli

    try:
        return tomli.loads(text)
    except (tomli.TOMLDecodeError, RecursionError):
        return None


def _environment_of(data: Any, *, inside: bool = False) -> Iterator[str]:
    """Every value of an environment."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _environment_of(value, inside=inside or key.lower() in _TABLES_OF_SECRETS)
    elif isinstance(data, list):
        for one in data:
            yield from _environment_of(one, inside=inside)
    elif inside:
        yield str(data)


def _masked(data: Any, *, inside: bool = False) -> Any:
    if isinstance(data, dict):
        return {key: _masked(value, inside=inside or key.lower() in _TABLES_OF_SECRETS) for key, value in data.items()}
    if isinstance(data, list):
        return [_masked(one, inside=inside) for one in data]
    return MARK if inside else data


def _unless_place(found: re.Match[str]) -> str:
    if _IS_A_PLACE.search(found["name"]):
        return found[0]
    quote = found["value"][0] if found["value"][0] in "\"'" else ""
    return f"{found['name']}{quote}{MARK}{quote}"


def _depth(text: str) -> int:
    bare = re.sub(r""""(?:[^"\\]|\\.)*"|'[^']*'|#.*""", "", text)
    return sum(bare.count(one) for one in "[{") - sum(bare.count(one) for one in "]}")
