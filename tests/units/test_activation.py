# ruff: noqa: ASYNC110 (a test may look at real processes)
"""Socket activation with real clients: the first call starts the unit, and no call is ever refused."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from appliance.errors import ConflictError, UnavailableError
from appliance.host.listening import Endpoint, is_endpoint, open_endpoint
from units.stage import PATIENCE_SECONDS, Stage
from units.test_adoption import DAEMON, run_and_kill

# Whom it has accepted it serves: it can be stopped only while it waits.
SERVE = """
import os, select, signal, socket
assert os.environ["LISTEN_PID"] == str(os.getpid())
print("names", os.environ["LISTEN_FDNAMES"], os.environ["LISTEN_FDS"], flush=True)
listener = socket.socket(fileno=3)
while True:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    select.select([listener], [], [])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    connection, _ = listener.accept()
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""


def free_port() -> int:
    with socket.socket() as raw:
        raw.bind(("127.0.0.1", 0))
        return int(raw.getsockname()[1])


async def ask(port: int, said: bytes = b"", host: str = "127.0.0.1") -> bytes:
    with trio.fail_after(PATIENCE_SECONDS):
        async with await trio.open_tcp_stream(host, port) as stream:
            if said:
                await stream.send_all(said)
                await stream.send_eof()
            return b"".join([piece async for piece in stream])


async def test_the_first_call_starts_it_and_a_restart_refuses_nobody(stage: Stage) -> None:
    port = free_port()
    stage.python("web", SERVE, more=f'[[socket]]\nlisten = "127.0.0.1:{port}"\nname = "http"')
    async with stage.running() as units:
        assert units.picture("web").state == "stopped"
        assert units.picture("web").triggers[0].state == "waiting"
        assert int(await ask(port)) == units.picture("web").pid
        assert await stage.log(units, "web", "names") == "names http 1"
        assert units.picture("web").triggers[0].state == "running"
        answers: list[bytes] = []

        async def keep_asking() -> None:
            while True:
                answers.append(await ask(port))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_asking)
            for _ in range(3):
                await units.restart("web")
                before = len(answers)
                while len(answers) < before + 3:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert all(answers), "each call was answered"
        assert len(set(answers)) >= 3
        os.kill(units.picture("web").pid or 0, 9)  # it dies: the next caller wakes it, or its restart policy
        assert await ask(port)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


async def test_a_service_at_rest_starts_again_at_the_next_call(stage: Stage) -> None:
    port = free_port()
    once = SERVE.replace("while True:", "for _ in range(1):")
    stage.python("once", once, more=f'[[socket]]\nlisten = "127.0.0.1:{port}"')
    async with stage.running() as units:
        pids = {await ask(port) for _ in range(3)}
        assert len(pids) == 3
        await stage.until(lambda: units.picture("once").state in ("stopped", "exited"))


