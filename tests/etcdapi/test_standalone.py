"""``appliance etcd``: etcd's flags and variables, and a real etcdctl against the process; from source and built."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from appliance.cli.etcd import options_of
from appliance.errors import InputError
from appliance.etcd_app import EtcdOptions, Log, compact_by_itself
from appliance.host.disk import FileDisk
from appliance.store import Store
from tests.etcdapi.test_transcript import free_port

HOUSE = Path(__file__).parents[2]
SOURCE = [sys.executable, "-m", "appliance"]


@contextmanager
def started(command: Sequence[str], *arguments: str) -> Iterator[subprocess.Popen]:
    """Ready; told to stop in the end, and well."""
    process = subprocess.Popen(
        [*command, "etcd", *arguments], stderr=subprocess.PIPE, text=True, cwd=HOUSE,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
    )  # fmt: skip
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if "ready to serve client requests" in line:
                break
        else:
            raise AssertionError("".join(lines))
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def etcdctl(endpoint: str, *arguments: str) -> str:
    done = subprocess.run(
        ["etcdctl", "--endpoints", endpoint, *arguments], check=False, capture_output=True, text=True, timeout=60,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return done.stdout + done.stderr


def stands_in(command: Sequence[str], directory: Path) -> None:
    port, data = free_port(), directory / "data"
    url = f"http://127.0.0.1:{port}"
    flags = ("-name=x", "--data-dir", str(data), "--listen-client-urls", url, "--advertise-client-urls", url)
    with started(command, *flags, "--client-cert-auth=false", "--initial-cluster", "x=http://127.0.0.1:2380"):
        assert etcdctl(url, "put", "a", "b") == "OK\n"
        assert url in etcdctl(url, "member", "list")
        assert etcdctl(url, "user", "add", "root:pw") == "User root created\n"
        again = subprocess.run(
            [*command, "etcd", *flags], capture_output=True, text=True, timeout=60, cwd=HOUSE, check=False,
            env={**os.environ, "PYTHONPATH": str(HOUSE)},
        )  # fmt: skip
        assert again.returncode == 7, again.stderr
    with started(command, *flags):
        assert etcdctl(url, "get", "a") == "a\nb\n"
        assert etcdctl(url, "user", "list") == "root\n"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("etcdctl"), reason="needs etcdctl")
def test_in_place_of_an_etcd(tmp_path: Path) -> None:
    stands_in(SOURCE, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("etcdctl"), reason="needs etcdctl")
def test_the_member_is_the_one_that_an_etcd_would_be(tmp_path: Path) -> None:
    """Its number follows from the flags; other projects' tests have it in what they expect."""
    url = f"http://127.0.0.1:{free_port()}"
    flags = ("--data-dir", str(tmp_path), "--listen-client-urls", url, "--advertise-client-urls", url)
    cluster = (
        "--name", "testname0", "--initial-cluster", "testname0=http://localhost:20001", "--initial-cluster-token",
    )  # fmt: skip
    peers = ("--initial-advertise-peer-urls", "http://localhost:20001")
    with started(SOURCE, *flags):
        assert etcdctl(url, "member", "list") == (
            f"8e9e05c52164694d, started, default, http://localhost:2380, {url}, false\n"
        )
        assert '"cluster_id":14841639068965178418' in etcdctl(url, "get", "a", "-w", "json")
        moved = etcdctl(url, "member", "update", "8e9e05c52164694d", "--peer-urls=http://127.0.0.1:7")
        assert moved == "Member 8e9e05c52164694d updated in cluster cdf818194e3a8c32\n"
    with started(SOURCE, *flags):
        assert ", http://127.0.0.1:7, " in etcdctl(url, "member", "list")
        assert "not enough started members" in etcdctl(url, "member", "remove", "8e9e05c52164694d")
    with started(SOURCE, *flags, *cluster, "new", *peers):
        assert '"cluster_id":238453183653593855,"member_id":14578408409545168728' in etcdctl(url, "get", "a", "-w=json")


@pytest.mark.binary
@pytest.mark.skipif(not shutil.which("etcdctl"), reason="needs etcdctl")
def test_in_place_of_an_etcd_built(tmp_path: Path) -> None:
    subprocess.run([HOUSE / "build.sh"], check=True)
    stands_in([str(HOUSE / "dist/appliance")], tmp_path)


def test_flags_win_over_variables() -> None:
    options = options_of({"name": "flag"}, {"ETCD_NAME": "variable", "ETCD_DATA_DIR": "/d", "ETCD_NONE": "1"})
    assert (options.name, options.data_dir) == ("flag", "/d")
    assert options.notes == ("unrecognized environment variable ETCD_NONE",)
    assert [str(each.address) for each in options.listen] == ["127.0.0.1:2379"]


def test_retention() -> None:
    def read(**flags: object) -> EtcdOptions:
        return options_of({name.replace("_", "-"): value for name, value in flags.items()}, {})

    assert read(auto_compaction_retention="1").compact_every_seconds == 3600
    assert read(auto_compaction_retention="1h30m").compact_every_seconds == 5400
    assert read(auto_compaction_retention="7", auto_compaction_mode="revision").compact_revisions == 7
    with pytest.raises(InputError, match="auto-compaction-retention"):
        read(auto_compaction_retention="often")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"initial-cluster": "a=http://1:1,b=http://2:1"}, "one of 2 members"),
        ({"discovery": "http://x"}, "for a cluster run etcd"),
        ({"listen-client-urls": "https://127.0.0.1:1"}, "takes --cert-file"),
        ({"listen-client-urls": "127.0.0.1:1"}, "write http://"),
        ({"client-cert-auth": "true"}, "--trusted-ca-file"),
        ({"auth-token": "jwt,pub-key=x"}, "sign-method"),
        ({"auth-token": "jwt,key=x"}, "after jwt come"),
        ({"auth-token": "jwt,sign-method=RS256"}, "priv-key, pub-key"),
        ({"auth-token": "paper"}, "simple"),
        ({"quota-backend-bytes": "much"}, "whole number"),
        ({"bcrypt-cost": "3"}, "from 4 to 31"),
        ({"cert-file": "x"}, "go together"),
        ({"client-cert-allowed-hostname": "x"}, "do not check"),
    ],
)
def test_what_we_are_not(flags: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        options_of(flags, {})


@pytest.mark.parametrize("periodic", [True, False])
async def test_compacts_by_itself(periodic: bool, tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.2  # the disk's thread has to have its say before time flies
    options = EtcdOptions(
        name="x", data_dir="", listen=(), compact_every_seconds=1800.0 if periodic else 0.0,
        compact_revisions=0 if periodic else 5,
    )  # fmt: skip
    store, stop = Store(FileDisk(str(tmp_path))), trio.Event()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[None]) -> None:
            await store.run(stopping=stop, task_status=task_status)

        await nursery.start(run)
        for _ in range(20):
            await store.put(b"k", b"v")
        with trio.move_on_after(2500 if periodic else 400):
            await compact_by_itself(store, options, Log(to_stdout=False))
        assert store.compacted_revision == (21 if periodic else 16)
        stop.set()
