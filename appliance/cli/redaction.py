"""Takes secrets out of texts before they leave the host. Pure. It rather takes too much."""

from __future__ import annotations

import re

MARK = "***"
_USERINFO = re.compile(r"(\w+://)[^/\s\"'@]+@")
_SECRET_WORD = r"(?:pass(?:word|wd|phrase)?|secret|token|credentials?|private|api_?key|access_?key|auth\w*|bearer)"
_ASSIGNED = re.compile(
    rf"""(?P<name>["']?[\w.-]*{_SECRET_WORD}[\w.-]*["']?\s*[:=]\s*)(?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,}}\]]+)""",
    re.IGNORECASE,
)
_IS_A_PLACE = re.compile(r"(?:_|-)(?:file|path|dir)\b", re.IGNORECASE)
_FLAG = re.compile(rf"(--?[\w-]*{_SECRET_WORD}[\w-]*[\"']?(?:\s*,\s*[\"']|[\s=]))[^\s\"',]+", re.IGNORECASE)
_PEM = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END [A-Z ]*PRIVATE KEY-----)", re.DOTALL)
_HEADER = re.compile(r"^\s*\[{1,2}\s*(?P<name>[^\]]+?)\s*\]{1,2}", re.MULTILINE)
_ENVIRONMENT_VALUE = re.compile(r"""^(?P<name>\s*["']?[\w.-]+["']?\s*=\s*)(?P<value>.+)$""")
_ENVIRONMENT_INLINE = re.compile(r"^(?P<name>\s*environment\s*=\s*)(?P<value>\{.*|\[.*|\S.*)$", re.IGNORECASE)


def redact(text: str) -> str:
    """Passwords in addresses, private keys, and whatever is assigned to a name that sounds secret."""
    text = _PEM.sub(rf"\1{MARK}\2", text)
    text = _USERINFO.sub(rf"\1{MARK}@", text)
    text = _FLAG.sub(rf"\1{MARK}", text)
    return _ASSIGNED.sub(_unless_place, text)


def redact_unit(text: str) -> str:
    """The same for a unit file, and no value of its environment at all."""
    lines = []
    in_environment = False
    open_brackets = 0
    for line in text.splitlines():
        if header := _HEADER.match(line):
            in_environment = header["name"].split(".")[-1].strip(" \"'").lower() == "environment"
        elif open_brackets > 0:
            open_brackets += _depth(line)
            continue
        elif inline := _ENVIRONMENT_INLINE.match(line):
            open_brackets = _depth(inline["value"])
            line = f'{inline["name"]}"{MARK}"'
        elif in_environment and (pair := _ENVIRONMENT_VALUE.match(line)):
            line = f'{pair["name"]}"{MARK}"'
        elif in_environment and line.strip() and not line.lstrip().startswith("#"):
            continue  # inside a value of several lines
        lines.append(line)
    return redact("\n".join(lines)) + "\n"


def _unless_place(found: re.Match[str]) -> str:
    if _IS_A_PLACE.search(found["name"]):
        return found[0]
    quote = found["value"][0] if found["value"][0] in "\"'" else ""
    return f"{found['name']}{quote}{MARK}{quote}"


def _depth(text: str) -> int:
    bare = re.sub(r""""(?:[^"\\]|\\.)*"|'[^']*'|#.*""", "", text)
    return sum(bare.count(one) for one in "[{") - sum(bare.count(one) for one in "]}")
