# ruff: noqa: ASYNC110 (a test may look at real processes and files)
"""What units say of themselves over NOTIFY_SOCKET, by real processes; sd_notify(3) is the measure."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from appliance.units.environment_file import parse_environment_file
from appliance.units.notices import parse_notice_untrusted
from units.stage import PYTHON, Stage

NO_RESTART = '[restart]\npolicy = "no"'
TALK = """
import json, os, signal, socket, sys, time
def say(text, *fds):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    a = os.environ["NOTIFY_SOCKET"]
    s.connect("\\0" + a[1:] if a[0] == "@" else a)
    socket.send_fds(s, [text.encode()], list(fds))
"""


def talker(stage: Stage, name: str, script: str, *, service: str = "type = 'notify'", more: str = NO_RESTART) -> None:
    path = stage.root / f"{name}.py"
    path.write_text(TALK + script)
    stage.write(name, f"[service]\ncommand = ['{PYTHON}', '-u', '{path}']\n{service}\n{more}\n")


async def test_reloading_and_ready_again_and_errno(stage: Stage) -> None:
    talker(
        stage,
        "web",
        "def hup(*_):\n"
        "    say('RELOADING=1\\nMONOTONIC_USEC=%d' % (time.monotonic() * 1e6))\n"
        "    time.sleep(0.2)\n"
        "    say('READY=1\\nSTATUS=again\\nERRNO=7')\n"
        "signal.signal(signal.SIGHUP, hup)\n"
        "say('READY=1\\nSTATUS=first')\n"
        "while True: time.sleep(0.05)\n",
        service="type = 'notify-reload'",
    )
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        assert units.picture("web").status_text == "first"
        await units.reload_unit("web")
        assert units.picture("web").status_text == "again"
        assert units.picture("web").error_number == 7
        pid = units.picture("web").pid
        assert pid is not None
        os.kill(pid, signal.SIGHUP)  # and by itself
        await stage.until(lambda: stage.states("web").count("reloading") == 2)
        await stage.state(units, "web", "ready")


async def test_it_says_that_it_stops(stage: Stage) -> None:
    talker(stage, "web", "say('READY=1'); say('STOPPING=1'); time.sleep(0.2); print('clean'); sys.exit(0)\n")
    async with stage.running() as units:
        await stage.state(units, "web", "exited")
        assert stage.states("web") == ["waiting", "starting", "ready", "stopping", "exited"]
        assert await stage.log(units, "web", "clean") == "clean"


@pytest.mark.parametrize("how", ["silent", "trigger", "asked"])
async def test_the_watchdog_bites_with_its_own_signal(stage: Stage, how: str) -> None:
    script = {
        "silent": "for _ in range(4): say('WATCHDOG=1'); time.sleep(0.2)\nprint('quiet', flush=True)\n",
        "trigger": "say('WATCHDOG=trigger')\n",
        "asked": "say('WATCHDOG_USEC=200000')\n",
    }[how]
    talker(
        stage,
        "web",
        "signal.signal(signal.SIGUSR1, lambda *_: (print('bitten'), sys.exit(3)))\n"
        "print(os.environ['WATCHDOG_USEC'])\nsay('READY=1')\n" + script + "while True: time.sleep(0.05)\n",
        service=f"type = 'notify'\nwatchdog_timeout = '{'600ms' if how == 'silent' else '1h'}'\n"
        "watchdog_signal = 'SIGUSR1'",
    )
    async with stage.running() as units:
        await stage.state(units, "web", "failed")
        assert units.picture("web").exit.result == "watchdog"
        lines = [line.text async for line in units.logs("web")]
        assert lines == [str(3_600_000_000 if how != "silent" else 600_000), *(["quiet"] if how == "silent" else []),
                         "bitten"]  # fmt: skip


async def test_one_who_ignores_the_watchdogs_signal_is_killed(stage: Stage) -> None:
    talker(
        stage,
        "web",
        "signal.signal(signal.SIGABRT, signal.SIG_IGN)\nsay('READY=1')\nwhile True: time.sleep(0.05)\n",
        service="type = 'notify'\nwatchdog_timeout = '100ms'\nabort_timeout = '100ms'\nstop_timeout = '1h'",
        more='[restart]\npolicy = "on-watchdog"\ndelay = "1ms"',
    )
    async with stage.running() as units:
        await stage.until(lambda: units.picture("web").restarts == 1)
        assert units.picture("web").exit.signal == "SIGKILL"
        await stage.state(units, "web", "ready")
        units.picture("web")
        (stage.directory / "web.toml").unlink()
        await units.reload()


async def test_more_time_is_given_to_those_who_ask(stage: Stage) -> None:
    talker(
        stage,
        "slow",
        "for _ in range(8): say('EXTEND_TIMEOUT_USEC=900000'); time.sleep(0.1)\nsay('READY=1')\ntime.sleep(1000)\n",
        service="type = 'notify'\nstart_timeout = '600ms'",
    )
    async with stage.running() as units:
        await stage.state(units, "slow", "ready", "failed")
        assert units.picture("slow").state == "ready"


async def test_another_main_process(stage: Stage, tmp_path: Path) -> None:
    talker(
        stage,
        "web",
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(1000)\n"
        "say('READY=1\\nMAINPID=%d' % child)\n"
        "time.sleep(0.2)\nsys.exit(5)\n",
    )
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        await trio.sleep(0.4)
        pid = units.picture("web").pid
        assert pid is not None
        assert units.picture("web").state == "ready", "the first one ended, which nobody follows any more"
        os.kill(pid, signal.SIGKILL)
        await stage.state(units, "web", "failed")
        assert units.picture("web").exit.signal == "SIGKILL"


@pytest.mark.parametrize(("access", "who", "heard"), [
    ("main", "child", False), ("main", "main", True), ("all", "child", True), ("exec", "child", False),
    ("exec", "post_start", True), ("main", "post_start", False),
])  # fmt: skip
async def test_who_may_speak(stage: Stage, access: str, who: str, heard: bool) -> None:
    again = "while sys.argv[1:]:\n    time.sleep(0.05)\n    say('STATUS=heard')\n"
    (stage.root / "say.py").write_text(f"{TALK}say('STATUS=heard')\n{again}")
    say = f"{PYTHON} {stage.root}/say.py"
    script = {
        "main": f"exec {PYTHON} -c \"exec(open('{stage.root}/say.py').read()); time.sleep(1000)\"",
        "child": f"{say} 1 & echo said; sleep 1000",  # again and again: whose a dead one was nobody can tell
        "post_start": "echo said; sleep 1000",
    }[who]
    post = f"post_start = '{say}'\n" if who == "post_start" else ""
    stage.write("web", f"[service]\ncommand = ['sh', '-c', '''{script}''']\nnotify_access = '{access}'\n{post}")
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        if who != "main":
            await stage.log(units, "web", "said")
        with trio.move_on_after(30 if heard else 0.3):
            while units.picture("web").status_text != "heard":
                await trio.sleep(0.01)
        assert (units.picture("web").status_text == "heard") is heard


STORE = """
names = os.environ.get("LISTEN_FDNAMES", "").split(":")
fds = [3 + n for n in range(int(os.environ.get("LISTEN_FDS", 0)))]
print(json.dumps([os.environ.get("LISTEN_PID") == str(os.getpid()) if fds else None,
                  [[n, os.pread(f, 100, 0).decode()] for n, f in zip(names, fds)]]), flush=True)
