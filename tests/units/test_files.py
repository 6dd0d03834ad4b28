# ruff: noqa: E501 (one broken file and its finding a line)
"""Templates, specifiers, drop-ins, masks, conditions: pure where it can be, else real units."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.schema import Source
from appliance.units import parse_unit, read_unit_file, read_unit_files
from appliance.units.conditions import ConditionsSection, unmet
from appliance.units.specifiers import HOST, expander, unescape
from units.stage import Stage

SERVICE = "[service]\ncommand = ['/bin/sh', '-c', 'exec sleep infinity']\n"
FACTS = dict.fromkeys(HOST, "fact")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("%i", "data-a\\x2db"), ("%I", "data/a-b"), ("%n", "foo-web@data-a\\x2db"), ("%N", "foo-web@data-a\\x2db"),
        ("%p", "foo-web"), ("%P", "foo/web"), ("%j", "web"), ("%J", "web"), ("%f", "/data/a-b"), ("%%i", "%i"),
        ("%t/%S/%C/%L/%E/%T/%V", "/run//var/lib//var/cache//var/log//etc//tmp//var/tmp"), ("%H%m%b", "factfactfact"),
        ("%y %Y", "/u/foo-web@.toml /u"), ("no more", "no more"),
    ],
)  # fmt: skip
def test_specifiers(text: str, wanted: str) -> None:
    assert expander("foo-web@data-a\\x2db", "/u/foo-web@.toml", FACTS)(text) == wanted


def test_a_unit_without_instance_has_specifiers_too() -> None:
    put = expander("foo-bar", "/u/foo-bar.toml", {}, suffix=".service")
    assert [put(one) for one in ("%i", "%n", "%N", "%p", "%f")] == [
        "",
        "foo-bar.service",
        "foo-bar",
        "foo-bar",
        "/foo/bar",
    ]
    for bad, message in (
        ("%Z", "unknown specifier %Z"),
        ("100%", "a % at the end"),
        ("%m", "does not know the machine id"),
    ):
        with pytest.raises(InputError, match=message):
            put(bad)


@given(st.text(max_size=20))
def test_what_is_doubled_stays(text: str) -> None:
    assert expander("a@b", "/u/a@.toml", FACTS)(text.replace("%", "%%")) == text
    unescape(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SERVICE + 'user = "%Z"\n', '/u/x@.toml:3:1: service.user: found the unknown specifier %Z; write %% for a percent sign'),
        (SERVICE + 'environment = { A = "50%" }\n', "/u/x@.toml:3:17: service.environment.A: found a % at the end; write %% for a percent sign"),
        ('[unit]\nwants = ["db@%i", "%x"]\n' + SERVICE, "/u/x@.toml:2:19: unit.wants[1]: found the unknown specifier %x; write %% for a percent sign"),
        ('[unit]\nwants = ["%n"]\n' + SERVICE, '/u/x@.toml:2:1: unit.wants: names the unit itself, "x@instance"'),
        ('[unit]\nspecifiers = 1\n' + SERVICE, "/u/x@.toml:2:1: unit.specifiers: found the integer 1, expected true or false"),
    ],
)  # fmt: skip
def test_a_template_is_checked_as_an_instance_would_be(text: str, expected: str) -> None:
    parsed = parse_unit(text, "/u/x@.toml", host=FACTS)
    assert parsed.unit is None
    assert [str(one) for one in parsed.findings] == [expected]


def test_a_percent_sign_is_a_percent_sign_in_a_plain_file_unless_it_says_so() -> None:
    text = "[service]\ncommand = ['date', '+%F %H']\n"
    plain = parse_unit(text, "/u/x.toml", host=FACTS).unit
    assert plain is not None
    assert plain.service.command == ("date", "+%F %H")
    put = parse_unit("[unit]\nspecifiers = true\n" + text.replace("%F", "%n"), "/u/x.toml", host=FACTS).unit
    assert put is not None
    assert put.service.command == ("date", "+x fact")


def test_drop_ins_merge_tables_and_replace_lists() -> None:
    main = "[unit]\nwants = ['a', 'b']\n[service]\ncommand = ['x']\nenvironment = { A = '1', B = '1' }\n"
    more = Source(
        "/u/x.toml.d/10.toml", "[unit]\nwants = ['c']\n[service]\nenvironment = { B = '2' }\nuser = 'daemon'\n"
    )
    unit = parse_unit(main, "/u/x.toml", drop_ins=[more]).unit
    assert unit is not None
    assert unit.document.unit.wants == ("c",)
    assert dict(unit.service.environment) == {"A": "1", "B": "2"}
    again = parse_unit(unit.whole_text, "/u/x.toml").unit
    assert again is not None
    assert again.document == unit.document
    bad = parse_unit(main, "/u/x.toml", drop_ins=[Source("/u/x.toml.d/10.toml", "[service]\nusr = 'x'\n")])
    assert str(bad.findings[0]).startswith("/u/x.toml.d/10.toml:2:1: service.usr: unknown key")


@settings(deadline=None)
@given(st.text(max_size=120), st.text(max_size=60))
def test_no_text_crashes_a_template_or_a_drop_in(text: str, more: str) -> None:
    for whole in (text, SERVICE + text, f"[unit]\ndescription = '''{text}'''\n{SERVICE}"):
        parsed = parse_unit(whole, "/u/x@.toml", drop_ins=[Source("/u/x@.toml.d/a.toml", more)], host=FACTS)
        assert (parsed.unit is None) == any(one.severity == "error" for one in parsed.findings)


def test_a_directory_of_files_links_and_drop_ins(tmp_path: Path) -> None:
    (tmp_path / "web@.toml").write_text("[unit]\nwants = ['db@%i']\n" + SERVICE)
    (tmp_path / "db@.toml").write_text(SERVICE)
    (tmp_path / "web@1.toml").symlink_to("web@.toml")
    (tmp_path / "off.toml").symlink_to("/dev/null")
    (tmp_path / "all.toml").write_text("[unit]\nrequires = ['web@2', 'off']\n")
    below = tmp_path / "web@.toml.d"
    below.mkdir()
    (below / "10.toml").write_text("[service]\nuser = 'daemon'\n")
    (below / "20.toml").write_text("[service]\nuser = 'nobody'\n")
    other = tmp_path / "web@2.toml.d"
    other.mkdir()
    (other / "20.toml").symlink_to("/dev/null")
    found = read_unit_files(str(tmp_path), ["db@9", "nothing@1"])
    assert not found.findings
    assert sorted(found.units) == ["all", "db@1", "db@2", "db@9", "web@1", "web@2"]
    assert found.implied == {"db@1", "db@2", "db@9", "web@2"}
    assert (found.units["web@1"].service.user, found.units["web@2"].service.user) == ("nobody", "daemon")
    assert found.masked == {"off"}
    assert read_unit_file(str(tmp_path / "web@.toml"))[1] is not None


@given(st.lists(st.booleans(), max_size=4), st.lists(st.booleans(), max_size=4), st.booleans())
def test_conditions_all_hold_and_one_of_the_triggers(plain: list[bool], triggers: list[bool], turn: bool) -> None:
    sign = "!" if turn else ""
    values = [f"{sign}/{good}" for good in plain] + [f"|{sign}/{good}" for good in triggers]
    section = ConditionsSection(path_exists=tuple(values))
    met = not unmet(section, lambda kind, value: (value == "/True") is not turn)
    assert met == (all(plain) and (not triggers or any(triggers)))


async def test_a_unit_whose_condition_does_not_hold_is_skipped_and_holds_nobody_up(
    stage: Stage, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    stage.write("maybe", f"[unit]\nconditions = {{ path_exists = ['{flag}'] }}\n{SERVICE}")
    stage.write("next", f"[unit]\nrequires = ['maybe']\nafter = ['maybe']\n{SERVICE}")
    async with stage.running() as units:
        await stage.state(units, "next", "ready")
        assert units.picture("maybe").reason == f"skipped: path_exists {flag} does not hold"
        assert (await units.start("maybe")).state == "stopped"
        flag.touch()
        assert (await units.start("maybe")).state == "ready"


async def test_on_failure_and_on_success_call_units_that_else_stay_down(stage: Stage, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for name in ("alert", "praise"):
        stage.shell(name, f"echo {name} >> {trace}", service='type = "oneshot"')
    stage.shell(
        "bad", "exit 3", more='[restart]\npolicy = "no"\n[unit]\non_failure = ["alert"]\non_success = ["praise"]'
    )
    stage.shell(
        "good", "exit 0", service='type = "oneshot"', more='[unit]\non_success = ["praise"]\non_failure = ["alert"]'
    )
    async with stage.running() as units:
        await stage.until(lambda: "exited" in stage.states("alert") and "exited" in stage.states("praise"))
        await stage.state(units, "alert", "stopped")
        assert sorted(trace.read_text().split()) == ["alert", "praise"]
        assert units.health() == {"bad": False, "good": True}


async def test_bound_and_conflicting_units_with_real_processes(stage: Stage) -> None:
    stage.shell("disk", "exec sleep infinity", more='[restart]\npolicy = "no"')
    stage.shell("db", "exec sleep infinity", more='[unit]\nbinds_to = ["disk"]')
    stage.shell("blue", "exec sleep infinity", more='[unit]\nconflicts = ["green"]')
    stage.shell("green", "exec sleep infinity")
    async with stage.running() as units:
        await stage.state(units, "db", "ready")
        await stage.state(units, "blue", "ready")
        assert units.picture("green").reason == "it conflicts with blue"
        pid = units.picture("disk").pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        await stage.state(units, "db", "stopped")
        assert units.picture("db").reason == "it requires disk, which is exited"
        await units.start("green")
        assert units.picture("blue").state == "stopped"
    assert stage.keeper.kept == {"units/blue/desired": b"stopped"}
    async with stage.running() as units:
        await stage.state(units, "green", "ready")
        await units.start("blue")
        assert units.picture("green").state == "stopped"


async def test_called_units_are_adopted_and_at_rest_they_are_down(stage: Stage) -> None:
    stage.write("work@", "[service]\ncommand = ['/bin/sh', '-c', 'echo %i; exec sleep infinity']\n")
    async with stage.running(detach=True) as units:
        with trio.fail_after(30):
            pid = (await units.start("work@a")).pid
    async with stage.running() as units:
        assert units.picture("work@a").pid == pid
        await units.stop("work@a")
        await stage.until(lambda: not units.pictures())
