# ruff: noqa: ASYNC110, ASYNC230, ASYNC240 (a test may touch real files, and look again)
"""Units that start when a file appears or changes: real files, no polling."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from appliance.host.inotify import CREATED, WRITTEN, Inotify
from appliance.host.poller import Poller
from appliance.units import Units
from units.stage import PATIENCE_SECONDS, Stage
from units.test_adoption import run_and_kill

ONCE = 'type = "oneshot"'


async def runs(stage: Stage, units: Units, name: str, count: int) -> None:
    """Until it ran so often, and is at rest."""
    await stage.until(lambda: stage.states(name).count("starting") >= count)
    await stage.state(units, name, "stopped", "failed")
    assert stage.states(name).count("starting") == count


async def test_what_appears_however_deep_starts_it_and_again_as_long_as_it_is_there(
    stage: Stage, tmp_path: Path
) -> None:
    wanted = tmp_path / "a/b/c/flag"
    stage.shell("job", f"rm {wanted}", service=ONCE, more=f'[path]\npath_exists = "{wanted}"')
    async with stage.running() as units:
        assert units.picture("job").triggers[0].state == "waiting"
        for count in (1, 2):
            wanted.parent.mkdir(parents=True)
            (wanted.parent / "other").touch()
            wanted.touch()
            await runs(stage, units, "job", count)
            shutil.rmtree(tmp_path / "a")
        # The whole tree at once, from elsewhere.
        (tmp_path / "x/b/c").mkdir(parents=True)
        (tmp_path / "x/b/c/flag").touch()
        os.rename(tmp_path / "x", tmp_path / "a")
        await runs(stage, units, "job", 3)


async def test_what_is_there_at_the_start_and_what_stays_there(stage: Stage, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    for name in ("1", "2", "3"):
        (spool / name).touch()
    take_one = f"f=$(ls {spool} | head -1); rm {spool}/$f; echo took $f"
    stage.shell("mail", take_one, service=ONCE, more=f'[path]\ndirectory_not_empty = "{spool}"')
    async with stage.running() as units:
        await stage.log(units, "mail", "took 3")
        await runs(stage, units, "mail", 3)
        (spool / "4").touch()
        await stage.log(units, "mail", "took 4")


async def test_changed_is_when_it_was_written_modified_is_at_once(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("one")
    stage.shell("changed", "true", service=ONCE, more=f'[path]\npath_changed = "{file}"')
    stage.shell("modified", "true", service=ONCE, more=f'[path]\npath_modified = "{file}"')
    async with stage.running() as units:
        assert stage.states("changed") == []
        with open(file, "w") as writer:
            writer.write("two")
            writer.flush()
            await runs(stage, units, "modified", 1)
            assert stage.states("changed").count("starting") == 0
        await runs(stage, units, "changed", 1)
        before = stage.states("changed").count("starting")
        (tmp_path / "new").write_text("three")
        os.rename(tmp_path / "new", file)  # as editors and ourselves replace files
        await stage.until(lambda: stage.states("changed").count("starting") > before)
        await stage.state(units, "changed", "stopped")
        before = stage.states("changed").count("starting")
        file.write_text("the new one is watched as the old one was")
        await stage.until(lambda: stage.states("changed").count("starting") > before)


async def test_a_pattern_a_directory_that_is_made_and_a_file_of_its_own(stage: Stage, tmp_path: Path) -> None:
    made = tmp_path / "made/in"
    stage.shell("glob", "exec sleep infinity", more=f'[path]\npath_exists_glob = "{tmp_path}/drop/*.job"')
    stage.shell("sorter", "echo sorts; exec sleep infinity")
    stage.write(
        "sorter.path", f'[path]\ndirectory_not_empty = ["{made}"]\nmake_directory = true\ndirectory_mode = "0700"\n'
    )
    async with stage.running() as units:
        await stage.state(units, "sorter.path", "ready")
        assert made.stat().st_mode & 0o777 == 0o700
        (made / "x").touch()
        await stage.log(units, "sorter", "sorts")
        (tmp_path / "drop").mkdir()
        (tmp_path / "drop/a.txt").touch()
        await trio.sleep(0.1)
        assert units.picture("glob").state == "stopped"
        (tmp_path / "drop/a.job").touch()
        await stage.state(units, "glob", "ready")
        assert units.picture("glob").triggers[0].about == f"path_exists_glob {tmp_path}/drop/*.job"
        assert units.picture("sorter").triggers[0].name == "sorter.path"


async def test_a_job_that_does_not_take_the_file_away_does_not_spin(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "flag").touch()
    limit = 'trigger_limit = {burst = 4, interval = "60s"}'
    stage.shell("bad", "true", service=ONCE, more=f'[path]\npath_exists = "{tmp_path}/flag"\n{limit}')
    async with stage.running() as units:
        await stage.until(lambda: units.picture("bad").triggers[0].state == "failed")
        assert stage.states("bad").count("starting") == 4
        assert "more than 4 times" in units.picture("bad").triggers[0].about
        (tmp_path / "flag").unlink()
        await units.reset_failed("bad")
        assert units.picture("bad").triggers[0].state == "waiting"
        (tmp_path / "flag").touch()
        await stage.until(lambda: stage.states("bad").count("starting") > 4)


async def test_what_changes_while_no_daemon_lives_is_not_missed(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("one")
    stage.shell("on", "true", service=ONCE, more=f'[path]\npath_changed = "{file}"')
    stage.shell("up", "exec sleep infinity")
    run_and_kill(stage, ["up ready"])
    async with stage.running(detach=True):
        await trio.sleep(0.3)
        assert stage.states("on").count("starting") == 0
    file.write_text("two")
    async with stage.running() as units:
        await runs(stage, units, "on", 1)
    file.write_text("three")
    async with stage.running():  # it was stopped in order: as with systemd, it begins anew
        await trio.sleep(0.3)
    assert stage.states("on").count("starting") == 1


async def test_an_overflow_calls_everybody_and_watches_go_with_the_last_one(tmp_path: Path) -> None:
    poller = Poller()
    inotify = Inotify(poller)
    seen: list[tuple[int, str]] = []
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    watch = inotify.add(str(tmp_path), CREATED, lambda events, name: seen.append((events, name)))
    other = inotify.add(str(tmp_path), WRITTEN, lambda events, name: None)
    if most > 100_000:
        pytest.skip(f"the queue holds {most} events")
    names = [str(tmp_path / str(number)) for number in range(64)]
    for _ in range(most // 64 + 2):
        for name in names:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        for name in names:
            os.unlink(name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        with trio.fail_after(PATIENCE_SECONDS):
            while (0, "") not in seen:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    inotify.remove(watch)
    inotify.remove(watch)
    assert inotify._fd >= 0
    inotify.remove(other)
    assert inotify._fd < 0