def memory(text):
    fd = os.memfd_create("x")
    os.write(fd, text.encode())
    return fd
if not fds:
    say("FDSTORE=1\\nFDNAME=first", memory("one"))
    say("FDSTORE=1\\nFDNAME=second", memory("two"), memory("three"))
    say("FDSTORE=1\\nFDNAME=gone", memory("four"))
    say("FDSTOREREMOVE=1\\nFDNAME=gone")
    left, right = socket.socketpair()
    say("FDSTORE=1\\nFDNAME=dead", left.fileno())  # it goes when its other end does
    left.close(); right.close()
reading, writing = os.pipe()
say("BARRIER=1", writing)
os.close(writing)
assert os.read(reading, 1) == b""
say("READY=1")
print("up", flush=True)
time.sleep(1000)
"""


async def test_descriptors_are_kept_over_a_restart_and_handed_back(stage: Stage) -> None:
    talker(stage, "web", STORE)
    async with stage.running() as units:
        await stage.log(units, "web", "up")
        with trio.fail_after(30):
            while units.picture("web").stored_descriptors != 3:
                await trio.sleep(0.01)
        await units.restart("web")
        kept = [["first", "one"], ["second", "two"], ["second", "three"]]
        said = json.loads(await stage.log(units, "web", "[true"))
        assert said == [True, kept]
        await units.stop("web")
        assert units.picture("web").stored_descriptors == 0, "down for good: they are let go"


async def test_no_more_descriptors_than_allowed(stage: Stage) -> None:
    talker(stage, "web", STORE, service="type = 'notify'\nfd_store_max = 1")
    async with stage.running() as units:
        await stage.log(units, "web", "up")
        assert units.picture("web").stored_descriptors == 1


def test_every_word_of_a_notice() -> None:
    notice = parse_notice_untrusted(
        b"RELOADING=1\nSTOPPING=1\nERRNO=2\nWATCHDOG=1\nWATCHDOG_USEC=2000000\nEXTEND_TIMEOUT_USEC=500000\n"
        b"FDSTORE=1\nFDNAME=a:b\nFDPOLL=0"
    )
    assert (notice.reloading, notice.stopping, notice.error, notice.watchdog) == (True, True, 2, True)
    assert (notice.watchdog_seconds, notice.extend_seconds) == (2.0, 0.5)
    assert (notice.fd_store, notice.fd_name, notice.fd_poll) == (True, "stored", False)
    assert parse_notice_untrusted(b"WATCHDOG=trigger").watchdog_trigger
    assert parse_notice_untrusted(b"WATCHDOG_USEC=-1").watchdog_seconds is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1\nB = 2 \n", {"A": "1", "B": "2"}),
        ("# A=1\n;B=2\n\nnonsense\nC=3", {"C": "3"}),
        ('A=\'one two\' \nB="x\\"y\\n"\n', {"A": "one two", "B": 'x"y\\n'}),
        ("A=one\\\ntwo\nB=3\n", {"A": "onetwo", "B": "3"}),
        ("A='a\nb'\nB=1\n", {"A": "a\nb", "B": "1"}),
        ("A=a\\ b  \nB=c#d\n", {"A": "a b", "B": "c#d"}),
        ("A=\n1B=2\nexport C=3\n", {"A": ""}),
    ],
)
def test_environment_files(text: str, found: dict[str, str]) -> None:
    assert parse_environment_file(text) == found


@given(st.text(alphabet="A=1 '\"\\\n#", max_size=40))
def test_any_environment_file_is_read(text: str) -> None:
    assert "" not in parse_environment_file(text)
