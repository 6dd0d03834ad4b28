from __future__ import annotations

import contextlib
import enum
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.api.wire import Fields, dumps, object_untrusted, plain, redacted
from appliance.errors import InputError


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


@dataclass(frozen=True)
class Thing:
    name: str
    inner: tuple[Any, ...]


def test_plain() -> None:
    thing = Thing("a", (Colour.RED, Number.ONE, b"\0", frozenset({"y", "x"}), {1: None}, float("inf"), True))
    expected = {"name": "a", "inner": ["red", 1, "AA==", ["x", "y"], {"1": None}, "infinity", True]}
    assert plain(thing) == expected
    assert json.loads(dumps(thing)) == expected


class Pair(NamedTuple):
    left: int
    right: bytes


def test_a_named_tuple_is_its_fields() -> None:
    assert plain((Pair(1, b"\0"), (1, 2))) == [{"left": 1, "right": "AA=="}, [1, 2]]


def test_secrets_go_and_the_names_of_files_stay() -> None:
    document = {
        "a": {"password": "p", "token_file": "/t", "API_TOKEN": "x", "secret": ""},
        "urls": ["https://me:pw@host/x@y", "https://host/x@y:z", "not://a url @"],
    }
    assert redacted(document) == {
        "a": {"password": "(redacted)", "token_file": "/t", "API_TOKEN": "(redacted)", "secret": ""},
        "urls": ["https://me:(redacted)@host/x@y", "https://host/x@y:z", "not://a url @"],
    }


@given(st.binary(max_size=200))
def test_bodies_raise_only_input_errors(body: bytes) -> None:
    with contextlib.suppress(InputError):
        object_untrusted(body)


@pytest.mark.parametrize(
    "body", [b'{"a": "\\ud800"}', b'{"\\udfff": 1}', b'{"a": "\xed\xa0\x80"}', b'{"a": ["\\ud83d"]}']
)
def test_text_that_nobody_could_keep_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="cannot read the request body"):
        object_untrusted(body)


def test_a_mark_of_the_byte_order_is_passed_over() -> None:
    assert object_untrusted(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda one: st.lists(one, max_size=3)
)


@given(JSON)
def test_fields_raise_only_input_errors(value: Any) -> None:
    for ask in (
        lambda it: it.bytes_("x"), lambda it: it.bytes_or_none("x"), lambda it: it.integer("x"),
        lambda it: it.flag("x"), lambda it: it.choice("x", ("a",)), lambda it: it.objects("x"),
        lambda it: it.object_or_none("x"),
    ):  # fmt: skip
        try:
            ask(Fields({"x": value}))
        except InputError as error:
            assert error.where == "body.x"  # noqa: PT017


def test_what_nobody_asked_for_is_an_error() -> None:
    fields = Fields({"a": 1, "b": 2})
    assert fields.integer("a") == 1
    with pytest.raises(InputError, match="it has no b; known: a"):
        fields.done()
