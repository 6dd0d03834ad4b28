"""Changed files: the plan is shown first, then done; a bad file never stops the others."""

from __future__ import annotations

from units.stage import Stage


async def test_reload_starts_stops_restarts_and_leaves_alone(stage: Stage) -> None:
    for name in ("same", "edited", "removed", "broken"):
        stage.shell(name, "exec sleep infinity")
    stage.shell("down", "exec sleep infinity")
    async with stage.running() as units:
        for name in ("same", "edited", "removed", "broken", "down"):
            await stage.state(units, name, "ready")
        await units.stop("down")
        before = {picture.name: picture.pid for picture in units.pictures()}
        stage.shell("edited", "exec sleep 99999")
        stage.shell("down", "exec sleep 99999")
        stage.shell("added", "exec sleep infinity")
        stage.write("broken", "[service]\ntype = 'simpel'\ncommand = ['x']\n")
        (stage.directory / "removed.toml").unlink()
        plan = await units.reload(dry_run=True)
        assert (plan.start, plan.stop, plan.restart) == (("added",), ("removed",), ("edited",))
        assert plan.changed == ("down",)
        assert plan.unchanged == ("broken", "same")
        assert 'did you mean "simple"?' in str(plan.findings[0])
        assert units.picture("removed").state == "ready"  # it was only a plan
        assert await units.reload() == plan
        await stage.until(lambda: "removed" not in [picture.name for picture in units.pictures()])
        await stage.until(
            lambda: units.picture("edited").state == "ready" and units.picture("edited").pid != before["edited"]
        )
        await stage.state(units, "added", "ready")
        for name in ("same", "broken"):
            assert units.picture(name).pid == before[name]
        assert units.picture("down").state == "stopped"
        assert (await units.reload()).unchanged == ("added", "broken", "down", "edited", "same")


async def test_a_given_up_unit_is_tried_again_when_its_file_is_mended(stage: Stage) -> None:
    stage.shell("job", "exit 1", service='type = "oneshot"')
    stage.shell("after", "exec sleep infinity", more='[unit]\nrequires = ["job"]\nafter = ["job"]')
    async with stage.running() as units:
        await stage.state(units, "job", "failed")
        stage.shell("job", "exit 0", service='type = "oneshot"')
        plan = await units.reload()
        assert plan.start == ("job",)
        await stage.state(units, "after", "ready")


async def test_a_cycle_that_a_reload_brings_stops_both_and_hangs_nothing(stage: Stage) -> None:
    stage.shell("a", "exec sleep infinity")
    stage.shell("b", "exec sleep infinity", more='[unit]\nafter = ["a"]')
    async with stage.running() as units:
        await stage.state(units, "b", "ready")
        stage.shell("a", "exec sleep infinity", more='[unit]\nafter = ["b"]')
        await units.reload()
        await stage.state(units, "a", "stopped")
        await stage.state(units, "b", "stopped")
        assert "cycle" in units.picture("a").reason
