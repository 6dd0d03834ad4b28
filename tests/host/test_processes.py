# ruff: noqa: ASYNC110, ASYNC220, ASYNC222, ASYNC230 (a test may look at real processes and files)
"""One reaper for real children, orphans and strangers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from units.stage import spawn_program

from appliance.errors import UnavailableError
from appliance.host.processes import Command, Exit, Processes
from appliance.host.procfs import process_stat

PATH = {"PATH": "/usr/bin:/bin"}


@contextlib.asynccontextmanager
async def reaping() -> AsyncIterator[Processes]:
    processes = Processes(spawn_program())
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **it: processes.run(stopping=stopping, **it))
        with trio.fail_after(60):
            yield processes
        stopping.set()


def command(script: str, **more: object) -> Command:
    return Command(argv=["sh", "-c", script], environment=PATH, **more)  # type: ignore[arg-type]


async def test_exit_codes_and_signals() -> None:
    async with reaping() as processes:
        assert await processes.spawn(command("exit 7")).wait() == Exit(code=7)
        assert await processes.spawn(command("kill -9 $$")).wait() == Exit(signal=9)
        child = processes.spawn(command("sleep 1000"))
        child.send(signal.SIGTERM)
        assert str(await child.wait()) == "killed by SIGTERM"
        child.send(signal.SIGTERM)  # over already: nobody else is hit


async def test_what_fails_before_execve_is_told_with_its_step() -> None:
    async with reaping() as processes:
        for wrong, told in (
            (Command(argv=["/no/such"], environment=PATH), "execute /no/such: No such file or directory"),
            (command("true", directory="/no/where"), "enter directory /no/where: No such file or directory"),
            (command("true", output="/no/pipe"), "open output /no/pipe: No such file or directory"),
            (command("true", cgroup="/no/group"), "enter cgroup /no/group: No such file or directory"),
        ):
            child = processes.spawn(wrong)
            assert await child.wait() == Exit(code=127)
            assert child.spawn_failure == told
        lost = Processes("/no/spawn")
        with pytest.raises(UnavailableError, match="cannot start sh: /no/spawn: No such file"):
            lost.spawn(command("true"))


async def test_the_child_has_a_clean_slate() -> None:
    script = "import os,signal,json;print(json.dumps([sorted(map(int,os.listdir('/proc/self/fd'))),"
    script += "[int(s) for s in range(1,32) if s not in (9,19) and signal.getsignal(s)==signal.SIG_IGN],"
    script += "os.getsid(0)==os.getpid(),sorted(os.environ)]))"
    async with reaping() as processes:
        leak = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(leak, True)
        old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            finished = await processes.run_command(
                ["/usr/bin/python3", "-S", "-E", "-c", script], timeout=60, environment={"A": "1", "LC_ALL": "C.UTF-8"}
            )
        finally:
            os.close(leak)
            signal.signal(signal.SIGHUP, old)
        assert finished.exit.clean, finished.stderr
        import json

        fds, ignored, leads, environment = json.loads(finished.stdout)
        assert fds[:4] == [0, 1, 2, 3]
        assert len(fds) == 4  # the fourth is the listing of the directory
        assert ignored in ([], [13, 25])  # python's own SIGPIPE and SIGXFSZ
        assert leads
        assert environment == ["A", "LC_ALL"]


async def test_a_flood_of_children_and_orphans_is_reaped_and_no_status_is_mixed_up() -> None:
    async with reaping() as processes:
        with open("/proc/sys/kernel/pid_max") as file:
            assert int(file.read()) > 2000
        children = [processes.spawn(command(f"(exit {number % 7} &) ; exit {number % 5}")) for number in range(300)]
        flood = processes.spawn(command("i=0; while [ $i -lt 1000 ]; do (sleep 0.01 &); i=$((i+1)); done; exit 3"))
        for number, child in enumerate(children):
            assert await child.wait() == Exit(code=number % 5)
        assert await flood.wait() == Exit(code=3)
        with trio.fail_after(60):
            while zombies():
                await trio.sleep(0.02)


def zombies() -> list[int]:
    mine = []
    for name in os.listdir("/proc"):
        stat = process_stat(int(name)) if name.isdigit() else None
        if stat is not None and stat.parent == os.getpid() and stat.state == "Z":
            mine.append(stat.pid)
    return mine


async def test_an_orphan_reaped_before_it_was_adopted_keeps_its_status() -> None:
    child = subprocess.Popen(["/bin/sh", "-c", "exit 9"])  # as a child of the program we were before exec
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    stat = process_stat(child.pid)
    assert stat is not None
    async with reaping() as processes:
        adopted = processes.adopt(child.pid, stat.start_ticks)
        assert adopted is not None
        assert await adopted.wait() == Exit(code=9)
        assert processes.adopt(child.pid, stat.start_ticks) is None
        assert processes.adopt(os.getpid(), 1) is None
    child.returncode = 9


async def test_the_end_of_a_process_that_is_not_our_child_is_seen(tmp_path: Path) -> None:
    script = (
        "import os,subprocess,sys,time\n"
        "p = subprocess.Popen(['/bin/sh', '-c', 'read x; exit 6'], stdin=subprocess.PIPE)\n"
        "print(p.pid, flush=True)\nsys.stdin.readline()\np.communicate(b'go')\nsys.stdin.readline()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    stat = process_stat(pid)
    assert stat is not None
    async with reaping() as processes:
        assert processes.adopt(pid, stat.start_ticks + 1) is None
        child = processes.adopt(pid, stat.start_ticks)
        assert child is not None
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert await child.wait() in (Exit(code=6), Exit())
        parent.stdin.write("\n")
        parent.stdin.flush()
        parent.stdin.close()
        parent.stdout.close()
        adopted = processes.adopt(parent.pid, process_stat(parent.pid).start_ticks)  # type: ignore[union-attr]
        assert adopted is not None
        await adopted.wait()
        parent.returncode = 0


async def test_run_command_feeds_reads_and_kills_at_the_timeout() -> None:
    async with reaping() as processes:
        finished = await processes.run_command(
            ["sh", "-c", "cat; echo oops >&2; exit 2"], timeout=60, environment=PATH, input=b"hello" * 100_000
        )
        assert (finished.exit, finished.stdout, finished.stderr) == (Exit(code=2), b"hello" * 100_000, b"oops\n")
        finished = await processes.run_command(
            ["sh", "-c", "echo first; trap '' TERM; sleep 1000 & sleep 1000"], timeout=0.3, environment=PATH
        )
        assert finished.timed_out
        assert finished.stdout == b"first\n"
        with pytest.raises(UnavailableError, match="cannot execute /no/such"):
            await processes.run_command(["/no/such"], timeout=60)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            await processes.run_command(["true"], timeout=60, environment=PATH)
        assert len(os.listdir("/proc/self/fd")) <= before


async def test_programs_start_when_the_server_was_killed_and_with_a_huge_environment() -> None:
    async with reaping() as processes:
        assert await processes.spawn(command("exit 1")).wait() == Exit(code=1)
        os.kill(processes._spawner.server_pid, signal.SIGKILL)
        assert await processes.spawn(command("exit 2")).wait() == Exit(code=2)
        big = {**PATH, "BIG": "x" * 120_000}
        for environment in ({**PATH, "EMPTY": "", "TEXT": "a b\nc"}, big):
            names = ["EMPTY", "TEXT", "BIG"]
            finished = await processes.run_command(
                ["/bin/sh", "-c", 'printf %s "$EMPTY$TEXT$BIG"; echo "[$1]"', "sh", ""],
                timeout=60,
                environment=environment,
            )
            assert finished.stdout.decode() == "".join(environment.get(name, "") for name in names) + "[]\n"
        child = processes.spawn(command("exit 3"))
        stat = process_stat(child.pid)
        assert stat is None or stat.parent == os.getpid()
        assert await child.wait() == Exit(code=3)


SHOW = """
import os, stat
count = int(os.environ["LISTEN_FDS"])
assert int(os.environ["LISTEN_PID"]) == os.getpid()
open_ones = sorted(int(one) for one in os.listdir("/proc/self/fd"))[:-1]
print(os.environ["LISTEN_FDNAMES"], open_ones[3:], [os.read(fd, 1).decode() for fd in range(3, 3 + count)])
"""


@pytest.mark.parametrize("directly", [False, True])
async def test_descriptors_are_passed_from_3_on(directly: bool) -> None:
    pipes = [os.pipe() for _ in range(20)]
    for number, (_, write) in enumerate(pipes):
        os.write(write, b"%c" % (97 + number))
    reads = [read for read, _ in pipes]
    reads[3], reads[4] = reads[4], reads[3]  # so that one goes where another one lies
    environment = {**PATH, **({"LONG": "x" * (110 << 10)} if directly else {})}
    out_read, out_write = os.pipe()
    async with reaping() as processes:
        child = processes.spawn(
            Command(
                argv=[sys.executable, "-I", "-c", SHOW], environment=environment, standard=(0, out_write, 2),
                descriptors=tuple((f"n{number}", fd) for number, fd in enumerate(reads)),
            )
        )  # fmt: skip
        assert await child.wait() == Exit(code=0), child.spawn_failure
        bad = processes.spawn(Command(argv=["/no/such"], descriptors=(("one", reads[0]),)))
        await bad.wait()
        assert bad.spawn_failure == "execute /no/such: No such file or directory"
    letters = [chr(97 + number) for number in range(20)]
    letters[3], letters[4] = letters[4], letters[3]
    names = ":".join(f"n{number}" for number in range(20))
    assert os.read(out_read, 9999).decode() == f"{names} {list(range(3, 23))} {letters}\n"
    for fd in (*reads, *(write for _, write in pipes), out_read, out_write):
        os.close(fd)
