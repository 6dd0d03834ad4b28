# ruff: noqa: ASYNC110, ASYNC240 (a test may look at real processes and files)
"""What systemd's own integration tests (test/units/testsuite-NN.sh) hold it to, where it makes sense on one host."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import trio

from appliance.errors import ConflictError
from units.stage import Stage


def write(stage: Stage, **files: str) -> None:
    """``a_service="..."``: the file ``a.service``."""
    for name, text in files.items():
        stem, _, kind = name.rpartition("_")
        (stage.directory / f"{stem.replace('_', '-')}.{kind}").write_text(textwrap.dedent(text))


async def said(path: Path) -> str:
    with trio.fail_after(40):
        while not path.exists() or not path.read_text().endswith("\n"):
            await trio.sleep(0.01)
    return path.read_text()


async def test_07_and_63_what_was_called_is_told_by_whom(stage: Stage, tmp_path: Path) -> None:
    x, done = f"{tmp_path}/%p.x", f"{tmp_path}/%p"
    tell = f"/bin/sh -c 'env | grep -E \"TRIGGER|MONITOR\" | sort > {x}; echo >> {x}; mv {x} {done}'"
    write(
        stage,
        my_service=f"[Service]\nType=oneshot\nExecStartPre={tell}\nExecStart=/bin/true\n",
        my_timer="[Timer]\nOnActiveSec=10ms\n",
        glob_service=f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={tell}\n",
        glob_path=f"[Path]\nPathExistsGlob={tmp_path}/found-*\n",
        bad_service="[Unit]\nOnFailure=help.service\n[Service]\nType=exec\nExecStart=/bin/sh -c 'exit 7'\n",
        help_service=f"[Service]\nType=oneshot\nExecStart={tell}\n",
        good_service="[Unit]\nOnSuccess=next.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
        next_service=f"[Service]\nType=oneshot\nExecStart={tell}\n",
    )
    async with stage.running() as units:
        timer = dict(line.split("=", 1) for line in (await said(tmp_path / "my")).split())
        assert timer.keys() == {"TRIGGER_UNIT", "TRIGGER_TIMER_REALTIME_USEC", "TRIGGER_TIMER_MONOTONIC_USEC"}
        assert timer["TRIGGER_UNIT"] == "my.timer"
        assert min(int(timer[key]) for key in timer if key.endswith("USEC")) > 1_000_000
        (tmp_path / "found-foo").touch()
        assert (await said(tmp_path / "glob")).split() == [
            f"TRIGGER_PATH={tmp_path}/found-foo", "TRIGGER_UNIT=glob.path",
        ]  # fmt: skip
        helped = dict(line.split("=", 1) for line in (await said(tmp_path / "help")).split())
        assert len(helped.pop("MONITOR_INVOCATION_ID")) == 32
        assert helped == {
            "MONITOR_UNIT": "bad.service", "MONITOR_SERVICE_RESULT": "exit-code", "MONITOR_EXIT_CODE": "exited",
            "MONITOR_EXIT_STATUS": "7",
        }  # fmt: skip
        assert "MONITOR_SERVICE_RESULT=success\nMONITOR_UNIT=good.service" in await said(tmp_path / "next")
        (tmp_path / "my").unlink()
        await units.start("my")  # by hand: nobody triggered it
        assert await said(tmp_path / "my") == "\n"


async def test_57_upheld_ones_come_back_and_unneeded_ones_go(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write(
        stage,
        success_service="[Unit]\nOnSuccess=fail.service\n[Service]\nExecStart=/bin/true\n",
        fail_service="[Unit]\nOnFailure=uphold.service\n[Service]\nExecStart=/bin/false\n",
        uphold_service="[Unit]\nUpholds=short.service\n[Service]\nExecStart=/bin/sleep 1d\n",
        short_service=f"""\
            [Unit]
            StopWhenUnneeded=yes
            [Service]
            RestartSec=10ms
            ExecStart=/bin/sh -c 'echo x >> {tmp_path}/count; test $(wc -l < {tmp_path}/count) -lt 4 || exec sleep 1d'
        """,
        retry_uphold_service="[Unit]\nUpholds=retry-upheld.service\n[Service]\nExecStart=/bin/sleep 1d\n",
        retry_upheld_service="""\
            [Unit]
            Requires=retry-fail.service
            After=retry-fail.service
            [Service]
            Type=oneshot
            RemainAfterExit=yes
            ExecStart=/bin/true
        """,
        retry_fail_service=f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/test -f {gate}\n",
    )
    async with stage.running() as units:
        await stage.until(lambda: (tmp_path / "count").exists() and len((tmp_path / "count").read_text()) == 8)
        await stage.state(units, "short", "ready")
        await units.stop("uphold")
        await stage.state(units, "short", "stopped")
        await stage.state(units, "retry-fail", "failed")
        assert units.picture("retry-upheld").state == "stopped"
        gate.touch()
        await stage.state(units, "retry-upheld", "exited")
        await units.stop("retry-upheld")  # a person's word lasts
        await trio.sleep(0.3)
        assert units.picture("retry-upheld").state == "stopped"


async def test_57_a_stop_is_propagated_and_so_is_a_reload(stage: Stage, tmp_path: Path) -> None:
    write(
        stage,
        one_service=f"""\
            [Unit]
            Wants=two.service
            After=two.service
            StopPropagatedFrom=two.service
            ReloadPropagatedFrom=two.service
            [Service]
            ExecStart=/bin/sleep 1d
            ExecReload=/bin/touch {tmp_path}/reloaded
            ExecStopPost=/bin/touch {tmp_path}/down
        """,
        two_service=f"""\
            [Service]
            ExecStart=/bin/sh -c 'while ! test -e {tmp_path}/end; do sleep 0.01; done'
            ExecReload=/bin/true
        """,
        three_service="[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=/bin/sleep 1d\n",
        four_service="[Unit]\nRefuseManualStart=yes\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
        five_service="[Unit]\nPropagatesStopTo=six.service\n[Service]\nExecStart=/bin/sleep 1d\n",
        six_service="[Service]\nExecStart=/bin/sleep 1d\n",
    )
    async with stage.running() as units:
        for name in ("one", "two", "three", "five", "six"):
            await stage.state(units, name, "ready")
        await units.reload_unit("two")
        await stage.until((tmp_path / "reloaded").exists)
        (tmp_path / "end").touch()
        await stage.state(units, "one", "stopped")
        assert units.picture("one").reason == "it is stopped with two"
        assert (tmp_path / "down").exists()
        await units.start("one")  # brings two along, which ends at once, and takes it down again
        await stage.until(lambda: units.picture("one").state == "stopped" and units.picture("two").state == "exited")
        for verb, name in (("stop", "three"), ("restart", "three"), ("start", "four"), ("restart", "four")):
            with pytest.raises(ConflictError, match=rf"cannot {verb} {name}: its file says unit.refuse_manual_st"):
                await getattr(units, verb)(name)
        await units.restart("five")
        assert units.picture("six").state == "ready"  # a restart is no stop
        await units.stop("five")
        assert units.picture("six").state == "stopped"
        assert [step.unit for step in (await units.transact("stop", ["five"], dry_run=True)).steps] == []


async def test_sockets_come_before_the_service_that_they_start(stage: Stage, tmp_path: Path) -> None:
    write(
        stage,
        a_service=f"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo $LISTEN_FDNAMES > {tmp_path}/said'\n",
        a_socket=f"[Socket]\nListenStream={tmp_path}/sock\nFileDescriptorName=first\n[Install]\nWantedBy=sockets.target\n",
        b_target="[Unit]\nWants=a.service a.socket\n",
    )
    async with stage.running() as units:
        plan = await units.transact("restart", ["b.target"], dry_run=True)
        assert [step.unit for step in plan.steps if step.action == "start"][:2] == ["a.socket", "a"]
        assert await said(tmp_path / "said") == "first\n"
