"""Settings made from the schema itself: whole documents that are right, and the same with one thing broken."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from appliance.schema.conversion import Conversion, section_fields
from appliance.schema.findings import format_path
from appliance.settings import Settings

STRINGS = (  # what fits some pattern or check somewhere; for each field those that fit there are found by trying
    "web", "node-1.example", "alpha", "127.0.0.1:7780", "[::1]:80", "localhost:2379", "0.0.0.0:443", "off", "none", "",
    "/etc/appliance/some file", "/srv/x", "http://127.0.0.1:7781/", "https://host.example/a", "file:///srv/r",
    "http://proxy:3128", "tcp.example:80", "02:30", "23:59", "sat", "Sunday", "mon", "Europe/Berlin", "UTC",
    "192.0.2.7/24", "2001:db8::7/64", "192.0.2.1", "2001:db8::1", "default", "10.0.0.0/8", "en*", "eth0", "br0",
    "52:54:00:12:34:56", "1000/10s", "unlimited", "$2b$12$" + "a" * 53, "späße", 'with "quotes" and \\', "a\tb",
)  # fmt: skip
DURATIONS = ("0s", "500ms", "1s", "90s", "5m", "1h30m", "1d", "30d")
SIZES = ("0", "1K", "64K", "16M", "2G", 8192, 1 << 30)
NEEDED = {  # without one of these no such table is right
    "HealthCheck": (("http",), ("tcp",), ("command",)),
    "BundleSettings": (("repository",),),
}
Path = tuple[str | int, ...]


def whole(random: Random) -> dict[str, Any]:
    """A document with nothing to find."""
    return _section(random, Settings, {})


def _section(random: Random, wanted: type, rules: Mapping[str, Any]) -> dict[str, Any]:
    known = section_fields(wanted)
    must = [key for key, (_, _, one) in known.items() if _is_required(one)]
    must += random.choice(NEEDED.get(wanted.__name__, ((),)))
    others = [key for key in known if key not in must and key not in sum(NEEDED.get(wanted.__name__, ()), ())]
    made: dict[str, Any] = {}
    while not _is_right(made, wanted):  # a value that its own check or a rule between fields refuses is made anew
        made = {key: _fitting(random, known[key]) for key in must}
    for key in random.sample(others, random.randint(0, len(others))):
        more = {**made, key: _fitting(random, known[key])}
        if _is_right(more, wanted):
            made = more
    return made


def _is_required(one: dataclasses.Field[Any]) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _is_right(table: dict[str, Any], wanted: type) -> bool:
    conversion = Conversion()
    conversion.to_section(table, wanted)
    return not conversion.problems


def _fitting(random: Random, known: tuple[str, Any, dataclasses.Field[Any]]) -> Any:
    _, hint, one = known
    for _ in range(200):
        value = _value(random, hint, one.metadata)
        if not _problems(value, hint, one.metadata):
            return value
    raise AssertionError(f"no value for {one.name}: add one to STRINGS")


def _problems(value: Any, hint: Any, rules: Mapping[str, Any]) -> list[Any]:
    conversion = Conversion()
    conversion._convert(value, hint, ("x",), rules)
    return conversion.problems


def _value(random: Random, hint: Any, rules: Mapping[str, Any]) -> Any:
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        mark = arguments[1]
        return random.choice(SIZES if mark.kind == "size" else DURATIONS)
    if kind in (Union, types.UnionType):
        return _value(random, random.choice([one for one in arguments if one is not type(None)]), rules)
    if kind is Literal:
        return random.choice(arguments)
    if kind is tuple:
        return [_value(random, arguments[0], rules) for _ in range(random.randint(0, 3))]
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return {random.choice(STRINGS): _value(random, arguments[1], {}) for _ in range(random.randint(0, 3))}
    if dataclasses.is_dataclass(hint):
        return _section(random, hint, rules)  # type: ignore[arg-type]
    if hint is bool:
        return random.random() < 0.5
    if hint is float:
        return random.choice((0.0, 0.25, 1.0))
    if hint is int:
        return random.choice((1, 2, 80, 4094, 1000, 65535))
    assert hint is str, hint
    known = tuple((name, rules[name]) for name in ("pattern", "what", "check", "min", "max") if name in rules)
    return random.choice(_strings(known))


@cache
def _strings(rules: tuple[tuple[str, Any], ...]) -> Sequence[str]:
    return [one for one in STRINGS if not _problems(one, str, dict(rules))]


# -- breaking ---------------------------------------------------------------------------------------------------------


def broken(random: Random, document: dict[str, Any]) -> tuple[dict[str, Any], str, str] | None:
    """The same with one fault: (document, the path that must be told, what was done). None: nothing to break."""
    places = list(_places(document, Settings, ()))
    if not places:
        return None
    path, hint, one = random.choice(places)
    match random.choice(("key", "type", "value")):
        case "key":
            wrong = _misspelt(random, str(path[-1]))
            owner = _at(document, path[:-1])
            if wrong in owner or any(wrong in section_fields(owned) for _, owned in _tables(document, Settings, ())):
                return None
            renamed = {wrong if key == path[-1] else key: value for key, value in owner.items()}
            return _with(document, path[:-1], renamed), format_path((*path[:-1], wrong)), "misspelt"
        case "type":
            value = _other_type(hint)
        case _:
            value = random.choice(("\0", -1, "no such thing, anywhere", "999x", [""], 1 << 70))
    if not (found := _problems(value, hint, one.metadata)):
        return None
    inner = found[0].path.removeprefix("x")
    return _with(document, path, value), format_path(path) + inner, f"{value!r}"


def _places(table: Mapping[str, Any], wanted: type, path: Path) -> list[tuple[Path, Any, dataclasses.Field[Any]]]:
    """Every key that stands in the document."""
    return [
        ((*inner, key), section_fields(owned)[key][1], section_fields(owned)[key][2])
        for inner, owned in _tables(table, wanted, path)
        for key in _at(table, inner[len(path) :])
    ]


def _tables(table: Mapping[str, Any], wanted: type, path: Path) -> list[tuple[Path, type]]:
    found = [(path, wanted)]
    for key, value in table.items():
        hint = section_fields(wanted)[key][1]
        for one in (hint, *get_args(hint)):
            if isinstance(one, type) and dataclasses.is_dataclass(one):
                numbered = enumerate(value) if isinstance(value, list) else [(None, value)]
                for number, inner in numbered:
                    found += _tables(inner, one, (*path, key) if number is None else (*path, key, number))
    return found


def _misspelt(random: Random, key: str) -> str:
    at = random.randrange(len(key))
    return random.choice((key[:at] + key[at + 1 :] or "q", key[:at] + "q" + key[at:], key.replace("_", "-") + "s"))


def _other_type(hint: Any) -> Any:
    text = str(hint)
    return 7 if "str" in text or "Literal" in text or "Duration" in text else [[["x"]]]


def _at(document: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        document = document[step]
    return document


def _with(document: Any, path: Sequence[str | int], value: Any) -> Any:
    if not path:
        return value
    step, *rest = path
    if isinstance(document, list):
        return [_with(one, rest, value) if number == step else one for number, one in enumerate(document)]
    return {key: _with(one, rest, value) if key == step else one for key, one in document.items()}


def key_in(line: str, path: str) -> bool:
    """Whether a line of TOML is where that path is said."""
    last = re.split(r"\.(?![^\"]*\"$)", re.sub(r"\[\d+\]", "", path))[-1]
    return last.strip('"') in line or not last
