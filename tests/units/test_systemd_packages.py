# ruff: noqa: ASYNC110, ASYNC221, ASYNC240 (a test may look at real processes and files)
"""The unit files that Debian's packages ship, as they are: they start, reload and stop, and their fences hold.

Only ports and directories are others, by drop-ins, as an administrator would.
"""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from appliance.errors import InputError
from appliance.units import Units
from units.stage import Stage, is_alive

SHIPPED = Path("/lib/systemd/system")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="services become other users")


MAY_RAISE = int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16) >> 24 & 1  # SYS_RESOURCE
MAY_OPEN = 1 << 30 if MAY_RAISE else resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def files_max(pid: int) -> int:
    return int(Path(f"/proc/{pid}/limits").read_text().split("Max open files")[1].split()[1])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, outside of /tmp, which is private to some."""
    directory = Path(tempfile.mkdtemp(prefix="appliance-test-", dir="/var/lib"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def stage(place: Path) -> Stage:
    return Stage(place / "root")


def ship(stage: Stage, name: str, drop_in: str = "") -> None:
    """As if its package had put it here."""
    shutil.copy(SHIPPED / f"{name}.service", stage.directory)
    if drop_in:
        (stage.directory / f"{name}.service.d").mkdir()
        (stage.directory / f"{name}.service.d" / "test.conf").write_text(drop_in)


def owned(place: Path, name: str, user: str) -> Path:
    path = place / name
    path.mkdir()
    account = pwd.getpwnam(user)
    os.chown(path, account.pw_uid, account.pw_gid)
    return path


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


async def asked(url: str) -> str:
    """Its answer, once it listens."""
    with trio.fail_after(40):
        while True:
            try:
                return await trio.to_thread.run_sync(fetch, url)
            except OSError:
                await trio.sleep(0.05)


async def greeting(port: int) -> bytes:
    """What a server says first, once it listens."""
    with trio.fail_after(40):
        while True:
            try:
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    return bytes(await stream.receive_some(8))
            except OSError:
                await trio.sleep(0.05)


async def up(stage: Stage, units: Units, name: str) -> int:
    await stage.state(units, name, "ready", "failed")
    picture = units.picture(name)
    lines = [line.text async for line in units.logs(name)]
    assert picture.state == "ready", (picture.reason, lines[-20:], units.problems())
    return picture.pid


async def down(units: Units, name: str, pid: int) -> None:
    await units.stop(name)
    assert units.picture(name).state == "stopped"
    assert not is_alive(pid)


async def test_nginx(stage: Stage, place: Path) -> None:
    port = free_port()
    (place / "index.html").write_text("first")
    conf = place / "nginx.conf"

    def configure(word: str) -> None:
        conf.write_text(
            f"pid {place}/nginx.pid; error_log {place}/error.log; events {{}}\n"
            f"http {{ access_log off; server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{word}'; }} }} }}\n"
        )

    configure("first")
    options = f"-c {conf} -g 'daemon on; master_process on;'"
    ship(stage, "nginx", f"""
        [Service]
        PIDFile={place}/nginx.pid
        ExecStartPre=
        ExecStartPre=/usr/sbin/nginx -t -q {options}
        ExecStart=
        ExecStart=/usr/sbin/nginx {options}
        ExecReload=
        ExecReload=/usr/sbin/nginx {options} -s reload
        ExecStop=
        ExecStop=-/sbin/start-stop-daemon --quiet --stop --retry QUIT/5 --pidfile {place}/nginx.pid
    """)  # fmt: skip
    async with stage.running() as units:
        pid = await up(stage, units, "nginx")
        assert pid == int((place / "nginx.pid").read_text())  # forking: its PID file says which process it is
        assert await asked(f"http://127.0.0.1:{port}/") == "first"
        configure("second")
        assert (await units.reload_unit("nginx")).state == "ready"
        with trio.fail_after(40):
            while await asked(f"http://127.0.0.1:{port}/") != "second":
                await trio.sleep(0.05)
        assert units.picture("nginx").pid == pid
        await down(units, "nginx", pid)


async def test_redis_within_its_twenty_fences(stage: Stage, place: Path) -> None:
    port = free_port()
    data = owned(place, "data", "redis")
    ship(stage, "redis-server", f"""
        [Service]
        ExecStart=
        ExecStart=/usr/bin/redis-server --port {port} --bind 127.0.0.1 --dir {data} --save "" \\
            --supervised systemd --daemonize no --enable-protected-configs yes
        ReadWritePaths={data}
    """)  # fmt: skip
    async with stage.running() as units:
        pid = await up(stage, units, "redis-server")
        assert units.picture("redis").pid == pid  # Alias=
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"PING\r\nSAVE\r\nCONFIG SET dir /var/lib\r\nSAVE\r\n")
            answer = b""
            while answer.count(b"\r\n") < 4:
                answer += client.recv(4096)
        assert answer.startswith(b"+PONG\r\n+OK\r\n")
        assert b"-ERR" in answer.split(b"\r\n")[3]  # ProtectSystem=strict: nowhere else may it write
        assert (data / "dump.rdb").exists()
        said = status(pid)
        account = pwd.getpwnam("redis")
        assert said["Uid"].split() == [str(account.pw_uid)] * 4
        assert said["Gid"].split() == [str(account.pw_gid)] * 4
        assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
        assert {int(said[key], 16) for key in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
        for name in ("mnt", "user"):
            assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
        assert said["Umask"] == "0007"
        assert files_max(pid) == min(65535, MAY_OPEN)
        with pytest.raises(InputError, match="reload"):
            await units.reload_unit("redis-server")
        await down(units, "redis-server", pid)


async def test_ssh(stage: Stage, place: Path) -> None:
    port = free_port()
    Path("/run/sshd").mkdir(exist_ok=True)  # RuntimeDirectory= lies below the test's own root
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{place}/key"], check=True)
    (place / "options").write_text(f'SSHD_OPTS="-p {port} -o ListenAddress=127.0.0.1 -h {place}/key"\n')
    ship(stage, "ssh", f"[Service]\nEnvironmentFile={place}/options\n")
    async with stage.running() as units:
        pid = await up(stage, units, "sshd")
        for _ in range(2):
            assert await greeting(port) == b"SSH-2.0-"
            assert (await units.reload_unit("ssh")).state == "ready"
        assert units.picture("ssh").pid == pid
        await down(units, "ssh", pid)


async def test_cron(stage: Stage) -> None:
    ship(stage, "cron", "[Service]\nTemporaryFileSystem=/run\n")  # where the host's own cron keeps its lock
    async with stage.running() as units:
        pid = await up(stage, units, "cron")
        with trio.fail_after(40):
            while os.readlink(f"/proc/{pid}/exe") != "/usr/sbin/cron":
                await trio.sleep(0.01)
        assert not Path(f"/proc/{pid}/root/run/appliance").exists()
        await down(units, "cron", pid)


async def test_etcd(stage: Stage, place: Path) -> None:
    client, peer = free_port(), free_port()
    data = owned(place, "data", "etcd")
    ship(stage, "etcd", f"""
        [Service]
        Environment=ETCD_DATA_DIR={data}/default
        Environment="DAEMON_ARGS=--listen-client-urls http://127.0.0.1:{client} --listen-peer-urls http://127.0.0.1:{peer}"
        Environment=ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:{client}
        Environment=ETCD_INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:{peer}
        Environment=ETCD_INITIAL_CLUSTER=%H=http://127.0.0.1:{peer}
    """)  # fmt: skip
    async with stage.running() as units:
        pid = await up(stage, units, "etcd")  # Type=notify: ready once it said so
        assert "true" in await asked(f"http://127.0.0.1:{client}/health")
        assert status(pid)["Uid"].split()[0] == str(pwd.getpwnam("etcd").pw_uid)
        assert files_max(pid) == min(65536, MAY_OPEN)
        await down(units, "etcd", pid)


async def test_docker_registry(stage: Stage, place: Path) -> None:
    port = free_port()
    data = owned(place, "data", "docker-registry")
    conf = place / "config.yml"
    conf.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n"
    )
    ship(stage, "docker-registry", f"[Service]\nExecStart=\nExecStart=/usr/bin/docker-registry serve {conf}\n")
    async with stage.running() as units:
        pid = await up(stage, units, "docker-registry")
        assert await asked(f"http://127.0.0.1:{port}/v2/_catalog") == '{"repositories":[]}\n'
        assert status(pid)["Uid"].split()[0] == str(pwd.getpwnam("docker-registry").pw_uid)
        await down(units, "docker-registry", pid)


async def test_prometheus_node_exporter(stage: Stage, place: Path) -> None:
    port = free_port()
    (place / "options").write_text(f'ARGS="--web.listen-address=127.0.0.1:{port} --collector.disable-defaults"\n')
    ship(stage, "prometheus-node-exporter", f"[Service]\nEnvironmentFile={place}/options\n")
    async with stage.running() as units:
        pid = await up(stage, units, "prometheus-node-exporter")
        assert "node_exporter_build_info" in await asked(f"http://127.0.0.1:{port}/metrics")
        assert status(pid)["Uid"].split()[0] == str(pwd.getpwnam("prometheus").pw_uid)
        await down(units, "prometheus-node-exporter", pid)


@pytest.fixture
def cluster(place: Path) -> Iterator[str]:
    """A cluster of PostgreSQL, made by Debian's own tool."""
    version = sorted(os.listdir("/usr/lib/postgresql"))[-1]
    name = f"test{os.getpid()}"
    data = owned(place, "data", "postgres")
    subprocess.run(
        ["pg_createcluster", version, name, "-d", data / "main", "-p", str(free_port()), "-l", place / "log",
         "--locale", "C"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    yield f"{version}-{name}"
    subprocess.run(["pg_dropcluster", "--stop", version, name], check=True)


async def test_postgresql_and_its_instances(stage: Stage, cluster: str) -> None:
    ship(stage, "postgresql", f"[Unit]\nWants=postgresql@{cluster}.service\n")  # as its generator says
    shutil.copy(SHIPPED / "postgresql@.service", stage.directory)
    name = f"postgresql@{cluster}"
    async with stage.running() as units:
        pid = await up(stage, units, name)
        await stage.state(units, "postgresql", "exited")
        assert pid == int(Path(f"/run/postgresql/{cluster}.pid").read_text().split()[0])
        score = Path(f"/proc/{pid}/oom_score_adj").read_text()
        assert score == ("-900\n" if MAY_RAISE else Path("/proc/self/oom_score_adj").read_text())
        assert (await units.reload_unit(name)).state == "ready"
        assert units.picture(name).pid == pid
        await units.stop("postgresql")  # PartOf=: down with it
        await stage.state(units, name, "stopped")
        assert not is_alive(pid)
