# ruff: noqa: ASYNC221, ASYNC240 (a test may look at real processes and files)
"""Logs: nothing lost, nothing waits, any bytes."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from appliance.units.journal import Journal
from appliance.units.log_following import read_journal
from appliance.units.log_text import LINE_BYTES_MAX, split_line, stamp_lines
from units.stage import Stage

TIME = "2026-11-22T03:22:11.123Z"


async def texts(journal: Journal, **options: object) -> list[str]:
    return [line.text async for line in read_journal(journal, **options)]  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=60)))
def test_any_cut_of_the_stream_gives_the_same_file(pieces: list[bytes]) -> None:
    whole, _ = stamp_lines(b"".join(pieces), TIME, -1)
    text, column = b"", -1
    for piece in pieces:
        more, column = stamp_lines(piece, TIME, column)
        text += more
    assert text == whole
    assert text.replace(TIME.encode() + b" ", b"") == b"".join(pieces)


@given(st.lists(st.tuples(st.integers(0, 3 * LINE_BYTES_MAX), st.booleans()), max_size=6))
def test_long_lines_are_cut_and_no_byte_is_lost(sizes: list[tuple[int, bool]]) -> None:
    text, column, sent = b"", -1, b""
    for size, ends in sizes:
        piece = b"x" * size + (b"\n" if ends else b"")
        sent += piece
        more, column = stamp_lines(piece, TIME, column)
        text += more
    lines = text.split(b"\n")
    assert all(len(line) <= 25 + LINE_BYTES_MAX for line in lines)
    assert all(line.startswith(TIME.encode()) for line in lines if line)
    assert text.replace(TIME.encode() + b" ", b"").count(b"x") == sent.count(b"x")


def test_bytes_that_are_not_utf8_are_shown() -> None:
    assert split_line(f"{TIME} a".encode() + b"\xff\x00b") == (TIME, "a\\xff\x00b")
    assert split_line(b"half a line") == ("", "half a line")


async def test_last_lines_since_and_all(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "web"), limit=1 << 20)
    assert await texts(journal) == []
    journal.append(b"one\ntwo\nthr")
    assert await texts(journal) == ["one", "two", "thr"]
    journal.append(b"ee\nfour\n")
    assert await texts(journal) == ["one", "two", "three", "four"]
    for count, expected in ((0, []), (1, ["four"]), (2, ["three", "four"]), (9, ["one", "two", "three", "four"])):
        assert await texts(journal, lines=count) == expected
    assert await texts(journal, since=4e9) == []
    assert await texts(journal, since=1.0) == ["one", "two", "three", "four"]
    again = Journal(str(tmp_path / "web"), limit=1 << 20)
    again.append(b"five\n")
    assert await texts(again, lines=2) == ["four", "five"]


async def test_rotation_keeps_to_the_limit_and_readers_pass_over_the_cuts(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "web"), limit=64 << 10)
    for number in range(3000):
        journal.append(f"line {number} {os.urandom(40).hex()}\n".encode())
    total = sum(path.stat().st_size for path in (tmp_path / "web").iterdir())
    assert total <= 64 << 10
    assert len(list((tmp_path / "web").glob("*.log.zst"))) > 2
    numbers = [int(text.split()[1]) for text in await texts(journal)]
    assert numbers == list(range(numbers[0], 3000))
    assert numbers[0] > 0
    for count in (1, 100, 500):
        assert [int(text.split()[1]) for text in await texts(journal, lines=count)] == list(range(3000 - count, 3000))
    again = Journal(str(tmp_path / "web"), limit=64 << 10)
    again.append(b"line 3000 x\n")
    assert len(await texts(again, lines=501)) == 501


async def test_following_sees_every_line_over_rotations(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "web"), limit=1 << 20)
    seen: list[int] = []

    async def follow() -> None:
        async with contextlib.aclosing(read_journal(journal, follow=True)) as lines:  # type: ignore[type-var]
            async for line in lines:
                seen.append(int(line.text))
                if seen[-1] == 19_999:
                    return

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            for number in range(20_000):
                journal.append(f"{number}\n".encode())
                if number % 100 == 0:
                    await trio.lowlevel.checkpoint()
    assert seen == list(range(20_000))


async def test_a_slow_follower_holds_nobody_and_misses_only_what_is_trimmed(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "web"), limit=64 << 10)
    journal.append(b"0\n")
    reader = read_journal(journal, follow=True)
    assert (await anext(reader)).text == "0"
    for number in range(1, 20_000):
        journal.append(f"{number}\n".encode())
    with trio.fail_after(60):
        numbers = [int((await anext(reader)).text)]
        while numbers[-1] != 19_999:
            numbers.append(int((await anext(reader)).text))
    assert numbers == sorted(numbers)
    assert numbers[-1000:] == list(range(19_000, 20_000))
    await reader.aclose()  # type: ignore[attr-defined]


async def test_what_cannot_be_written_is_counted_and_later_lines_are_whole(tmp_path: Path) -> None:
    place = tmp_path / "web"
    place.write_text("in the way")
    journal = Journal(str(place), limit=1 << 20)
    journal.append(b"lost\n")
    assert journal.dropped == 5
    place.unlink()
    journal.append(b"kept\n")
    assert await texts(journal) == ["kept"]


async def test_a_full_disk_drops_and_goes_on(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs mount")
    import subprocess

    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], check=False).returncode:
        pytest.skip("cannot mount")
    try:
        journal = Journal(str(place / "web"), limit=16 << 20)
        for number in range(5000):
            journal.append(f"line {number}\n".encode())
        assert journal.dropped > 0
        assert (await texts(journal))[:3] == ["line 0", "line 1", "line 2"]
        current = Path(journal.current)
        current.unlink()
        journal.append(b"again\n")
        assert await texts(journal) == ["again"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_unit_that_prints_garbage_and_a_huge_line(stage: Stage) -> None:
    script = r'import os, time; os.write(1, b"a\xff\x00b\n" + b"y" * (1 << 20) + b"\nend\n"); time.sleep(1000)'
    stage.python("loud", script)
    async with stage.running() as units:
        await stage.log(units, "loud", "end")
        lines = [line async for line in units.logs("loud")]
        assert lines[0].text == "a\\xff\x00b"
        assert sum(len(line.text) for line in lines[1:-1]) == 1 << 20
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.time) for line in lines)
