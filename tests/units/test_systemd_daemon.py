# ruff: noqa: ASYNC110, ASYNC240 (a test may look at real processes and files)
"""Unit files of systemd under the daemon: prefixes, activation, templates, [Install], drop-ins, edits, adoption."""

from __future__ import annotations

import os
import tempfile
import textwrap
from pathlib import Path

import pytest
import trio

from appliance.units import check_unit_text
from units.stage import Stage


def write(stage: Stage, name: str, text: str) -> None:
    path = stage.directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


async def said(path: Path) -> str:
    with trio.fail_after(40):
        while not path.exists() or not path.read_text():
            await trio.sleep(0.01)
    return path.read_text()


async def test_prefixes_variables_and_several_commands(stage: Stage, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "say"
    script.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> {out}; echo >> {out}\n')
    script.chmod(0o755)
    write(stage, "a.service", f"""\
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        Environment="MANY=one two" ONE=1
        ExecStartPre=-/bin/false ; /bin/sh -c 'exit 0'
        ExecStart={script} $MANY ${{MANY}} $MISSING "$ONE x" $$ a\\x20b \\
            # not here
            'quoted $MANY' \\; ; {script} second %n %%
        ExecStart=:{script} $MANY
        ExecStart=@/bin/sh other-name -c 'echo $0 >> {out}'
    """)  # fmt: skip
    async with stage.running() as units:
        await stage.state(units, "a.service", "exited", "failed")
        assert out.read_text().splitlines() == [
            "one|two|one two|$ONE x|$|a b|quoted $MANY|;|", "second|a.service|%|", "$MANY|", "other-name",
        ]  # fmt: skip
        assert units.picture("a").state == "exited"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
async def test_as_root_within_the_fences_and_without_them(stage: Stage) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        out = Path(directory)
        out.chmod(0o777)
        await _as_each(stage, out)


async def _as_each(stage: Stage, out: Path) -> None:
    tell = '/bin/sh -c \'grep -E "^(NoNewPrivs|Uid)" /proc/self/status | tr "\\n\\t" "  " > {out}/{name}\''
    write(stage, "a.service", f"""\
        [Service]
        Type=oneshot
        User=nobody
        NoNewPrivileges=yes
        ExecStart={tell.format(out=out, name="plain")}
        ExecStart=!{tell.format(out=out, name="as_root")}
        ExecStart=+{tell.format(out=out, name="privileged")}
        ExecStart=!!{tell.format(out=out, name="ambient")}
    """)  # fmt: skip
    async with stage.running() as units:
        await units.wait("a", "ready", timeout=40)
        with trio.fail_after(40):
            while len(list(out.iterdir())) < 4:
                await trio.sleep(0.01)
        found = {one.name: (await said(one)).split() for one in out.iterdir()}
    users = {name: (words[1], words[-1]) for name, words in found.items()}
    assert {name: (uid == "0", flag) for name, (uid, flag) in users.items()} == {
        "plain": (False, "1"), "as_root": (True, "1"), "privileged": (True, "0"), "ambient": (False, "1"),
    }  # fmt: skip


async def test_socket_timer_path_and_target(stage: Stage, tmp_path: Path) -> None:
    address, spool = tmp_path / "s", tmp_path / "spool"
    write(stage, "echo.socket", f"[Socket]\nListenStream={address}\nAccept=yes\n[Install]\nWantedBy=sockets.target\n")
    write(stage, "echo@.service", "[Service]\nExecStart=-/bin/cat\nStandardInput=socket\n")
    write(stage, "tick.timer", "[Timer]\nOnActiveSec=50ms\nAccuracySec=1us\n[Install]\nWantedBy=timers.target\n")
    write(stage, "tick.service", f"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo tick > {tmp_path}/tick'\n")
    write(stage, "mail.path", f"[Path]\nPathExists={spool}\n")
    write(
        stage,
        "mail.service",
        f"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'rm {spool}; echo mail > {tmp_path}/mail'\n",
    )
    write(stage, "all.target", "[Unit]\nRequires=echo.socket mail.path\nAfter=echo.socket network.target\n")
    async with stage.running() as units:
        await stage.state(units, "all.target", "ready", "exited")
        assert not units.problems()
        async with await trio.open_unix_socket(str(address)) as stream:
            await stream.send_all(b"hello\n")
            assert await stream.receive_some(6) == b"hello\n"
        assert await said(tmp_path / "tick") == "tick\n"
        spool.write_text("x")
        assert await said(tmp_path / "mail") == "mail\n"


async def test_a_service_that_passes_its_sockets_on(stage: Stage, tmp_path: Path) -> None:
    address = tmp_path / "s"
    script = (
        "import os, socket; assert os.environ['LISTEN_FDNAMES'] == 'web.socket'; s = socket.socket(fileno=3); "
        "c = s.accept()[0]; c.sendall(b'served'); c.close(); s.accept()"
    )
    write(stage, "web.socket", f"[Socket]\nListenStream={address}\n")
    write(stage, "web.service", f'[Service]\nExecStart=/usr/bin/python3 -c "{script}"\n')
    async with stage.running() as units:
        with trio.fail_after(40):
            while not address.exists():
                await trio.sleep(0.01)
        assert units.picture("web").state == "stopped"
        async with await trio.open_unix_socket(str(address)) as stream:
            assert await stream.receive_some(6) == b"served"
        assert units.picture("web").state == "ready"


async def test_install_says_what_starts_what(stage: Stage) -> None:
    sleep = "[Service]\nExecStart=/bin/sleep 1h\n"
    write(stage, "both.service", f"{sleep}[Install]\nWantedBy=multi-user.target\n")
    write(stage, "both.timer", "[Timer]\nOnCalendar=yearly\n")  # at boot all the same, as in systemd
    write(stage, "only.service", sleep)
    write(stage, "only.timer", "[Timer]\nOnCalendar=yearly\n")
    write(stage, "never.service", f"{sleep}[Install]\nWantedBy=shutdown.target\n")
    write(stage, "part.service", f"{sleep}[Install]\nWantedBy=some.target\nAlias=other.service\n")
    write(stage, "some.target", "[Unit]\nDescription=x\n")
    write(stage, "user.service", f"[Unit]\nRequires=other.service\nAfter=other.service\n{sleep}")
    write(stage, "tty@.service", f"{sleep}[Install]\nDefaultInstance=one\nAlso=only.service\n")
    async with stage.running() as units:
        await stage.state(units, "both", "ready")
        await stage.state(units, "part", "ready")
        await stage.state(units, "user", "ready")
        assert units.picture("other.service").name == "part"
        for name in ("only", "never"):
            assert units.picture(name).state == "stopped"
        await units.enable("enable", ["tty@"], now=True)
        await stage.state(units, "tty@one", "ready")
        await stage.state(units, "only", "ready")
        await units.stop("other")
        assert units.picture("part").state == "stopped"
        await stage.state(units, "user", "stopped")


async def test_adopted_and_reloaded_from_the_same_file(stage: Stage) -> None:
    write(stage, "web.service", "[Service]\nExecStart=/bin/sleep 1h\nDescription=%n\n")
    write(stage, "web.service.d/a.conf", "[Service]\nEnvironment=A=1\n")
    async with stage.running(detach=True) as units:
        await stage.state(units, "web", "ready")
        pid = units.picture("web").pid
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        assert units.picture("web").pid == pid
        assert not units.picture("web").changed
        plan = await units.reload(dry_run=True)
        assert (plan.restart, plan.unchanged) == ((), ("web",))
        text = units.file_text("web.service")
        assert "Description=%n" in text
        assert "Environment=A=1" in text
        write(stage, "web.service.d/a.conf", "[Service]\nEnvironment=A=2\n")
        plan = await units.reload(dry_run=False)
        assert plan.restart == ("web",)
        await stage.until(lambda: units.picture("web").state == "ready" and units.picture("web").pid != pid)
        environment = Path(f"/proc/{units.picture('web').pid}/environ")
        with trio.fail_after(40):
            while b"A=2" not in environment.read_bytes().split(b"\0"):
                await trio.sleep(0.01)
        text = "[Service]\nExecStart=/bin/true\nBogus=1\n"
        assert [str(one) for one in check_unit_text(str(stage.directory), "web", text, drop_in=False)] == [
            f"{stage.directory}/web.service:3:1: warning: Service.Bogus: unknown directive, ignored"
        ]
        findings = await units.write_file("web", "[Service]\nExecStart=/bin/sleep 2h\n")
        assert not findings
        assert (stage.directory / "web.service").read_text() == "[Service]\nExecStart=/bin/sleep 2h\n"
