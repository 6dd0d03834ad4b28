"""Every kind of mistake, with the exact words and the place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.schema import (
    Duration,
    DurationOrInfinity,
    Size,
    Source,
    raise_if_bad,
    read,
    read_merged,
    to_plain,
    to_toml,
)


@dataclass(frozen=True, kw_only=True)
class Window:
    start: str = field(metadata={"pattern": r"\d\d:\d\d", "what": 'a time of day such as "02:00"'})
    length: Duration = 3600.0


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Example:
    interval: Duration = 600.0
    grace: DurationOrInfinity = 10.0
    quota: Size = 1 << 20
    ceiling: Size | None = None
    count: int = field(default=3, metadata={"min": 1, "max": 5})
    ratio: float = 0.5
    on: bool = False
    strategy: Literal["immediate", "window", "manual"] = "window"
    window: tuple[Window, ...] = ()
    words: tuple[str, ...] = field(default=(), metadata={"split": True, "min": 1})
    either: str | tuple[str, ...] = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    global_: bool = False
    even: int = field(
        default=0, metadata={"check": lambda value: f"found {value}, which is odd" if value % 2 else None}
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.interval < self.grace < 1e9:
            yield "grace", "is longer than interval"

    def warnings(self) -> Iterator[tuple[str, str]]:
        if self.on and self.strategy == "manual":
            yield "on", "has no effect with strategy manual"


KEYS = (  # sorted
    "ceiling, count, either, even, global, grace, inner, interval, labels, maybe, "
    "on, quota, ratio, strategy, window, words"
)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ('intervl = "1s"', f'1:1: intervl: unknown key; did you mean "interval"? (allowed: {KEYS})'),
        ("depth = 1", f"1:1: depth: unknown key; it belongs to [inner] (allowed: {KEYS})"),
        ("zzz = 1", f"1:1: zzz: unknown key (allowed: {KEYS})"),
        ("[inner]\ndeep = 1", '2:1: inner.deep: unknown key; did you mean "depth"? (allowed: depth)'),
        (
            "interval = 10",
            '1:1: interval: found the integer 10, expected a duration such as "10s" (a string with a unit)',
        ),
        ("interval = true", '1:1: interval: found the boolean true, expected a duration such as "10m"'),
        ('interval = "10 min"', '1:1: interval: found "10 min", expected a duration such as "10m"'),
        ('grace = "ever"', '1:1: grace: found "ever", expected a duration such as "90s" or "infinity"'),
        ('quota = "512 MB"', '1:1: quota: found "512 MB", expected a size such as "512M"'),
        ("quota = -1", '1:1: quota: found the integer -1, expected a size such as "256M"'),
        ("quota = 1.5", '1:1: quota: found the float 1.5, expected a size such as "256M"'),
        ('ceiling = "1 gb"', '1:1: ceiling: found "1 gb", expected a size such as "1G"'),
        ("count = 9", "1:1: count: found the integer 9, expected at least 1 and at most 5"),
        ('count = "3"', '1:1: count: found the string "3", expected an integer'),
        ("count = true", "1:1: count: found the boolean true, expected an integer"),
        ("count = 1.0", "1:1: count: found the float 1.0, expected an integer"),
        ("ratio = nan", "1:1: ratio: found the float nan, expected a number"),
        ("on = 1", "1:1: on: found the integer 1, expected true or false"),
        (
            'strategy = "imediate"',
            '1:1: strategy: found "imediate", expected "immediate", "window" or "manual"; did you mean "immediate"?',
        ),
        ("strategy = 3", '1:1: strategy: found the integer 3, expected "immediate", "window" or "manual"'),
        ("window = {}", "1:1: window: found a table, expected a list of tables"),
        ("[[window]]", '1:3: window[0].start: missing; expected a time of day such as "02:00"'),
        (
            '[[window]]\nstart = "02:00"\n[[window]]\nstart = "2am"',
            '4:1: window[1].start: found "2am", expected a time of day such as "02:00"',
        ),
        ("words = []", "1:1: words: found a length of 0, expected at least 1"),
        ('words = "a \'b"', '1:1: words: found "a \'b", which cannot be cut into words: No closing quotation'),
        ('words = ["a", 1]', "1:15: words[1]: found the integer 1, expected a string"),
        ("either = 3", "1:1: either: found the integer 3, expected a string or a list of strings"),
        ("either = [3]", "1:11: either[0]: found the integer 3, expected a string"),
        ("labels = []", "1:1: labels: found an empty list, expected a table"),
        ('labels = {a = "x", "b c" = 2}', '1:20: labels."b c": found the integer 2, expected a string'),
        ("inner = 1979-05-27", "1:1: inner: found the date or time 1979-05-27, expected a table"),
        ('maybe = {depth = "x"}', '1:10: maybe.depth: found the string "x", expected an integer'),
        ("even = 3", "1:1: even: found 3, which is odd"),
        (
            'either = "a\\u0000b"',
            '1:1: either: found the string "a\\u0000b", which holds a NUL character; no program can be given one',
        ),
        ('interval = "1s"\ngrace = "2s"', "2:1: grace: is longer than interval"),
        ("count =", "1:8: not TOML: invalid value; nothing follows the ="),
        ("count = three", '1:9: not TOML: invalid value; a string needs quotes: "three"'),
        ("count = 1\ncount = 2", "2:10: not TOML: cannot overwrite a value"),
        ("words = [1,\n2", "2:2: not TOML: unclosed array"),
        ("count = " + "[" * 3000, "1:1: not TOML: nested too deeply"),
    ],
)
def test_one_finding(text: str, finding: str) -> None:
    document = read(text, "x.toml", Example)
    assert [str(one) for one in document.findings] == [f"x.toml:{finding}"]
    assert document.value is None


def test_all_findings_are_told_in_the_order_of_the_text() -> None:
    document = read('count = 9\nzzz = 1\nquota = "x"\n[inner]\ndepth = "d"\nnope = 1', "x", Example)
    assert [(one.line, one.path) for one in document.findings] == [
        (1, "count"), (2, "zzz"), (3, "quota"), (5, "inner.depth"), (6, "inner.nope"),
    ]  # fmt: skip


def test_good_values() -> None:
    text = """
