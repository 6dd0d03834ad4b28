"""Small pure rules: versions, which offer is taken, the health gate, the schedule, settings, footers."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError, ConflictError, InputError, NotFoundError, UnavailableError, UntrustedError
from appliance.schema import read
from appliance.update.answer import parse_answer
from appliance.update.choosing import choose, choose_asked
from appliance.update.health import Trial, Verdict, look, step
from appliance.update.offer import Offer, offer_of_target, offer_to_json, parse_offer
from appliance.update.pack import parse_footer
from appliance.update.schedule import first_delay, next_delay
from appliance.update.settings import UpdateSettings, without_secret
from appliance.update.version import parse_version


def test_versions_are_ordered_as_semver_orders_them() -> None:
    rising = ["0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
              "1.0.0", "1.0.1", "1.2", "1.10.0", "2"]  # fmt: skip
    assert [str(version) for version in sorted(map(parse_version, reversed(rising)))] == rising
    assert parse_version("1.0") == parse_version("1.0.0") == parse_version("1.0.0+build.7")
    for bad in ("", "v1", "1.", "1..2", "1.0-", "1.0 ", "-", "1.0/../2", "1" * 99):
        with pytest.raises(InputError, match="must look like"):
            parse_version(bad)


def offer(version: str, floor: str = "") -> Offer:
    return Offer(f"alpha/{version}/x86_64/appliance", version, f"{abs(hash(version)):064x}"[:64], 9, floor)


def test_the_newest_that_may_be_taken() -> None:
    offers = [offer("1.0"), offer("3.0"), offer("2.0")]
    picked = choose(offers, running="1.0", denied=(), channel="alpha")
    assert picked.offer == offer("3.0")
    picked = choose(offers, running="1.0", denied=[("3.0", "0" * 64)], channel="alpha")
    assert picked.offer == offer("2.0")
    picked = choose([*offers, offer("4.0", floor="3.0")], running="2.0", denied=(), channel="alpha")
    assert picked.offer == offer("3.0")  # the floor is passed first
    picked = choose(offers, running="3.0", denied=(), channel="alpha")
    assert (picked.offer, picked.refused, picked.reason) == (None, False, "3.0 is the newest in channel alpha")
    picked = choose(offers, running="9.0", denied=(), channel="alpha")
    assert picked.refused
    assert "older than the running 9.0" in picked.reason
    picked = choose(offers, running="2.0", denied=[("3.0", "0" * 64)], channel="alpha")
    assert "3.0 is denied" in picked.reason
    assert "offers nothing" in choose([], running="2.0", denied=(), channel="alpha").reason


def test_what_a_person_asks_for() -> None:
    offers = [offer("1.0"), offer("3.0", floor="2.5"), offer("2.0")]

    def asked(
        version: str, running: str = "1.5", denied: tuple[tuple[str, str], ...] = (), force: bool = False
    ) -> Offer:
        return choose_asked(offers, version, running=running, denied=denied, channel="alpha", force=force)

    assert asked("2.0.0") == offer("2.0")
    for kind, version, running, denied in (
        (NotFoundError, "8.0", "1.5", ()),
        (UntrustedError, "1.0", "1.5", ()),
        (UntrustedError, "2.0", "1.5", (("2.0", "0" * 64),)),
        (ConflictError, "2.0", "2.0", ()),
        (ConflictError, "3.0", "2.0", ()),
    ):
        with pytest.raises(kind):
            asked(version, running, denied)
        if kind is not NotFoundError:
            assert asked(version, running, denied, force=True).version == version


def test_a_target_that_contradicts_itself_is_refused() -> None:
    custom = {"product": "appliance", "kind": "binary", "architecture": "x86_64", "version": "2.0"}
    path = "alpha/2.0/x86_64/appliance"

    def made(path: str, **changes: object) -> Offer | None:
        return offer_of_target(
            path, length=5, sha256="f" * 64, custom={**custom, **changes}, channel="alpha", architecture="x86_64"
        )

    good = made(path, floor="1.0", notes="n")
    assert good is not None
    assert parse_offer(offer_to_json(good)) == good
    assert made(path, product="other") is None
    assert made(path, architecture="aarch64") is None
    for changes in ({"version": "3.0"}, {"version": "x"}, {"floor": "nonsense"}):
        with pytest.raises(UntrustedError):
            made(path, **changes)
    with pytest.raises(UntrustedError):
        made("alpha/../../etc/x86_64/appliance")


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_an_offer_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        parse_offer(value)


@given(st.binary(max_size=300))
def test_a_worker_that_babbles_is_an_error_of_ours(data: bytes) -> None:
    with contextlib.suppress(ApplianceError):
        parse_answer(data)


def test_a_workers_error_is_raised_again() -> None:
    with pytest.raises(UntrustedError, match="expired"):
        parse_answer(b'{"event": "error", "kind": "untrusted", "message": "expired"}\n')
    with pytest.raises(UnavailableError):
        parse_answer(b'{"event": "error", "kind": "of a newer version", "message": "x"}')
    with pytest.raises(InputError):
        parse_answer(b"Traceback...")


def seen(missing: str = "") -> object:
    return look(
        services=(True, ()), units={}, healthy_before=(), ignore=(), failed_checks=(missing,) if missing else ()
    )  # fmt: skip


def test_well_for_the_whole_settle_time_within_the_deadline() -> None:
    trial = Trial(started=100.0, settle_seconds=10, deadline_seconds=60)
    verdicts = []
    for now, missing in ((101, "x"), (105, ""), (114, ""), (114.5, "x"), (115, ""), (124, ""), (125, "")):
        trial, verdict = step(trial, seen(missing), now)  # type: ignore[arg-type]
        verdicts.append(verdict)
    assert verdicts == [Verdict.SETTLING] * 6 + [Verdict.HEALTHY]
    trial = Trial(started=0, settle_seconds=0, deadline_seconds=5)
    assert step(trial, seen(), 0)[1] is Verdict.HEALTHY  # type: ignore[arg-type]
    after, verdict = step(trial, seen("still no"), 5)  # type: ignore[arg-type]
    assert (verdict, after.missing) == (Verdict.UNHEALTHY, ("still no",))


def test_what_is_missing_is_said() -> None:
    found = look(
        services=(False, ("store is backoff",)),
        units={"web": False, "db": True, "flappy": False},
        healthy_before=("web", "db", "gone", "flappy"),
        ignore=("flappy",),
        failed_checks=("check tcp x:1: refused",),
    )
    assert found.missing == (
        "store is backoff",
        "unit web, healthy before the update, is not healthy",
        "unit gone, healthy before the update, is gone",
        "check tcp x:1: refused",
    )


def test_delays_stay_in_their_bounds() -> None:
    assert first_delay(600, 1.0) == 600
    assert first_delay(86400, 1.0) == 3600
    assert first_delay(600, 1.0, stepped=True) == 30
    assert first_delay(1, 0.5) == 0.5
    for failures in (0, 1, 5, 5000):
        for chance in (0.0, 1.0):
            assert 0 < next_delay(600, failures, chance) <= 660.1
    assert next_delay(600, 1, 0.5) < next_delay(600, 2, 0.5) < next_delay(600, 0, 0.5) + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('repository = "ftp://x"', "allowed are http, https, file"),
        ('repository = "relative/path"', "absolute path"),
        ('channel = "nightly"', "alpha"),
        ('interval = "10 parsecs"', "duration"),
        ("[health]\ntries = 0", "tries"),
        ('[health]\nsettle = "1h"\ndeadline = "1m"', "shorter than deadline"),
        ('[[health.check]]\nhttp = "http://x/"\ntcp = "x:1"', "exactly one of http, tcp, command"),
        ("[[health.check]]\ncommand = []", "must not be empty"),
        ('[[health.check]]\ntcp = "x"', "tcp"),
    ],
)
def test_settings_say_what_is_wrong(text: str, said: str) -> None:
    document = read(text, "update.toml", UpdateSettings)
    assert document.value is None
    assert said in "\n".join(map(str, document.findings))


def test_good_settings() -> None:
    text = """
repository = "https://updates.example.org/appliance"
channel = "beta"
interval = "1h"
strategy = "manual"
[health]
settle = "5s"
deadline = "1m"
tries = 2
ignore_units = ["flappy"]
[[health.check]]
http = "http://127.0.0.1:8080/ready"
timeout = "2s"
[[health.check]]
command = ["/bin/true"]
"""
    value = read(text, "update.toml", UpdateSettings).value
    assert value is not None
    assert (value.interval, value.health.check[0].timeout, value.health.check[1].command) == (3600, 2, ("/bin/true",))
    assert without_secret("cannot fetch https://me:pass@host/x") == "cannot fetch https://(redacted)@host/x"


def test_a_footer_says_who_a_binary_is() -> None:
    tail = struct.pack("<QQQ64s64s16s", 1, 2, 3, b"f" * 64, b"1.2.3", b"APPLIANCE-PACK-1")
    assert parse_footer(tail, file="x").version == "1.2.3"
    for bad in (b"", tail[1:], tail[:-1] + b"2"):
        with pytest.raises(InputError, match="no appliance binary"):
            parse_footer(bad, file="x")
