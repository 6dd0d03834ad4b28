"""Which of stdout and stderr a line was written to, and by which start of the unit; also over kill -9."""

from __future__ import annotations

from pathlib import Path

from appliance.units import Entry, LogQuery, Units, read_log_files
from appliance.units.invocations import Invocations
from appliance.units.journal import Growth, Journal
from appliance.units.log_cursor import Pieces, newest_first
from appliance.units.log_following import read_logs
from units.stage import Stage
from units.test_adoption import run_and_kill

APART = 'standard_error = "journal"'
NO_RESTART = '[restart]\npolicy = "no"'


async def entries(units: Units, name: str, **asked: object) -> list[Entry]:
    batches = units.search_logs([name], LogQuery(**asked))  # type: ignore[arg-type]
    return [one async for some in batches for one in some]


def told(found: list[Entry]) -> list[tuple[str, str]]:
    return [(one.stream, one.data.decode()) for one in found]


async def test_stderr_is_told_apart_when_it_has_a_stream_of_its_own(stage: Stage) -> None:
    script = "echo one; echo two >&2; echo three > /dev/stderr; sleep 0.2; echo four; test -p /dev/stderr && echo pipe"
    stage.shell("apart", script, service=APART, more=NO_RESTART)
    stage.shell("one", script, more=NO_RESTART)
    stage.shell(
        "file", f"echo {stage.root}; echo two >&2", service=f"{APART}\nstandard_output = 'null'", more=NO_RESTART
    )
    async with stage.running() as units:
        for name in ("apart", "one", "file"):
            await stage.state(units, name, "exited")
        both = told(await entries(units, "apart"))
        assert [text for stream, text in both if stream == "stdout"] == ["one", "four", "pipe"]
        assert [text for stream, text in both if stream == "stderr"] == ["two", "three"]
        assert told(await entries(units, "apart", stream="stderr", lines=1)) == [("stderr", "three")]
        assert told(await entries(units, "one")) == [("", word) for word in ("one", "two", "three", "four", "pipe")]
        assert told(await entries(units, "file")) == [("stderr", "two")]
        line = (await entries(units, "apart", stream="stderr"))[0].line()
        assert (line.text, line.stream, line.invocation) == ("two", "stderr", units.picture("apart").invocation)


async def test_each_line_knows_which_start_wrote_it(stage: Stage) -> None:
    stage.shell(
        "web", "echo $INVOCATION_ID; exec sleep 1000", service="post_start = ['sh', '-c', 'echo post $INVOCATION_ID']"
    )
    async with stage.running() as units:
        ids = []
        for _ in range(3):
            await stage.state(units, "web", "ready")
            ids.append(units.picture("web").invocation)
            await stage.log(units, "web", f"post {ids[-1]}")
            await units.restart("web")
        await stage.state(units, "web", "ready")
        ids.append(units.picture("web").invocation)
        await stage.log(units, "web", f"post {ids[-1]}")
        assert len(set(ids)) == 4
        assert all(len(one) == 32 and int(one, 16) >= 0 for one in ids)
        for one in await entries(units, "web"):
            assert one.invocation == one.data.decode().removeprefix("post ")
        for word, number in (("0", 3), ("-1", 2), ("-3", 0), (ids[1], 1), (ids[1][:9], 1)):
            for lines in (None, 10):
                assert {one.invocation for one in await entries(units, "web", invocation=word, lines=lines)} == {
                    ids[number]
                }
        for word in ("-4", "ffffffffff", "zz", ids[0][:3]):
            assert await entries(units, "web", invocation=word) == []
        await units.stop("web")
        assert units.picture("web").invocation == ids[3], "the last one, of a unit that is down"
    left = read_log_files(stage.layout.journal, ["web"], LogQuery(invocation="0"))
    assert {one.data.decode().removeprefix("post ") for one in left} == {ids[3]}


async def test_both_outlive_the_daemon(stage: Stage) -> None:
    count = "i=0; while :; do i=$((i+1)); echo out $i; echo err $i >&2; sleep 0.02; done"
    stage.shell("count", count, service=APART)
    run_and_kill(stage, ["count ready"])
    async with stage.running(detach=True) as units:
        await stage.log(units, "count", "err 40")
        mine = units.picture("count").invocation
    stage.write("count", (stage.directory / "count.toml").read_text().replace(APART, ""))  # for its next start
    async with stage.running() as units:
        await stage.log(units, "count", "err 60")
        found = await entries(units, "count")
        assert {one.invocation for one in found} == {mine}
        for stream, word in (("stdout", "out"), ("stderr", "err")):
            numbers = [int(one.data.split()[1]) for one in found if one.stream == stream]
            assert all(one.data.decode().split()[0] == word for one in found if one.stream == stream)
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) >= 59
    assert len((Path(stage.layout.journal) / "count/invocations").read_text().splitlines()) == 1


async def test_a_line_that_is_cut_by_the_other_stream(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "web"), limit=1 << 20)
    for data, stream in (
        (b"half", "stdout"),
        (b"whole\n", "stderr"),
        (b" a line\n", "stdout"),
        (b"x" * 40_000 + b"\n", "stderr"),
    ):
        journal.append(data, stream=stream, invocation="a" * 32)
    wanted = [("stdout", "half"), ("stderr", "whole"), ("stdout", " a line"), ("stderr", "x" * 40_000)]
    batches = read_logs({"web": journal}, LogQuery(), Growth())
    assert told([one async for some in batches for one in some]) == wanted
    assert told([one for one, _ in newest_first(journal, "web", Pieces())]) == wanted[::-1]


def test_what_is_noted_of_starts_stays_small(tmp_path: Path) -> None:
    for number in range(3000):
        journal = Journal(str(tmp_path), limit=1 << 20)  # as after a kill: it does not know what was noted last
        journal.append(b"a\n", invocation=f"{number // 2:032x}")
    path = tmp_path / "invocations"
    assert path.stat().st_size < 65 << 10
    found = Invocations(str(tmp_path))
    found.look()
    assert found.find("0") == f"{1499:032x}"
    assert found.find("-1") == f"{1498:032x}", "noted once"
    path.write_bytes(b"\xff\n2026 \nbroken\n\n")
    found.look()
    assert found.at("2027") == ""