def daemon_of(stage: Stage) -> subprocess.Popen[str]:
    daemon = subprocess.Popen([sys.executable, str(DAEMON), str(stage.root)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    return daemon


async def test_not_one_call_is_refused_while_daemons_are_killed_and_units_restarted(stage: Stage) -> None:
    port = free_port()
    stage.python("web", SERVE, more=f'[[socket]]\nlisten = "127.0.0.1:{port}"')
    stage.shell("mark", "exec sleep infinity")
    run_and_kill(stage, ["mark ready"])
    up = ["mark ready", "web ready"]  # killed between its fork and that, a daemon leaves one to be started anew
    answers: list[bytes] = []
    over = trio.Event()

    async def keep_asking() -> None:
        while not over.is_set():
            answers.append(await ask(port))

    async def more(count: int = 3) -> None:
        before = len(answers)
        while len(answers) < before + count:
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_asking)  # nobody lives yet: it waits in the queue
        for _ in range(2):
            await trio.to_thread.run_sync(run_and_kill, stage, up)
        async with stage.running(detach=True) as units:
            await more()
            await units.restart("web")
            await more()
        await more()  # without a daemon
        await trio.to_thread.run_sync(run_and_kill, stage, up)
        async with stage.running() as units:
            await stage.state(units, "web", "ready")
            await more()
            over.set()
    assert all(answers)
    assert len(set(answers)) == 2, "killing daemons restarted nothing; the restart did"


async def test_sockets_of_every_kind(stage: Stage, tmp_path: Path) -> None:
    port, udp = free_port(), free_port()
    script = """
import os, socket, stat
for number, name in enumerate(os.environ["LISTEN_FDNAMES"].split(":")):
    fd = 3 + number
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        print(name, "fifo", os.read(fd, 100).decode(), flush=True)
        continue
    s = socket.socket(fileno=fd)
    print(name, s.family.name, s.type.name, s.getsockname(), flush=True)
import time
time.sleep(1000)
"""
    run = tmp_path / "deep/run"
    tables = [
        f'listen = "127.0.0.1:{port}"\nname = "tcp"\nkeep_alive = true\nno_delay = true\nreuse_port = true',
        f'listen = "127.0.0.1:{udp}"\ntype = "dgram"\nname = "udp"\nfree_bind = true',
        f'listen = "{run}/s"\nmode = "0600"\nname = "unix"\nremove_on_stop = true',
        f'listen = "{run}/d"\ntype = "dgram"\nname = "unix-dgram"',
        f'listen = "{run}/q"\ntype = "seqpacket"\nname = "packets"',
        f'listen = "@{tmp_path.name}-{port}"\nname = "abstract"',
        f'listen = "{run}/f"\ntype = "fifo"\nmode = "0620"\nname = "fifo"',
        f'listen = "[::1]:{port}"\nv6only = true\nname = "v6"',
    ]
    stage.python("all", script, more="".join(f"[[socket]]\n{table}\n" for table in tables))
    async with stage.running() as units:
        assert units.problems() == ()
        assert stat.S_IMODE((run / "s").stat().st_mode) == 0o600
        assert stat.S_IMODE((run / "f").stat().st_mode) == 0o620
        await trio.to_thread.run_sync((run / "f").write_bytes, b"hello")
        lines = {
            word: await stage.log(units, "all", f"{word} ") for word in ("tcp", "udp", "unix", "unix-dgram", "packets")
        }
        assert lines["tcp"].startswith("tcp AF_INET SOCK_STREAM ('127.0.0.1'")
        assert lines["udp"].startswith("udp AF_INET SOCK_DGRAM")
        assert lines["unix"] == f"unix AF_UNIX SOCK_STREAM {run}/s"
        assert lines["unix-dgram"] == f"unix-dgram AF_UNIX SOCK_DGRAM {run}/d"
        assert lines["packets"].startswith("packets AF_UNIX SOCK_SEQPACKET")
        assert await stage.log(units, "all", "fifo ") == "fifo fifo hello"
        assert "AF_INET6" in await stage.log(units, "all", "v6 ")
    assert not (run / "s").exists()
    assert (run / "q").exists()


@pytest.mark.parametrize("kind", ["udp", "dgram", "seqpacket", "abstract"])
async def test_each_kind_starts_its_unit(stage: Stage, tmp_path: Path, kind: str) -> None:
    port = free_port()
    listen, type_ = {
        "udp": (f"127.0.0.1:{port}", "dgram"), "dgram": (f"{tmp_path}/d", "dgram"),
        "seqpacket": (f"{tmp_path}/q", "seqpacket"), "abstract": (f"@{tmp_path.name}{port}", "stream"),
    }[kind]  # fmt: skip
    stage.shell("it", "echo came; exec sleep infinity", more=f'[[socket]]\nlisten = "{listen}"\ntype = "{type_}"')
    async with stage.running() as units:
        assert units.problems() == ()
        if kind == "udp":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
                raw.sendto(b"x", ("127.0.0.1", port))
        else:
            types = {"dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM}
            with socket.socket(socket.AF_UNIX, types[type_]) as raw:
                raw.connect("\0" + listen[1:] if kind == "abstract" else listen)
                if type_ == "dgram":
                    raw.send(b"x")
        assert await stage.log(units, "it", "came")


async def test_a_process_for_each_connection_as_inetd_and_as_systemd(stage: Stage) -> None:
    port = free_port()
    script = 'read x; echo "got $x from $REMOTE_ADDR; $LISTEN_FDS $LISTEN_FDNAMES"; echo "log of $x" >&2'
    table = (
        f'[[socket]]\nlisten = "127.0.0.1:{port}"\naccept = true\nmax_connections = 3\nmax_connections_per_source = 2'
    )
    stage.shell("echo", script, more=table)
    async with stage.running() as units:
        assert await ask(port, b"one\n") == b"got one from 127.0.0.1; 1 connection\n"
        assert await ask(port, b"two\n") == b"got two from 127.0.0.1; 1 connection\n"
        await stage.log(units, "echo", "log of two")
        await stage.until(lambda: units.picture("echo").triggers[0].count == 0)
        assert [picture.name for picture in units.pictures()] == ["echo"], "what is over is forgotten"
        streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        await stage.until(lambda: units.picture("echo").triggers[0].count == 2)
        assert await ask(port) == b"", "a third one from there is hung up on"
        assert any("max_connections_per_source" in str(one) for one in units.problems())
        names = [picture.name for picture in units.pictures() if picture.name != "echo"]
        assert all(name.startswith("echo@") and f"-127.0.0.1:{port}-127.0.0.1:" in name for name in names)
        for stream in streams:
            await stream.send_all(b"late\n")
            assert (await stream.receive_some()).startswith(b"got late")
            await stream.aclose()


async def test_a_template_serves_connections_and_a_reload_leaves_them_alone(stage: Stage) -> None:
    port = free_port()
    stage.shell("ask@", "read x; echo %i got $x")
    stage.write("ask.socket", f'[[socket]]\nlisten = "127.0.0.1:{port}"\naccept = true\n')
    async with stage.running() as units:
        await stage.state(units, "ask.socket", "ready")
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stage.until(lambda: units.picture("ask.socket").triggers[0].count == 1)
        await units.reload()
        await trio.sleep(0.2)
        await stream.send_all(b"it\n")
        assert (await stream.receive_some()).endswith(b" got it\n")
        await stream.aclose()
        await stage.until(lambda: units.picture("ask.socket").triggers[0].count == 0)
        assert [picture.name for picture in units.pictures()] == ["ask.socket"]


async def test_a_served_connection_outlives_the_daemon(stage: Stage) -> None:
    port = free_port()
    stage.shell("slow", "read x; echo got $x", more=f'[[socket]]\nlisten = "127.0.0.1:{port}"\naccept = true')
    daemon = daemon_of(stage)
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                break
            except OSError:
                await trio.sleep(0.05)
    assert daemon.stdout is not None
    for line in daemon.stdout:
        if line.startswith("slow@") and line.strip().endswith("ready"):
            break
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    async with stage.running() as units:
        assert units.picture("slow").triggers[0].count == 1
        await stream.send_all(b"it\n")
        assert await stream.receive_some() == b"got it\n"
        await stream.aclose()
        await stage.until(lambda: len(units.pictures()) == 1)


async def test_a_service_that_always_crashes_does_not_spin(stage: Stage) -> None:
    port = free_port()
    table = f'[[socket]]\nlisten = "127.0.0.1:{port}"\ntrigger_limit = {{burst = 5, interval = "60s"}}'
    stage.shell("bad", "exit 1", more=f'[restart]\npolicy = "no"\n{table}')
    async with stage.running() as units:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stage.until(lambda: units.picture("bad").triggers[0].state == "failed")
        assert "more than 5 times within 60 s" in units.picture("bad").triggers[0].about
        assert stage.states("bad").count("starting") <= 5
        with pytest.raises(OSError):
            await trio.open_tcp_stream("127.0.0.1", port)
        await stream.aclose()
        stage.shell("bad", "exec sleep infinity", more=table)
        await units.reload()
        await units.reset_failed("bad")
        await stage.until(lambda: units.picture("bad").triggers[0].state in ("waiting", "running"))
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        await stage.state(units, "bad", "ready")


async def test_a_unit_that_cannot_be_is_said_and_does_not_spin(stage: Stage) -> None:
    port, other = free_port(), free_port()
    stage.shell("need", "exit 1", service='type = "oneshot"')
    limit = 'trigger_limit = {burst = 3, interval = "60s"}'
    stage.shell(
        "web", "exec sleep infinity",
        more=f'[unit]\nrequires = ["need"]\nafter = ["need"]\n[[socket]]\nlisten = "127.0.0.1:{port}"\n{limit}',
    )  # fmt: skip
    stage.write("lone.socket", f'[[socket]]\nlisten = "127.0.0.1:{other}"\n')
    async with stage.running() as units:
        await stage.state(units, "lone.socket", "ready")
        for name, where in (("web", port), ("lone.socket", other)):
            with contextlib.suppress(OSError):  # its port may be shut before we know that we are through
                await (await trio.open_tcp_stream("127.0.0.1", where)).aclose()
            while units.picture(name).triggers[0].state != "failed":
                await trio.sleep(0.02)
        assert "more than 3 times" in units.picture("web").triggers[0].about
        assert "lone cannot be started" in units.picture("lone.socket").triggers[0].about


async def test_its_own_file_for_the_socket_and_one_that_is_up_at_boot(stage: Stage) -> None:
    port, other = free_port(), free_port()
    stage.python("api", SERVE)
    stage.write("api.socket", f'[[socket]]\nlisten = "127.0.0.1:{port}"\n')
    stage.python("eager", SERVE, more=f'[[socket]]\nlisten = "127.0.0.1:{other}"\non_demand = false')
    async with stage.running() as units:
        assert await stage.log(units, "eager", "names") == "names eager.socket 1"
        assert units.picture("api").state == "stopped"
        assert units.picture("api.socket").state == "ready"
        assert int(await ask(port)) == units.picture("api").pid
        await units.stop("api")
        pid = int(await ask(port))  # its socket listens on
        assert pid == units.picture("api").pid
        await units.stop("api")
        await units.stop("api.socket")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
        await units.start("api.socket")
        assert await ask(port)


async def test_an_address_that_is_taken_is_said_and_tried_again_when_asked(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stage.python("web", SERVE, more=f'[[socket]]\nlisten = "127.0.0.1:{port}"')
        async with stage.running() as units:
            (trigger,) = units.picture("web").triggers
            assert trigger.state == "failed"
            assert trigger.about == f"cannot listen on 127.0.0.1:{port}: Address already in use"
            taken.close()
            await units.reset_failed("web")
            assert int(await ask(port)) == units.picture("web").pid


async def test_a_reload_keeps_what_it_still_names(stage: Stage) -> None:
    kept, gone, new = free_port(), free_port(), free_port()

    def tables(*ports: int) -> str:
        return "".join(f'[[socket]]\nlisten = "127.0.0.1:{port}"\n' for port in ports)

    stage.python("web", SERVE, more=tables(kept, gone))
    async with stage.running() as units:
        with socket.create_connection(("127.0.0.1", kept)) as early:
            stage.python("web", SERVE, more=tables(kept, new))
            await units.reload()
            early.settimeout(PATIENCE_SECONDS)
            assert await trio.to_thread.run_sync(early.recv, 100)
        await stage.state(units, "web", "ready")
        socket.create_connection(("127.0.0.1", new)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gone)).close()


def test_endpoints_are_known_again_and_what_is_in_use_is_not_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    fd = open_endpoint(Endpoint(listen=path, mode=0o640))
    assert is_endpoint(fd, Endpoint(listen=path))
    assert not is_endpoint(fd, Endpoint(listen=path, type="seqpacket"))
    assert not is_endpoint(fd, Endpoint(listen="127.0.0.1:80"))
    with pytest.raises(ConflictError, match="another process answers there"):
        open_endpoint(Endpoint(listen=path))
    os.unlink(path)
    assert not is_endpoint(fd, Endpoint(listen=path)), "nobody can reach it any more"
    os.close(fd)
    tcp = open_endpoint(Endpoint(listen="[::1]:0".replace(":0", f":{free_port()}")))
    name = socket.socket(fileno=os.dup(tcp))
    assert is_endpoint(tcp, Endpoint(listen=f"[0:0::1]:{name.getsockname()[1]}"))
    with pytest.raises(UnavailableError, match="cannot listen on"):
        open_endpoint(Endpoint(listen="192.0.2.1:80"))
    free = open_endpoint(Endpoint(listen=f"192.0.2.1:{free_port()}", free_bind=True))
    for one in (tcp, free):
        os.close(one)
    name.close()
