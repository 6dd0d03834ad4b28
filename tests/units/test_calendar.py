"""Calendar expressions: word for word against systemd's own reader, cron's against cronsim; and the clock changes."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import cronsim
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.host.zones import find_zone
from appliance.units.calendar import Calendar, earliest_after, parse_calendar

BASE = datetime(2026, 11, 22, 6, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu", "Africa/Cairo")


def calendar(text: str, zone: str | None = "UTC") -> Calendar:
    return parse_calendar(text, find_zone, zone=zone)


def ours(text: str, count: int, base: datetime = BASE, until: datetime | None = None) -> list[datetime] | None:
    try:
        it = calendar(text)
    except InputError:
        return None
    found: list[datetime] = []
    moment: datetime | None = base
    while len(found) < count and (moment := it.next_after(moment)) is not None and (until is None or moment < until):
        assert not found or moment > found[-1]
        found.append(moment)
    return found


def systemd(text: str, count: int, base: datetime = BASE) -> list[datetime] | None:
    """None: refused. To the second: that is how it prints."""
    done = subprocess.run(
        [
            "systemd-analyze",
            "calendar",
            f"--iterations={count}",
            f"--base-time={base:%Y-%m-%d %H:%M:%S} UTC",
            "--",
            text,
        ],
        capture_output=True,
        text=True,
        env={"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    if done.returncode:
        assert "Failed to parse" in done.stderr, done.stderr
        return None
    found = re.findall(r"(?:Next elapse|Iteration|Iter\. #\d+): \w{3} (\S+ \S+)", done.stdout)
    return [datetime.strptime(one, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for one in found]


def seconds(moments: list[datetime] | None) -> list[datetime] | None:
    return moments and [one.replace(microsecond=0) for one in moments]


DOCUMENTED = (  # all the examples of systemd.time(7), and more
    "Sat,Thu,Mon..Wed,Sat..Sun", "Mon,Sun 12-*-* 2,1:23", "Wed *-1", "Wed..Wed,Wed *-1", "Wed, 17:48",
    "Wed..Sat,Tue 12-10-15 1:2:3", "*-*-7 0:0:0", "10-15", "monday *-12-* 17:00", "Mon,Fri *-*-3,1,2 *:30:45",
    "12,14,13,12:20,10,30", "12..14:10,20,30", "mon,fri *-1/2-1,3 *:30:45", "03-05 08:05:40", "08:05:40", "05:40",
    "Sat,Sun 12-05 08:05:40", "Sat,Sun 08:05:40", "2003-03-05 05:40", "05:40:23.4200004/3.1700005",
    "2003-02..04-05", "2003-03-05 05:40 UTC", "2003-03-05", "03-05", "hourly", "daily", "daily UTC", "monthly",
    "weekly", "weekly Pacific/Auckland", "yearly", "annually", "*:2/3", "*-02~03", "Mon *-05~07/1", "minutely",
    "quarterly", "semiannually", "*:*:*", "*~1", "*-*~1..5", "*-*~28", "*-*~03/2 12:00", "@1895716396", "Mon-Fri 8:00",
    "*-02-29", "70-*-*", "*:*:0.5/2.25", "5..5:00", "*:*:1..2", "Fri *-13", "Sun *-*-1..7 3:00", "Mon,", "2024/2-01-01",
)  # fmt: skip
REFUSED = (
    "", " ", "*/2:00", "30:00", "Mon..", "..Fri", "Mon,Fri..Tue", "08:05:", "2026-11", "1-1 00:00:60",
    "*:*:59.9999999",
    "Mon Fri", "mondayx", "24:00", "*-*~31", "*-*~29", "*-*~1/3", "*-*-31/2", "0..60:0", "2300-1-1", "*:*:1..1",
    "* 12:00",
    "Mon 2026-W3", "Mon-,", "Mon,,Tue", "mon,tue.. 8:00", "daily Europe/Atlantis", "*:0/0",
    "@x", "-", "*-*-*-*", "1:2:3:4",
)  # fmt: skip


@pytest.mark.parametrize("text", DOCUMENTED)
def test_it_is_due_when_systemd_says(text: str) -> None:
    wanted = systemd(text, 8)
    assert wanted is not None
    assert seconds(ours(text, 8)) == wanted


@pytest.mark.parametrize("text", REFUSED)
def test_what_systemd_refuses_is_refused_and_said_why(text: str) -> None:
    if text.strip():
        assert systemd(text, 1) is None
    with pytest.raises(InputError, match=re.escape(f'found "{text}", ')):
        calendar(text)


def pieces(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).flatmap(lambda n: st.sampled_from((str(n), f"{n:02}")))
    one = st.one_of(
        number,
        st.builds("{}..{}".format, number, number),
        st.builds("{}/{}".format, number, st.integers(1, max(1, (high - low) // 2))),
        st.builds("{}..{}/{}".format, number, number, st.integers(1, 5)),
    )
    return st.one_of(st.just("*"), st.lists(one, min_size=1, max_size=3).map(",".join))


DAY = st.sampled_from(("Mon", "tue", "Wednesday", "Thu", "FRI", "Sat", "sunday"))
WEEKDAYS = st.lists(st.one_of(DAY, st.builds("{}..{}".format, DAY, DAY)), min_size=1, max_size=3).map(",".join)
DATE = st.one_of(
    st.builds("{}{}{}".format, pieces(1, 12), st.sampled_from("-~"), pieces(1, 28)),
    st.builds("{}-{}{}{}".format, pieces(2024, 2040), pieces(1, 12), st.sampled_from("-~"), pieces(1, 31)),
)
TIME = st.one_of(
    st.builds("{}:{}".format, pieces(0, 23), pieces(0, 59)),
    st.builds("{}:{}:{}".format, pieces(0, 23), pieces(0, 59), pieces(0, 59)),
)
EXPRESSIONS = (
    st.tuples(st.none() | WEEKDAYS, st.none() | DATE, st.none() | TIME, st.none() | st.just("UTC"))
    .filter(lambda parts: any(parts[:3]))
    .map(lambda parts: " ".join(filter(None, parts)))
)


@settings(max_examples=250, deadline=None)
@given(EXPRESSIONS, st.datetimes(datetime(2024, 1, 1), datetime(2034, 1, 1)))
@example("*-*~01..03/2 00:00", datetime(2026, 1, 1))
@example("*-02~1 *:*:59", datetime(2028, 2, 28, 23, 59, 58))
def test_any_expression_means_what_it_means_to_systemd(text: str, base: datetime) -> None:
    base = base.replace(microsecond=0, tzinfo=UTC)
    if "~" in text and "," in text and systemd(text, 1) is None:
        return  # it takes three days off the end of the range for each member of the list, not once
    compare(ours(text, 4, base), systemd(text, 4, base), UTC)


def compare(found: list[datetime] | None, wanted: list[datetime] | None, zone: tzinfo) -> None:
    """The same; but systemd 252 loses, behind midnight, what a repetition such as *:0/16 would have there."""
    if found is None or wanted is None or seconds(found) == wanted:
        assert seconds(found) == wanted
        return
    both = set(wanted)
    lost = [one for one in found if one.replace(microsecond=0) not in both]
    assert all(one.astimezone(zone).hour == 0 for one in lost), (lost, wanted)
    kept = [one.replace(microsecond=0) for one in found if one not in lost]
    assert kept == wanted[: len(kept)]


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="0123456789*/.,-~:@ MonTueFri UTCEurope/", max_size=30) | st.text(max_size=20))
def test_no_text_makes_it_stumble(text: str) -> None:
    ours(text, 2)


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS.filter(lambda text: "UTC" not in text), st.sampled_from(ZONES), st.integers(0, 300))
def test_in_any_zone_it_is_due_when_systemd_says_but_for_the_days_of_clock_changes(
    text: str, zone: str, day: int
) -> None:
    # On such days systemd leaves out what falls into the gap (systemd.timer(5) promises nothing); we do not.
    base = BASE + timedelta(days=day)
    info = ZoneInfo(zone)
    until = base
    while (
        until < base + timedelta(days=150)
        and (until + timedelta(days=3)).astimezone(info).utcoffset()
        == (base - timedelta(days=3)).astimezone(info).utcoffset()
    ):
        until += timedelta(days=1)
    wanted = systemd(f"{text} {zone}", 5, base)
    if "~" in text and "," in text and wanted is None:
        return  # as above
    compare(ours(f"{text} {zone}", 5, base, until), wanted and [one for one in wanted if one < until], info)


# -- the clock on the wall jumps ------------------------------------------------------------------------------------


def year(text: str, zone: str, start: datetime = datetime(2027, 1, 1, tzinfo=UTC)) -> list[datetime]:
    found = ours(f"{text} {zone}", 100_000, start, start + timedelta(days=365))
    assert found is not None
    return found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", ["02:30", "00:30", "01:45", "02:00", "23:59:59"])
def test_once_a_day_is_once_a_day_all_year(text: str, zone: str) -> None:
    info = ZoneInfo(zone)
    moments = year(text, zone)
    days = [one.astimezone(info).date() for one in moments]
    assert len(set(days)) == len(days) in (364, 365, 366)
    wanted = timedelta(hours=int(text[:2]), minutes=int(text[3:5]), seconds=int(text[6:] or 0))
    off = []
    for one in moments:
        local = one.astimezone(info)
        shown = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second)
        if shown != wanted:
            off.append(local)
        assert local.fold == 0, f"the second of two: {local}"
    assert len(off) <= 1, "only the day with the gap is another"
    for local in off:
        before = (local.astimezone(UTC) - timedelta(microseconds=1)).astimezone(info)
        assert before.utcoffset() != local.utcoffset(), "it is the moment right after the gap"


@pytest.mark.parametrize("zone", ZONES)
def test_every_quarter_goes_by_real_time_all_year(zone: str) -> None:
    moments = year("*:0/15", zone)
    assert {after - before for before, after in itertools.pairwise(moments)} == {timedelta(minutes=15)}
    assert abs(len(moments) - 365 * 96) <= 1


def test_the_gap_and_the_doubled_hour_to_the_minute() -> None:
    spring, autumn = datetime(2027, 3, 27, 12, tzinfo=UTC), datetime(2027, 10, 30, 12, tzinfo=UTC)
    berlin = functools.partial(lambda base, text, count: ours(f"{text} Europe/Berlin", count, base))
    assert berlin(spring, "02:30", 2) == [
        datetime(2027, 3, 28, 1, tzinfo=UTC),
        datetime(2027, 3, 29, 0, 30, tzinfo=UTC),
    ]
    # All that falls into the gap is one run.
    assert berlin(spring, "02:*:0/20", 2) == [
        datetime(2027, 3, 28, 1, tzinfo=UTC), datetime(2027, 3, 29, 0, tzinfo=UTC),
    ]  # fmt: skip
    assert berlin(autumn, "02:30", 2) == [
        datetime(2027, 10, 31, 0, 30, tzinfo=UTC),
        datetime(2027, 11, 1, 1, 30, tzinfo=UTC),
    ]
    # Asked in the second pass of the hour: it was already.
    assert berlin(datetime(2027, 10, 31, 1, 10, tzinfo=UTC), "02:30", 1) == [datetime(2027, 11, 1, 1, 30, tzinfo=UTC)]
    assert berlin(datetime(2027, 10, 31, 1, 10, tzinfo=UTC), "02:30:0/0.000001", 1) == [
        datetime(2027, 11, 1, 1, 30, tzinfo=UTC)
    ]
    assert berlin(autumn.replace(hour=23, minute=50), "*:30", 3) == [
        datetime(2027, 10, 31, hour, 30, tzinfo=UTC) for hour in (0, 1, 2)
    ]
    assert berlin(spring.replace(day=28, hour=0, minute=50), "*:30", 2) == [
        datetime(2027, 3, 28, hour, 30, tzinfo=UTC) for hour in (1, 2)
    ]


def test_a_day_that_a_country_left_out_runs_at_the_next_moment() -> None:
    base = datetime(2011, 12, 29, 12, tzinfo=UTC)  # Samoa: the 30th did not exist
    assert ours("2011-12-30 12:00 Pacific/Apia", 2, base) == [datetime(2011, 12, 30, 10, tzinfo=UTC)]


# -- cron -----------------------------------------------------------------------------------------------------------

CRON_FIELDS = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 7))
CRON = st.tuples(*(pieces(low, high).filter(lambda text: ".." not in text) for low, high in CRON_FIELDS)).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(CRON, st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)), st.sampled_from(ZONES))
def test_cron_is_cronsim(text: str, base: datetime, zone: str) -> None:
    start = base.replace(tzinfo=UTC)
    try:
        wanted = cronsim.CronSim(text, start.astimezone(ZoneInfo(zone)))
    except cronsim.CronSimError:
        with pytest.raises(InputError, match="of the cron expression"):
            calendar(f"{text} {zone}")
        return
    expected = [one.astimezone(UTC) for _, one in zip(range(3), wanted, strict=False)]
    assert ours(f"{text} {zone}", 3, start) == expected


def test_cron_words_and_fields() -> None:
    first = {
        text: (ours(text, 1) or [None])[0] for text in ("@daily", "@weekly", "30 6 * * 1-5", "0 9 1 * * Asia/Tokyo")
    }
    assert first == {
        "@daily": datetime(2026, 11, 23, tzinfo=UTC),
        "@weekly": datetime(2026, 11, 29, tzinfo=UTC),  # cron's week begins on Sunday, systemd's on Monday
        "30 6 * * 1-5": datetime(2026, 11, 23, 6, 30, tzinfo=UTC),
        "0 9 1 * * Asia/Tokyo": datetime(2026, 12, 1, tzinfo=UTC),
    }
    for bad, why in (("61 * * * *", "bad minute"), ("* * * * mo", "bad day-of-week"), ("1 2 3 4 5 6 7", "five fields")):
        with pytest.raises(InputError, match=why):
            calendar(bad)


def test_the_zone_of_the_key_counts_unless_the_expression_names_one() -> None:
    noon = {zone: calendar("12:00", zone).next_after(BASE) for zone in ("UTC", "Asia/Tokyo", None)}
    assert noon["UTC"] == datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert noon["Asia/Tokyo"] == datetime(2026, 11, 23, 3, tzinfo=UTC)
    assert noon[None] is not None
    assert calendar("12:00 UTC", "Asia/Tokyo").next_after(BASE) == noon["UTC"]
    assert earliest_after([calendar("12:00"), calendar("11:00"), calendar("2003-01-01")], BASE) == datetime(
        2026, 11, 22, 11, tzinfo=UTC
    )


def test_far_and_fine_are_quick() -> None:
    slow = ("Fri *-02-29", "*:*:0/0.000001 Europe/Berlin", "2199-12-31 23:59:59 Europe/Berlin", "Mon *-02-29 *:*:*")
    for text in slow:
        begin = datetime.now(UTC)
        assert ours(text, 3)
        assert datetime.now(UTC) - begin < timedelta(seconds=5)
