"""Logs of many units as one stream: order, filters, rates, ages, packed pieces; the kernel's."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InputError, NotFoundError
from appliance.host.kmsg import parse_record_untrusted
from appliance.units import Entry, LogQuery, Units, fields_of, parse_clause, parse_priority, read_log_files
from appliance.units.journal import Growth, Journal, LogLimits
from appliance.units.log_following import read_journal, read_logs
from appliance.units.log_rate import RateGate
from appliance.units.log_section import Rate, parse_rate
from appliance.units.log_text import split_priority
from units.stage import Stage

NOON = 1_790_000_000.0


def written(directory: Path, name: str, lines: list[tuple[float, str]], growth: Growth | None = None) -> Journal:
    journal = Journal(str(directory / name), limit=16 << 20, growth=growth)
    for seconds, text in lines:
        journal.append_at(text.encode() + b"\n", NOON + seconds)
    return journal


async def found(journals: dict[str, Journal], query: LogQuery) -> list[str]:
    batches = read_logs(journals, query, Growth())
    return [f"{one.unit} {one.data.decode()}" async for entries in batches for one in entries]


async def test_units_are_told_as_one_by_time(tmp_path: Path) -> None:
    web = written(tmp_path, "web", [(0, "one"), (2, "three"), (4, "five")])
    store = written(tmp_path, "db", [(1, "two"), (3, "four"), (3, "four and a half")])
    both = {"web": web, "db": store}
    everything = ["web one", "db two", "web three", "db four", "db four and a half", "web five"]
    assert await found(both, LogQuery()) == everything
    for count in range(8):
        assert await found(both, LogQuery(lines=count)) == everything[6 - min(count, 6) :]
    since, until = "2026-09-21T14:13:22.000Z", "2026-09-21T14:13:23.500Z"  # NOON + 2, NOON + 3.5
    assert await found(both, LogQuery(since=since)) == everything[2:]
    assert await found(both, LogQuery(since=since, until=until)) == everything[2:5]
    assert await found(both, LogQuery(lines=2, until=until)) == everything[3:5]
    assert await found(both, LogQuery(contains="F", ignore_case=True)) == everything[3:]
    assert await found(both, LogQuery(contains="four", invert=True, lines=2)) == ["web three", "web five"]
    assert [one.data for one in read_log_files(str(tmp_path), ["web"], LogQuery(lines=1))] == [b"five"]
    with pytest.raises(NotFoundError):
        list(read_log_files(str(tmp_path), ["none"], LogQuery()))


async def test_fields_and_priorities(tmp_path: Path) -> None:
    lines = [
        '{"level":"info","code":200}', '{"level":"error","code":503,"http":{"path":"/x"}}', "plain words",
        '<3>{"level":"error","code":70}', "<7>chatter", "{broken", '["level"]',
    ]  # fmt: skip
    journals = {"web": written(tmp_path, "web", [(number, line) for number, line in enumerate(lines)])}

    async def where(*clauses: str, **more: int) -> list[int]:
        query = LogQuery(
            where=tuple(map(parse_clause, clauses)), priority=more.get("priority"), lines=more.get("lines")
        )
        return [lines.index(one.removeprefix("web ")) for one in await found(journals, query)]

    assert await where("level=error") == [1, 3]
    assert await where("level=error", lines=1) == [3]
    assert await where("level=error", "code>=500") == [1]
    assert await where("http.path=/x") == [1]
    assert await where("http.path!=/x") == [0, 3]
    assert await where("code<100") == [3]
    assert await where(priority=3) == [3]
    assert await where(priority=6) == [0, 1, 2, 3, 5, 6]
    for wrong in ("level", "=x", "", "a b=c"):
        with pytest.raises(InputError):
            parse_clause(wrong)
    assert [parse_priority(word) for word in ("err", "error", "0", "WARNING")] == [3, 3, 0, 4]
    with pytest.raises(InputError):
        parse_priority("loud")
    line = Entry("", "web", b"<3>it \xff broke").line()
    assert (line.priority, line.text) == (3, "it \\xff broke")
    assert split_priority(b"<999>x") == (None, b"<999>x")
    assert fields_of(b"[" * 100_000) is None
    assert fields_of(b'{"a":' * 100_000) is None


@given(st.binary(max_size=200))
def test_any_bytes_may_stand_in_a_log(data: bytes) -> None:
    line = Entry("", "web", data).line()
    json.dumps(line.text)
    fields_of(data)
    parse_record_untrusted(data, 0.0)


def test_a_long_line_is_one_again(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "web"), limit=16 << 20)
    long = os.urandom(3 << 19).hex().encode()  # 3 MB: over several pieces
    for at in range(0, len(long), 50_000):
        journal.append(long[at : at + 50_000])
    journal.append(b"\nshort\n")
    assert len(journal.sequences()) >= 2, "a line without an end must not keep a log from being cut"
    assert [one.data for one in read_log_files(str(tmp_path), [], LogQuery())] == [long, b"short"]
    assert [one.data for one in read_log_files(str(tmp_path), [], LogQuery(lines=2))] == [long, b"short"]


def test_endless_output_without_a_line_keeps_to_the_limit(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "web"), limit=256 << 10)
    for _ in range(200):
        journal.append(os.urandom(32 << 10).replace(b"\n", b"."))
    assert sum(one.stat().st_size for one in (tmp_path / "web").iterdir()) <= 256 << 10


def test_old_pieces_are_read_with_packed_ones(tmp_path: Path) -> None:
    place = tmp_path / "web"
    place.mkdir()
    stamp = "2026-11-22T03:22:11.123Z"
    (place / "00000001.log").write_text(f"{stamp} of an older version\n")
    (place / "current").write_text(f"{stamp} its last line\n")
    journal = Journal(str(place), limit=16 << 20)
    for number in range(20_000):
        journal.append(f"line {number} {'.' * 60}\n".encode())
    assert list(place.glob("*.log.zst"))
    lines = [one.data.decode() for one in read_log_files(str(tmp_path), ["web"], LogQuery())]
    assert lines[:3] == ["of an older version", "its last line", f"line 0 {'.' * 60}"]
    assert len(lines) == 20_002
    size = sum(one.stat().st_size for one in place.iterdir())
    assert size < 20_000 * 60, "pieces are packed"
    (packed,) = list(place.glob("*.log.zst"))[:1]
    packed.write_bytes(packed.read_bytes()[:100])  # half of it lost with a disk
    rest = list(read_log_files(str(tmp_path), ["web"], LogQuery()))
    assert 0 < len(rest) < 20_002
    assert rest[-1].data.startswith(b"line 19999 ")


def test_old_lines_are_forgotten(tmp_path: Path) -> None:
    limits = LogLimits(16 << 20, age=3600.0)
    journal = Journal(str(tmp_path / "web"), limits=limits)
    journal.append_at(b"old\n", time.time() - 7200)
    journal.append(b"new\n")
    assert [one.data for one in _of(journal)] == [b"new"]
    (tmp_path / "web" / "00000001.log").write_text("2020-01-01T00:00:00.000Z ages ago\n")
    os.utime(tmp_path / "web" / "00000001.log", (time.time() - 7200,) * 2)
    Journal(str(tmp_path / "web"), limits=limits).append(b"newer\n")
    assert not (tmp_path / "web" / "00000001.log").exists()
    assert [one.data for one in _of(journal)] == [b"new", b"newer"]


def _of(journal: Journal) -> list[Entry]:
    from appliance.units.log_reading import Reading

    reading = Reading({"web": journal}, LogQuery())
    list(reading.begin())
    entries = []
    while reading.has_more:
        entries += reading.take()
    return entries


def test_rates() -> None:
    assert parse_rate("1000/10s") == Rate(1000, 10.0)
    assert parse_rate("5/s") == Rate(5, 1.0)
    assert parse_rate("unlimited") is None
    for wrong in ("", "5", "/s", "0/s", "5/", "5/0s", "-5/s", "5/3d", "x/s"):
        with pytest.raises(InputError):
            parse_rate(wrong)
    gate = RateGate(Rate(3, 10.0))
    assert gate.take(b"1\n2\n3\n4\n5\n6", 0.0) == b"1\n2\n3\n"
    assert gate.take(b" and\n7\n", 1.0) == b""
    assert gate.take(b"8\n9\n", 10.0) == b"8\n9\n"
    assert gate.report() == "4 lines (12 bytes) dropped: more than 3 in 10 s ([logs] rate)"
    assert gate.report() == ""
    assert gate.take(b"x" * 100_000, 20.0) == b"", "a flood without lines is one too"


@given(st.lists(st.binary(max_size=30), max_size=30), st.integers(1, 9))
def test_a_rate_drops_whole_lines_and_counts_them(pieces: list[bytes], burst: int) -> None:
    gate = RateGate(Rate(burst, 10.0))
    passed = b"".join(gate.take(piece, number / 3) for number, piece in enumerate(pieces))
    sent = b"".join(pieces)
    assert len(passed) + gate.lost_bytes == len(sent)
    assert passed.count(b"\n") + gate.lost_lines == sent.count(b"\n")


async def test_what_was_dropped_stands_in_the_log(stage: Stage) -> None:
    script = "for i in $(seq 500); do echo line $i; done; sleep 1.2; echo calm; for i in $(seq 50); do echo $i; done"
    stage.shell("loud", script, service="type = 'oneshot'", more="[logs]\nrate = '10/1s'")
    async with stage.running() as units:
        await stage.log(units, "loud", "calm")
        await stage.state(units, "loud", "stopped", "exited")
        lines = [line async for line in units.logs("loud")]
    assert [line.text for line in lines[:10]] == [f"line {number}" for number in range(1, 11)]
    notes = [line for line in lines if "dropped: more than 10 in 1 s" in line.text]
    assert notes, [line.text for line in lines]
    assert {line.priority for line in notes} == {4}
    lost = sum(int(line.text.split()[1]) for line in notes)
    assert lost + len(lines) - len(notes) == 551


async def test_followers_of_all_hear_of_units_that_come_later(stage: Stage) -> None:
    stage.shell("first", "while :; do echo from first; sleep 0.05; done")
    async with stage.running() as units:
        await stage.log(units, "first", "from first")
        heard: set[str] = set()
        told: list[int] = []
        async with contextlib.aclosing(units.search_logs([], LogQuery(lines=1, follow=True))) as batches:
            async for entries in batches:
                told.append(len(entries))
                heard |= {one.unit for one in entries}
                if told == [1, 0]:  # the last line; then all that was there is told
                    stage.shell("second", "echo from second; sleep 1000")
                    await units.reload()
                if heard == {"first", "second"}:
                    break
        assert told[:2] == [1, 0]
        with pytest.raises(NotFoundError):
            units.search_logs(["none"], LogQuery())


async def test_a_unit_whose_file_is_gone_can_still_be_read(stage: Stage) -> None:
    stage.shell("gone", "echo last words", service="type = 'oneshot'")
    async with stage.running() as units:
        await stage.log(units, "gone", "last words")
    (stage.directory / "gone.toml").unlink()
    async with stage.running() as units:
        assert [line.text async for line in units.logs("gone")] == ["last words"]
        with pytest.raises(NotFoundError):
            units.logs("../units/gone")


async def kernel_lines(units: Units, wanted: str) -> list[str]:
    lines: list[str] = []
    async with contextlib.aclosing(units.search_logs(["kernel"], LogQuery(follow=True), kernel=True)) as batches:
        async for entries in batches:
            lines += [one.line().text for one in entries]
            if any(wanted in line for line in lines):
                return lines
    raise AssertionError


def say_as_kernel(text: str) -> None:
    Path("/dev/kmsg").write_text(f"<5>{text}\n")


async def test_the_kernel_speaks_once(stage: Stage) -> None:
    mark = f"appliance test {os.urandom(8).hex()}"
    try:
        say_as_kernel(f"{mark} one")
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    except OSError as exc:
        pytest.skip(f"/dev/kmsg: {exc}")
    async with stage.running() as units:
        await kernel_lines(units, f"{mark} one")
    async with stage.running() as units:
        say_as_kernel(f"{mark} two")
        lines = [line for line in await kernel_lines(units, f"{mark} two") if mark in line]
        assert lines == [f"{mark} one", f"{mark} two"]
        unheard = [one.unit async for entries in units.search_logs([], LogQuery()) for one in entries]
        assert unheard == []
        with pytest.raises(NotFoundError):
            units.search_logs(["kernel"], LogQuery())


def test_records_of_the_kernel() -> None:
    message = parse_record_untrusted(rb"30,339,5140900,-;usb 1-1: a\x0ab\xc3" + b"\n SUBSYSTEM=usb\n", 1000.0)
    assert message is not None
    assert (message.sequence, message.priority, message.seconds) == (339, 6, 1005.1409)
    assert message.text == b"usb 1-1: a\nb\xc3"
    assert parse_record_untrusted(b"6,x,1,-;text", 0.0) is None


async def test_many_logs_at_once_are_short_steps(tmp_path: Path) -> None:
    journals = {f"u{number}": written(tmp_path, f"u{number}", [(number / 1000, "x" * 50)]) for number in range(300)}
    assert len(await found(journals, LogQuery(lines=5))) == 5
    assert len(await found(journals, LogQuery())) == 300
    assert (await found(journals, LogQuery(lines=1)))[0].startswith("u299 ")
    one = journals["u7"]
    assert [line.text async for line in read_journal(one, lines=1)] == ["x" * 50]
