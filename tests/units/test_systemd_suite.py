# ruff: noqa: ASYNC110, ASYNC240 (a test may look at real processes and files)
"""What systemd's own integration tests (test/units/testsuite-NN.sh) hold it to, where it makes sense on one host."""

from __future__ import annotations

import textwrap
from pathlib import Path

import trio

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
