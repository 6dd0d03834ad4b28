"""Weekly windows against a wall clock that is walked minute by minute, over every change of the clock in a year."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.host.zones import find_zone
from appliance.schema import read
from appliance.update.settings import UpdateSection
from appliance.update.windows import Window, begins, open_until, opens_at, window_of

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu")
CHANGES = (  # days around which clocks jump somewhere, the turn of the year, and plain days
    datetime(2026, 3, 8, tzinfo=UTC), datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 4, 5, tzinfo=UTC),
    datetime(2026, 10, 4, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC),
    datetime(2026, 12, 31, tzinfo=UTC), datetime(2026, 6, 10, tzinfo=UTC),
)  # fmt: skip


def walked(window: Window, first: datetime, minutes: int) -> list[bool]:
    """Open or not, per minute, by nothing but looking at the wall."""
    spans, started = [], set()
    begin = first - timedelta(days=9)
    moment = begin
    while moment < first + timedelta(minutes=minutes):
        wall = moment.astimezone(window.zone)
        day = wall.date()
        wanted = not window.days or day.weekday() in window.days
        if day not in started and wanted and wall.time() >= window.start:
            started.add(day)
            if moment > begin:  # the first day was begun before we looked
                spans.append((moment, moment + timedelta(seconds=window.seconds)))
        moment += timedelta(minutes=1)
    found = []
    for number in range(minutes):
        now = first + timedelta(minutes=number)
        found.append(any(start <= now < end for start, end in spans))
    return found


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(ZONES), change=st.sampled_from(CHANGES), days=st.sets(st.integers(0, 6), max_size=4),
    hour=st.integers(0, 23), minute=st.sampled_from([0, 15, 30, 59]), length=st.integers(1, 7 * 24 * 60),
    offset=st.integers(-2000, 2000),
)  # fmt: skip
def test_a_window_is_open_when_the_wall_says_so(
    zone: str, change: datetime, days: set[int], hour: int, minute: int, length: int, offset: int
) -> None:
    window = Window(frozenset(days), time(hour, minute), length * 60.0, ZoneInfo(zone))
    first = change + timedelta(minutes=offset)
    expected = walked(window, first, 300)
    for number, is_open in enumerate(expected):
        now = (first + timedelta(minutes=number)).timestamp()
        until = open_until([window], now)
        assert (until is not None) == is_open, (window, first + timedelta(minutes=number))
        opens = opens_at([window], now)
        assert opens is not None
        if until is not None:
            assert until > now
            assert opens == now
        else:
            assert opens > now
            assert open_until([window], opens) is not None
            assert open_until([window], opens - 1) is None


@pytest.mark.parametrize("zone", ZONES)
def test_a_year_has_every_weeks_window_once(zone: str) -> None:
    window = Window(frozenset({5, 6}), time(2, 30), 3600.0, ZoneInfo(zone))
    now, end = datetime(2026, 1, 1, tzinfo=UTC).timestamp(), datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    begun = []
    while True:
        opens = opens_at([window], now)
        assert opens is not None
        if opens >= end:
            break
        begun.append(opens)
        until = open_until([window], opens)
        assert until == opens + 3600
        now = until
    assert len(begun) in (104, 105)
    days = {datetime.fromtimestamp(one, window.zone).date() for one in begun}
    assert len(days) == len(begun)
    assert {day.weekday() for day in days} == {5, 6}


def moment(month: int, day: int, hour: int, minute: int) -> float:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC).timestamp()


def test_gaps_and_second_times() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    # 02:30 does not exist on 2026-03-29: the window begins when the gap ends, at 03:00 summer time.
    assert begins(datetime(2026, 3, 29).date(), time(2, 30), berlin) == moment(3, 29, 1, 0)
    # 02:30 comes twice on 2026-10-25: once is enough, the first.
    assert begins(datetime(2026, 10, 25).date(), time(2, 30), berlin) == moment(10, 25, 0, 30)


def test_windows_that_touch_are_one_and_weeks_wrap() -> None:
    find = find_zone
    made = [window_of(["Sunday"], "23:00", 3600.0, "UTC", find), window_of(["mon"], "00:00", 7200.0, "UTC", find)]
    windows = [one for one in made if one is not None]
    assert len(windows) == 2
    now = datetime(2026, 11, 22, 23, 30, tzinfo=UTC).timestamp()  # a Sunday
    assert open_until(windows, now) == datetime(2026, 11, 23, 2, 0, tzinfo=UTC).timestamp()
    assert window_of(["mon"], "00:00", 60.0, "Mars/Olympus", find) is None
    assert opens_at([], now) is None


def test_what_settings_say_of_windows() -> None:
    def findings(text: str) -> str:
        return "\n".join(map(str, read(text, "x.toml", UpdateSection).findings))

    window = '[[window]]\ndays = ["sat", "Sunday"]\nstart = "02:00"\nlength = "2h"\ntime_zone = "Europe/Berlin"\n'
    good = 'strategy = "window"\n' + window
    assert findings(good) == ""
    assert "no [[update.window]]" in findings('strategy = "window"')
    assert findings(good.replace('"window"', '"immediate"', 1)) == ""  # they bind there, too
    assert "lock.url" in findings('strategy = "lock"')
    assert "no time zone" in findings(good.replace("Berlin", "Bärlin"))
    assert findings(good.replace("02:00", "24:00"))
    assert findings(good.replace('"sat"', '"caturday"'))
    assert findings(good.replace('"2h"', '"8d"'))
    bundle = '[[bundle]]\nname = "shop"\nrepository = "/r"\n'
    assert findings(bundle) == ""
    assert "second time" in findings(bundle + bundle)
    assert findings(bundle.replace("shop", "appliance"))
    assert "repository" in findings('[[bundle]]\nname = "shop"\n')
