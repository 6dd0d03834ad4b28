from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.schema import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
        ("0", 0),
        ("0s", 0),
        ("1w2d", 777600),
        ("7us", 7e-6),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10", 'expected a duration such as "10s"'),
        ("10 min", 'expected a duration such as "10m"'),
        ("1 hour 30 minutes", 'expected a duration such as "1h30m"'),
        ("5S", 'expected a duration such as "5s"'),
        ("soon", 'expected a duration such as "90s"'),
        ("", 'expected a duration such as "90s"'),
        ("-5s", 'expected a duration such as "90s"'),
        ("30m1h", 'expected a duration with the larger unit first and each unit once, such as "1h30m"'),
        ("1h1h", 'expected a duration with the larger unit first and each unit once, such as "1h30m"'),
        ("999999w", 'expected a duration of at most "36500d"'),
        ("infinity", 'expected a duration such as "90s"'),
        ("9" * 400 + "s", 'expected a duration such as "90s"'),
    ],
)
def test_durations_that_are_none(text: str, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_duration(text)
    assert caught.value.message == wanted


def test_infinity_only_where_allowed() -> None:
    assert math.isinf(parse_duration("infinity", infinity=True))
    with pytest.raises(InputError, match='or "infinity"'):
        parse_duration("for ever", infinity=True)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512", 512), ("64K", 65536), ("1.5G", 1610612736), ("8T", 8 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("512 MB", 'expected a size such as "512M"'),
        ("1gib", 'expected a size such as "1G"'),
        ("10 bytes", 'expected a size such as "10"'),
        ("-1", 'expected a size such as "512M"'),
        ("lots", 'expected a size such as "512M"'),
        ("9999P", "expected a size below 8192P"),
    ],
)
def test_sizes_that_are_none(text: str, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_size(text)
    assert caught.value.message == wanted


@given(st.integers(0, 36500 * 86400 * 1_000_000 - 1))
def test_a_duration_survives_being_written(microseconds: int) -> None:
    text = format_duration(microseconds / 1_000_000)
    assert parse_duration(text) == pytest.approx(microseconds / 1_000_000, abs=2e-6, rel=1e-12)


@given(st.integers(0, (1 << 63) - 1))
def test_a_size_survives_being_written(size: int) -> None:
    if size < 10**18 or not format_size(size).isdigit():  # longer numbers without a unit are nobody's
        assert parse_size(format_size(size)) == size


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_an_input_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(InputError):
            assert parse(text) >= 0
