"""What a reviewer found: small promises that nobody had kept yet."""

from __future__ import annotations

import socket
from pathlib import Path

from units.stage import Stage
from units.test_activation import daemon_of, free_port


async def test_parts_of_what_was_stopped_stay_down_over_a_restart(stage: Stage) -> None:
    stage.write("all", "[unit]\nwants = ['part']")
    stage.shell("part", "exec sleep infinity", more="[unit]\npart_of = ['all']")
    stage.shell("piece", "exec sleep infinity", more="[unit]\npart_of = ['part']")
    stage.shell("other", "exec sleep infinity")
    async with stage.running() as units:
        for name in ("all", "part", "piece"):
            await stage.state(units, name, "ready")
        await units.stop("all")
        await stage.state(units, "part", "stopped")
        assert units.picture("all").reason == "stopped by hand"
    async with stage.running() as units:
        await stage.state(units, "other", "ready")
        assert [units.picture(name).state for name in ("all", "part", "piece")] == ["stopped"] * 3
        assert units.picture("part").reason == "it is part of all, which is stopped"
        await units.start("all")
        for name in ("part", "piece"):
            await stage.state(units, name, "ready")


async def test_health_commands_run_inside_the_fences_of_their_unit(stage: Stage) -> None:
    stage.shell(
        "web", "touch /tmp/made-by-web; exec sleep infinity", service="umask = '0027'",
        more="[sandbox]\nprivate_tmp = true\n[resources]\ntasks_max = 50\n[health]\ninterval = '100ms'\n"
        "command = ['sh', '-c', 'test -e /tmp/made-by-web && test $(umask) = 0027 && grep -q /web /proc/self/cgroup']",
    )  # fmt: skip
    async with stage.running() as units:
        await stage.until(lambda: units.picture("web").health == "healthy" or units.picture("web").tracking != "cgroup")


async def test_an_assertion_that_does_not_hold_is_a_failure(stage: Stage, tmp_path: Path) -> None:
    there = tmp_path / "there"
    stage.shell("web", "exec sleep infinity", more=f"[unit.asserts]\npath_exists = ['{there}']")
    stage.shell("next", "exec sleep infinity", more="[unit]\nrequires = ['web']\nafter = ['web']")
    async with stage.running() as units:
        await stage.state(units, "web", "failed")
        assert units.picture("web").reason == f"assertion: path_exists {there} does not hold"
        assert units.picture("web").exit.result == "assert"
        assert units.picture("next").state in ("stopped", "waiting")
        there.touch()
        await units.start("web")
        await stage.state(units, "next", "ready")


async def test_a_unit_of_connections_never_runs_itself(stage: Stage) -> None:
    port = free_port()
    more = f"[[socket]]\nlisten = '127.0.0.1:{port}'\naccept = true"
    stage.write("cat", f"[service]\ncommand = ['cat']\n{more}")
    stage.shell("user", "exec sleep infinity", more="[unit]\nrequires = ['cat']\nafter = ['cat']")
    async with stage.running() as units:
        await stage.state(units, "user", "ready")
        await units.start("cat")
        assert units.picture("cat").state == "stopped"
        assert units.picture("cat").reason == "runs once for each connection"
        await units.stop("cat")
        await stage.until(lambda: units.picture("cat").triggers[0].state == "off")
        await units.start("cat")
        await stage.until(lambda: units.picture("cat").triggers[0].state == "waiting")
        assert "starting" not in stage.states("cat")


async def test_an_adopted_connection_keeps_what_its_file_says(stage: Stage) -> None:
    port = free_port()
    script = "trap 'echo bye; exit 0' INT; echo hello; while :; do read -t 1 x; done"
    stage.write(
        "talk", f"[service]\ncommand = ['/bin/bash', '-c', \"{script}\"]\nkill_signal = 'SIGINT'\n"
        f"[restart]\npolicy = 'always'\n[[socket]]\nlisten = '127.0.0.1:{port}'\naccept = true",
    )  # fmt: skip
    stage.shell("mark", "exec sleep infinity")
    daemon = daemon_of(stage)
    assert daemon.stdout is not None
    assert any(line.strip() == "mark ready" for line in daemon.stdout)
    call = socket.create_connection(("127.0.0.1", port), timeout=30)
    assert call.recv(100) == b"hello\n"
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    async with stage.running() as units:
        (name,) = (one.name for one in units.pictures() if one.name.startswith("talk@"))
        await stage.state(units, name, "ready")
        assert units.picture(name).triggers == ()
        assert units.picture(name).description.startswith("talk, for 127.0.0.1:")
        await units.stop(name)
        assert call.recv(100) == b"bye\n", "its own kill_signal"
        await stage.until(lambda: name not in {one.name for one in units.pictures()})
    call.close()