interval = "1h30m"
grace = "infinity"
quota = 4096
ceiling = "1.5K"
ratio = 2
words = "one 'two three'"
either = ["a", "b"]
global = true
labels = { a = "x" }
"""
    value = raise_if_bad(read(text, "x", Example))
    assert (value.interval, value.quota, value.ceiling, value.ratio) == (5400.0, 4096, 1536, 2.0)
    assert value.grace == float("inf")
    assert (value.words, value.either, value.global_) == (("one", "two three"), ("a", "b"), True)
    assert value.labels == {"a": "x"}


def test_an_empty_text_is_all_defaults() -> None:
    assert read("", "x", Example).value == Example()
    assert read("\ufeff# only a mark\n", "x", Example).value == Example()


def test_a_warning_does_not_keep_the_value_from_being_used() -> None:
    document = read('on = true\nstrategy = "manual"', "x", Example)
    assert document.value is not None
    assert [str(one) for one in document.findings] == ["x:1:1: warning: on: has no effect with strategy manual"]
    assert document.errors == ()


def test_bad_raises_with_all_findings_and_the_first_place() -> None:
    with pytest.raises(InputError) as caught:
        raise_if_bad(read("count = 9\non = 3", "x", Example))
    assert caught.value.message.count("\n") == 1
    assert caught.value.where == "x:1:1"


def test_merging_names_the_file_that_said_it() -> None:
    sources = [
        Source("a.toml", 'count = 1\n[labels]\nx = "1"\n[[window]]\nstart = "01:00"'),
        Source("b.toml", '\ncount = 9\n[labels]\ny = "2"\n[[window]]\nstart = "02:00"'),
    ]
    document = read_merged(sources, Example)
    assert [str(one) for one in document.findings] == [
        "b.toml:2:1: count: found the integer 9, expected at least 1 and at most 5"
    ]
    assert document.place("labels.x") == ("a.toml", 3, 1)
    assert document.place("labels.y") == ("b.toml", 4, 1)
    assert document.place("inner.depth") == ("a.toml", 1, 1)
    assert document.position("window[0].length") == (5, 3)


def test_merging_joins_tables_and_replaces_lists() -> None:
    sources = [
        Source("a", 'words = ["a", "b"]\n[labels]\nx = "1"\ny = "1"'),
        Source("b", 'words = ["c"]\nlabels.y = "2"'),
    ]
    value = raise_if_bad(read_merged(sources, Example))
    assert value.words == ("c",)
    assert value.labels == {"x": "1", "y": "2"}


def test_a_text_that_does_not_parse_hides_what_would_be_missing_without_it() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        must: str

    assert [one.message for one in read("must = x", "f", Needy).findings] == [
        'not TOML: invalid value; a string needs quotes: "x"'
    ]


PLAIN = st.dictionaries(st.text(max_size=5), st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3)


@given(
    labels=PLAIN, count=st.integers(1, 5), seconds=st.integers(0, 10**9), size=st.integers(0, 1 << 50),
    starts=st.lists(st.from_regex(r"[0-9]{2}:[0-9]{2}", fullmatch=True), max_size=3),
    either=st.none() | st.integers(0, 9),
)  # fmt: skip
@settings(deadline=None)
def test_a_section_survives_being_written_as_toml(
    labels: dict[str, str], count: int, seconds: int, size: int, starts: list[str], either: int | None
) -> None:
    section = Example(
        labels={key: value.replace("\0", "") for key, value in labels.items()},
        count=count,
        grace=float("inf"),
        interval=float(seconds),
        quota=size,
        words=("a",),
        window=tuple(Window(start=one) for one in starts),
        maybe=None if either is None else Inner(depth=either),
    )
    assert raise_if_bad(read(to_toml(to_plain(section)), "x", Example)) == section


JUNK: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.text(max_size=60) | st.lists(st.sampled_from([*KEYS.split(", "), "=", "[", "]", "1", '"', "\n"])).map(" ".join)
)
@settings(deadline=None)
def test_no_text_makes_it_raise(text: str) -> None:
    document = read(text, "x", Example)
    assert (document.value is None) == bool(document.errors)


@given(st.sampled_from(KEYS.split(", ")), JUNK)
@settings(deadline=None)
def test_no_value_makes_it_raise(key: str, value: Any) -> None:
    from appliance.schema.conversion import Conversion

    conversion = Conversion()
    conversion.to_section({key: value}, Example)
    assert all(one.path.startswith(key) for one in conversion.problems if one.path != "grace")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    LEAVES,
    lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=5), one, max_size=4),
    max_leaves=20,
)


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_null(one) for key, one in value.items() if one is not None}
    return [without_null(one) for one in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=5), TREES, max_size=5))
def test_whatever_json_holds_is_written_as_toml_that_says_the_same(data: dict[str, Any]) -> None:
    try:
        text = to_toml(data)
    except InputError as error:
        assert "null" in error.message  # noqa: PT017 - in a list; in a table it is left out
    else:
        assert tomli.loads(text) == without_null(data)
