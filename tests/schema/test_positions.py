"""The scanner against tomli: every key that tomli returns has a place, and the text there is that key."""

from __future__ import annotations

import json
import re
from typing import Any

import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.schema.positions import Path, find_positions

BARE = st.text("abcdefgXYZ019_-", min_size=1, max_size=6)
WILD = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
KEYS = BARE | WILD
BLANK = st.sampled_from(["", " ", "\t", "  "])
TEXTS = st.text(st.sampled_from("ab \"'\\#=[]{},.\né"), max_size=12)
SCALARS = st.one_of(
    st.integers(-(2**60), 2**60).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["true", "false", "inf", "1979-05-27 07:32:00", "07:32:00", "0xFF", "1_000"]),
    TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False)),
    TEXTS.filter(lambda text: "'" not in text and "\n" not in text).map(lambda text: f"'{text}'"),
    TEXTS.filter(lambda text: "'''" not in text and not text.endswith("'")).map(lambda text: f"'''{text}'''"),
    TEXTS.map(lambda text: '"""' + text.replace("\\", "\\\\").replace('"""', '""\\"') + '\\n"""'),
    st.sampled_from(['""""quoted""""', "''''one''''", '"""""two"""""', '""""""', "''''''", '"""a\\\n   b"""']),
)


@st.composite
def key_texts(draw: st.DrawFn, key: str) -> str:
    if re.fullmatch("[A-Za-z0-9_-]+", key) and draw(st.booleans()):
        return key
    if "'" not in key and draw(st.booleans()):
        return f"'{key}'"
    return json.dumps(key, ensure_ascii=draw(st.booleans()) and key.isascii())


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.sampled_from(["scalar", "array", "table"])) if depth else "scalar"
    if kind == "scalar":
        return draw(SCALARS)
    filler = st.sampled_from(["", " ", "\n", " # [a] = {x}\n"])
    if kind == "array":
        items = draw(st.lists(values(depth - 1), max_size=3))
        text = ",".join(draw(filler) + one + draw(filler) for one in items)
        return f"[{text}{',' if items and draw(st.booleans()) else ''}{draw(filler)}]"
    keys = draw(st.lists(KEYS, max_size=3, unique=True))
    pairs = [f"{draw(BLANK)}{draw(key_texts(key))} = {draw(values(depth - 1))}" for key in keys]
    return "{" + ", ".join(pairs) + " }"


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines: list[str] = []

    def pairs() -> None:
        for key in draw(st.lists(KEYS, max_size=3, unique=True)):
            text = draw(key_texts(key))
            if draw(st.booleans()):  # a dotted key
                text += f"{draw(BLANK)}.{draw(BLANK)}" + draw(key_texts(draw(KEYS)))
            comment = draw(st.sampled_from(["", " # x = [", "\t#"]))
            lines.append(f"{draw(BLANK)}{text}{draw(BLANK)}={draw(BLANK)}{draw(values())}{comment}")

    pairs()
    for name in draw(st.lists(KEYS, max_size=3, unique=True)):
        text = draw(key_texts(name))
        if draw(st.booleans()):
            for _ in range(draw(st.integers(1, 3))):
                lines.append(f"[[ {text} ]]")
                pairs()
                if draw(st.booleans()):
                    lines.append(f"[{text}. inner_table]")
                    pairs()
                for _ in range(draw(st.integers(0, 2))):
                    lines.append(f"[[{text}.'inner array']] # end")
                    pairs()
        else:
            lines.append(f"{draw(BLANK)}[{text}.deep.er]")
            pairs()
            if draw(st.booleans()):
                lines.append(f"[{text}]")
    return draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(lines)


def paths(value: Any, path: Path = ()) -> list[Path]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, one in value.items():
            found += paths(one, (*path, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            found += paths(one, (*path, number))
    return found


def key_at(text: str, line: int, column: int) -> str:
    """The key that starts there, as tomli reads it."""
    rest = text.split("\n")[line - 1][column - 1 :]
    if rest[0] == "'":
        return rest[1 : rest.index("'", 1)]
    if rest[0] == '"':
        end = 1
        while rest[end] != '"':
            end += 2 if rest[end] == "\\" else 1
        return str(json.loads(rest[: end + 1], strict=False))
    end = 0
    while end < len(rest) and (rest[end].isalnum() or rest[end] in "_-"):
        end += 1
    return rest[:end]


@given(documents())
@settings(max_examples=300, deadline=None)
def test_every_key_that_tomli_returns_is_where_the_scanner_says(text: str) -> None:
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError:  # a key that was drawn twice
        return
    places = find_positions(text)
    for path in paths(data):
        assert path in places, path
        line, column = places[path]
        if isinstance(path[-1], str):
            assert key_at(text, line, column) == path[-1]
    assert set(places) <= set(paths(data))


EXAMPLE = '''\
title = "x"
list = [1, [2, 3], {a = 4}]

[owner]   # comment
name.first = "a"
"quoted key".'b' = 1
text = """
[not.a.header]
key = 1
"""

[[window]]
day = "sat"
[[window]]
day = "sun"
[window.inner]
x = 1
'''


def test_places_of_an_example_counted_by_hand() -> None:
    places = find_positions(EXAMPLE)
    assert places[("title",)] == (1, 1)
    assert places[("list", 1)] == (2, 12)
    assert places[("list", 1, 1)] == (2, 16)
    assert places[("list", 2, "a")] == (2, 21)
    assert places[("owner",)] == (4, 2)
    assert places[("owner", "name", "first")] == (5, 6)
    assert places[("owner", "quoted key", "b")] == (6, 14)
    assert places[("window",)] == (12, 3)
    assert places[("window", 0)] == (12, 3)
    assert places[("window", 0, "day")] == (13, 1)
    assert places[("window", 1)] == (14, 3)
    assert places[("window", 1, "day")] == (15, 1)
    assert places[("window", 1, "inner", "x")] == (17, 1)
    assert not any("not" in path for path in places)
