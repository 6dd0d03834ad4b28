"""Which offer is taken: waves that only ever let more in, steps over floors and barriers, and a person's own word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import ConflictError, InputError, NotFoundError, NotYetError, UntrustedError
from appliance.update.choosing import choose, choose_asked
from appliance.update.lot import host_lot
from appliance.update.offer import Offer, newest_first, offer_to_json, parse_offer, worth_telling
from appliance.update.policy import (
    Policy,
    Wave,
    parse_policy,
    parse_time,
    parse_waves,
    place_of,
    policy_to_json,
    wave_opens,
    waves_to_json,
)
from appliance.update.switched import Switched, decode_switched, encode_switched
from appliance.update.version import parse_version

NOW = 2_000_000_000.0


def offer(version: str, floor: str = "", **rules: object) -> Offer:
    made = Offer(f"alpha/{version}/x86_64/appliance", version, f"{parse_version(version).numbers[0]:064x}", 9, floor)
    return replace(made, **rules)  # type: ignore[arg-type]


def way(offers: Sequence[Offer], running: str, policy: Policy = Policy()) -> list[str]:  # noqa: B008
    """Every version that a host runs, one blessed after the other."""
    steps = []
    while (choice := choose(offers, running=running, denied=(), channel="alpha", policy=policy, now=NOW)).offer:
        running = choice.offer.version
        steps.append(running)
    return steps


# --- waves ---


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(1e-6, 1.0)), min_size=1, max_size=8), st.data())
def test_who_is_in_a_wave_stays_in(raw: list[tuple[float, float]], data: st.DataObject) -> None:
    fractions = sorted({fraction for _, fraction in raw})
    starts = sorted(start for start, _ in raw)[: len(fractions)]
    waves = tuple(Wave(start, fraction) for start, fraction in zip(starts, fractions, strict=True))
    place = data.draw(st.floats(0, 1, exclude_max=True))
    opens = wave_opens(waves, place)
    times = sorted(data.draw(st.lists(st.floats(0, 2e6), max_size=10)))
    states = [opens is not None and opens <= now for now in times]
    assert states == sorted(states)  # once True, True for ever
    if opens is not None:
        for more in (place / 2, 0.0):  # and whoever is before us is in no later
            earlier = wave_opens(waves, more)
            assert earlier is not None
            assert earlier <= opens


def test_a_fraction_is_that_part_of_all_hosts() -> None:
    for version in ("1.0", "2.0"):
        places = [place_of(f"host {number}", version) for number in range(20_000)]
        for fraction in (0.01, 0.25, 0.5):
            inside = sum(wave_opens((Wave(0, fraction),), place) is not None for place in places) / len(places)
            assert abs(inside - fraction) < 0.015
    # Others are first the next time, and a host's place never moves.
    first, second = ({n for n in range(1000) if place_of(str(n), version) < 0.1} for version in ("1.0", "2.0"))
    assert len(first & second) < 40
    assert place_of("a", "1.0") == place_of("a", "1.0")
    assert wave_opens((Wave(5, 1.0),), 1.0) == 5  # the wariest of all is in the last wave, not in none


def test_a_wave_that_has_not_come_is_said_with_its_time() -> None:
    offers = [offer("2.0", waves=(Wave(NOW - 1, 0.1), Wave(NOW + 3600, 0.5))), offer("1.5")]
    choice = choose(offers, running="1.0", denied=(), channel="alpha", now=NOW, wariness=0.3)
    assert choice.offer == offer("1.5")  # not left behind meanwhile
    (held,) = choice.held
    assert (held.version, held.gate, held.opens) == ("2.0", "wave", NOW + 3600)
    assert held.reason == "2.0 comes here at 2033-05-18T04:33:20Z, by waves"
    choice = choose(offers, running="1.5", denied=(), channel="alpha", now=NOW, wariness=0.8)
    assert choice.offer is None
    assert choice.reason == "2.0 is for 50% of all hosts so far, and not for this one"
    assert choose(offers, running="1.5", denied=(), channel="alpha", now=NOW, wariness=0.0).offer == offers[0]


@given(st.lists(st.floats(1e-4, 1.0), unique_by=lambda fraction: f"{fraction:.6g}", min_size=1, max_size=6))
def test_waves_survive_the_way_to_the_host(fractions: list[float]) -> None:
    waves = tuple(Wave(1000.0 * number, float(f"{fraction:.6g}")) for number, fraction in enumerate(sorted(fractions)))
    assert parse_waves(waves_to_json(waves)) == waves
    made = offer("1.0", "0.5", waves=waves, paused="why", barrier=True)
    assert parse_offer(offer_to_json(made)) == made


NONSENSE = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(NONSENSE)
@settings(max_examples=60)
def test_signed_nonsense_is_an_error_of_ours(value: object) -> None:
    for parse in (parse_waves, parse_policy, parse_time):
        try:
            parse(value)
        except InputError:
            continue


def test_the_lot_is_drawn_once(tmp_path: Path) -> None:
    path = str(tmp_path / "deep/lot")
    lot = host_lot(path)
    assert len(lot) == 32
    assert host_lot(path) == lot
    (tmp_path / "file").write_text("")
    assert host_lot(str(tmp_path / "file/lot")) == ""  # a host that cannot keep one is no brick


# --- steps ---


def test_several_floors_are_passed_one_by_one() -> None:
    offers = [offer("1.0"), offer("2.0"), offer("2.5", "2.0"), offer("3.0", "2.5"), offer("3.1", "2.5"),
              offer("4.0", "3.0")]  # fmt: skip
    assert way(offers, "1.0") == ["2.0", "2.5", "3.1", "4.0"]
    assert way(offers, "2.7") == ["3.1", "4.0"]  # a floor is passed by anything newer
    choice = choose(offers, running="1.0", denied=(), channel="alpha")
    assert choice.toward == "4.0"
    assert "4.0 needs 3.0 first" in choice.reason


def test_nobody_jumps_a_barrier() -> None:
    offers = [offer("1.0"), offer("1.5"), offer("2.0", barrier=True), offer("2.1"), offer("3.0", barrier=True),
              offer("4.0")]  # fmt: skip
    assert way(offers, "1.0") == ["2.0", "3.0", "4.0"]
    assert way(offers, "2.1") == ["3.0", "4.0"]
    assert way(offers, "1.0", Policy(yanked={"2.0": "x"})) == ["3.0", "4.0"]  # a barrier that is gone holds nobody
    # One that is denied here holds: what it does to the host was not done.
    choice = choose(offers, running="1.0", denied=[("2.0", "")], channel="alpha")
    assert choice.offer == offer("1.5")
    choice = choose(offers, running="1.5", denied=[("2.0", "")], channel="alpha")
    assert choice.offer is None
    assert "2.0 is denied" in choice.reason


def test_a_dead_end_says_what_to_do() -> None:
    policy = Policy(dead_ends={"1.0.0": "reinstall from the stick"})
    choice = choose([offer("2.0")], running="1.0", denied=(), channel="alpha", policy=policy)
    assert choice.offer is None
    assert choice.held[0].gate == "dead-end"
    assert "reinstall from the stick" in choice.reason
    with pytest.raises(ConflictError, match="reinstall from the stick"):
        choose_asked([offer("2.0")], "2.0", running="1.0", denied=(), channel="alpha", force=False, policy=policy)
    assert choose_asked([offer("2.0")], "2.0", running="1.0", denied=(), channel="alpha", force=True, policy=policy)


def test_what_a_person_asks_for_is_led_to_by_steps() -> None:
    offers = [offer("2.0"), offer("3.0", "2.0"), offer("4.0", "3.0", waves=(Wave(9e9, 1.0),)), offer("5.0")]

    def asked(version: str, running: str, *, force: bool = False, policy: Policy = Policy()) -> str:  # noqa: B008
        found = choose_asked(
            offers, version, running=running, denied=(), channel="alpha", force=force, policy=policy
        )  # fmt: skip
        return found.version

    assert [asked("4.0", running) for running in ("1.0", "2.0", "3.0")] == [
        "2.0",
        "3.0",
        "4.0",
    ]
    assert asked("4.0", "1.0", force=True) == "4.0"
    with pytest.raises(NotYetError, match="is paused: why"):
        asked("5.0", "1.0", policy=Policy(paused="why"))
    assert asked("5.0", "1.0", force=True, policy=Policy(paused="why")) == "5.0"
    with pytest.raises(UntrustedError, match="withdrawn: bad"):
        asked("5.0", "1.0", policy=Policy(yanked={"5.0": "bad"}))
    with pytest.raises(UntrustedError, match="allows nothing older than 3"):
        asked("2.0", "1.0", force=True, policy=Policy(minimum="3"))
    with pytest.raises(ConflictError, match=r"needs 2\.0 first, and no step"):
        choose_asked([offer("3.0", "2.0")], "3.0", running="1.0", denied=(), channel="alpha", force=False)
    with pytest.raises(NotFoundError):
        asked("9.9", "1.0")


# --- channels ---


def test_a_switch_takes_nothing_older_unless_asked() -> None:
    offers = [offer("1.0"), offer("1.5"), offer("1.4", barrier=True)]
    stay = choose(offers, running="2.0", denied=(), channel="stable", switched=True)
    assert (stay.offer, stay.refused) == (None, False)
    assert "nobody asked for a downgrade (update channel stable --allow-downgrade)" in stay.reason
    assert choose(offers, running="2.0", denied=(), channel="stable").refused  # else a channel that went backwards
    assert choose(offers, running="2.0", denied=(), channel="stable", downgrade=True).offer == offer("1.5")
    assert choose(offers, running="1.5", denied=(), channel="stable", downgrade=True).offer is None
    assert choose(offers, running="2.0", denied=[("1.5", "")], channel="stable", downgrade=True).offer == offers[2]


def test_the_channel_that_was_said_last_counts() -> None:
    chosen = Switched("beta", "stable", True)
    assert decode_switched(encode_switched(chosen)) == chosen
    assert chosen.channel_for("stable") == "beta"
    assert chosen.channel_for("alpha") == "alpha"  # the settings file was changed since
    for broken in (None, b"", b"{", b"[]", b'{"channel": "nightly", "settings": "stable"}'):
        assert decode_switched(broken).channel_for("stable") == "stable"


def test_rules_survive_the_way_to_the_host() -> None:
    policy = Policy(paused="p", minimum="1.0", yanked={"1.0": "y"}, dead_ends={"0.9": "d"})
    assert parse_policy(policy_to_json(policy)) == policy
    assert policy_to_json(Policy()) == {}
    assert policy.yanked_why("1.0.0") == "y"
    assert policy.yanked_why("1.0.1") == ""


def test_the_daemon_is_told_every_step_it_needs() -> None:
    """Three thousand releases: the newest, and the old ones that are floors or barriers."""
    offers = [offer(f"{number}.0", notes="n" * 1000) for number in range(1, 3001)]
    offers[9] = offer("10.0", barrier=True)
    offers[2999] = offer("3000.0", "20.0")
    told = worth_telling(offers)
    versions = {one.version for one in told}
    assert {"10.0", "20.0", "3000.0"} <= versions
    assert told == newest_first(told)
    import json

    assert len(json.dumps([offer_to_json(one) for one in told])) < 700_000
