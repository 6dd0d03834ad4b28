"""Debian's patroni: two PostgreSQL servers elect a leader through our JSON gateway; it dies, the other leads."""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import StartStore
from tests.etcdapi.test_transcript import free_port

TOOLS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
WAIT_SECONDS = 90

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (TOOLS and shutil.which("patroni")), reason="needs patroni and postgresql"),
    pytest.mark.skipif(os.geteuid() != 0, reason="runs them as the user postgres"),
]


@dataclass
class Node:
    """A patroni and its PostgreSQL."""

    name: str
    place: Path
    port: int
    process: subprocess.Popen

    def sql(self, query: str) -> str:
        done = subprocess.run(
            [TOOLS[-1] / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-AtXc", query],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout.strip() if done.returncode == 0 else done.stderr

    def kill(self) -> None:
        """Both at once, as when the power goes."""
        self.process.kill()
        self.process.wait()
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.place / "data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def log(self) -> str:
        return (self.place / "log").read_text()


StartNode = Callable[[str, str], Node]


@pytest.fixture
def node() -> Iterator[StartNode]:
    """Starts a patroni of that name with that store. It owns its directory, which root's tmp_path would hide."""
    user = pwd.getpwnam("postgres")
    top = Path(tempfile.mkdtemp(prefix="patroni-"))
    os.chown(top, user.pw_uid, user.pw_gid)
    nodes: list[Node] = []

    def start(name: str, store: str) -> Node:
        place, port = top / name, free_port()
        place.mkdir()
        os.chown(place, user.pw_uid, user.pw_gid)
        settings = place / "patroni.json"  # YAML too
        settings.write_text(json.dumps(configuration(name, place, port, store)))
        with open(place / "log", "wb") as log:
            process = subprocess.Popen(
                ["patroni", settings], stdout=log, stderr=subprocess.STDOUT, cwd=place, start_new_session=True,
                user=user.pw_uid, group=user.pw_gid, extra_groups=[], env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            )  # fmt: skip
        nodes.append(Node(name, place, port, process))
        return nodes[-1]

    yield start
    for each in nodes:
        each.process.terminate()
    for each in nodes:
        with suppress(subprocess.TimeoutExpired):
            each.process.wait(20)
        each.kill()
    shutil.rmtree(top)


def configuration(name: str, place: Path, port: int, store: str) -> dict[str, object]:
    rest = f"127.0.0.1:{free_port()}"
    everybody = ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
    return {
        "scope": "demo", "name": name, "etcd3": {"host": store, "username": "root", "password": "pw"},
        "restapi": {"listen": rest, "connect_address": rest},
        "bootstrap": {
            "dcs": {"ttl": 6, "loop_wait": 1, "retry_timeout": 2, "maximum_lag_on_failover": 1 << 20},
            "initdb": [{"encoding": "UTF8"}, {"auth": "trust"}, "no-sync"],
            "pg_hba": everybody,
        },
        "postgresql": {
            "listen": f"127.0.0.1:{port}", "connect_address": f"127.0.0.1:{port}", "data_dir": str(place / "data"),
            "bin_dir": str(TOOLS[-1]), "pgpass": str(place / "pgpass"), "pg_hba": everybody,
            "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "copies"}},
            "parameters": {"unix_socket_directories": str(place), "shared_buffers": "16MB", "fsync": "off"},
        },
    }  # fmt: skip


def etcdctl(store: str, *arguments: str) -> str:
    done = subprocess.run(
        ["etcdctl", "--endpoints", store, *arguments], capture_output=True, text=True, timeout=60, check=True,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return done.stdout


def token_of_root(store: str) -> str:
    """Makes root, whose password everybody needs from now on."""
    for step in ("user add root:pw", "role add root", "user grant-role root root", "auth enable"):
        etcdctl(store, *step.split())
    with urllib.request.urlopen(f"http://{store}/v3/auth/authenticate", b'{"name":"root","password":"pw"}') as answer:
        return str(json.load(answer)["token"])


def leaders(store: str, token: str) -> Iterator[str]:
    """Who has the leader's key, as it changes; "" for nobody. A watch, by JSON."""
    key = base64.b64encode(b"/service/demo/leader").decode()
    body = json.dumps({"create_request": {"key": key, "start_revision": "1"}}).encode()
    headers = {"Authorization": token}
    request = urllib.request.Request(f"http://{store}/v3/watch", body, headers)
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as lines:
        for line in lines:
            for event in json.loads(line)["result"].get("events", ()):
                yield base64.b64decode(event["kv"].get("value", "")).decode()


def eventually(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_leader_dies_and_the_other_leads(ours: StartStore, node: StartNode) -> None:
    store = ours()
    token = token_of_root(store)
    nodes = {name: node(name, store) for name in ("one", "two")}
    seen = leaders(store, token)
    leader = nodes.pop(next(seen))
    (other,) = nodes.values()
    try:
        eventually(lambda: leader.sql("select pg_is_in_recovery()") == "f", "the first leader did not lead")
        eventually(lambda: leader.sql("create table if not exists t (v int)") == "CREATE TABLE", "no table")
        assert leader.sql("insert into t values (1)") == "INSERT 0 1"
        eventually(lambda: other.sql("select v from t") == "1", "nothing was copied")
        assert other.sql("select pg_is_in_recovery()") == "t"
        assert members(store) == {"one", "two"}

        leader.kill()

        assert next(each for each in seen if each != leader.name) == ""  # its lease ran out
        assert next(seen) == other.name
        eventually(lambda: other.sql("insert into t values (2)") == "INSERT 0 1", "the second leader did not lead")
        assert other.sql("select string_agg(v::text, ' ' order by v) from t") == "1 2"
    except (AssertionError, OSError, StopIteration):
        print(leader.log(), other.log(), sep="\n-------- the other:\n")
        raise


def members(store: str) -> set[str]:
    keys = etcdctl(store, "--user", "root:pw", "get", "--prefix", "/service/demo/members/", "--keys-only")
    return {line.rpartition("/")[2] for line in keys.split()}
