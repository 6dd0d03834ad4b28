"""Moments as people write them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.schema import parse_moment

NOW = 1_795_333_500.0  # 2026-11-22 07:45:00 UTC


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", NOW), ("10m", NOW - 600), ("10m ago", NOW - 600), ("-10m", NOW - 600), ("+1h", NOW + 3600),
        ("1h30m ago", NOW - 5400), ("2 hours ago", NOW - 7200), ("1 day 2 hours ago", NOW - 93600),
        ("90 sec ago", NOW - 90), ("today", 1_795_302_000.0), ("yesterday", 1_795_215_600.0),
        ("2026-11-22", 1_795_302_000.0), ("2026-11-22 08:45", NOW), ("2026-11-22 08:45:00.5", NOW + 0.5),
        ("2026-11-22T07:45:00Z", NOW), ("2026-11-22 07:45 UTC", NOW), ("2026-11-22T09:45:00+02:00", NOW),
        ("08:45", NOW), ("08:45:30", NOW + 30), ("@1795333500", NOW), ("1795333500.25", NOW + 0.25),
        ("2026-07-01 00:00", 1_782_856_800.0),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("berlin")
def test_moments(text: str, seconds: float) -> None:
    assert parse_moment(text, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "10 parsecs ago", "2026-13-01", "25:00", "--5m", "5m 5m of", "ago"])
def test_no_moments(text: str) -> None:
    with pytest.raises(InputError):
        parse_moment(text, NOW)


@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_an_error(text: str) -> None:
    with contextlib.suppress(InputError):
        assert parse_moment(text, NOW) >= 0
