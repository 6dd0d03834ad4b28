"""``appliance store restore`` of an etcd's snapshot, on the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.etcdapi.serving import serving
from tests.migration.etcd import etcdctl, real_etcd

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd-server and etcd-client of Debian")


async def appliance(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "appliance", "--root", str(root), "store", "restore", *map(str, arguments)]
    return await trio.to_thread.run_sync(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    )


async def test_restore_takes_an_etcds_snapshot(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.db"
    async with real_etcd(tmp_path / "etcd") as address:
        for number in range(5):
            await etcdctl(address, "put", "foo", f"bar{number}")
        await etcdctl(address, "snapshot", "save", snapshot)
    root = tmp_path / "node"
    done = await appliance(root, snapshot)
    assert done.returncode == 0, done
    assert "restored to revision 6" in done.stdout
    store = Path(done.stdout.strip().rpartition(": ")[2])
    async with serving(store) as (address, _):
        assert await etcdctl(address, "get", "foo", "--rev=3") == "foo\nbar1\n"
        assert await etcdctl(address, "get", "foo") == "foo\nbar4\n"
    again = await appliance(root, snapshot)
    assert again.returncode == 2
    assert "already" in again.stderr
    data = snapshot.read_bytes()
    snapshot.write_bytes(data[:-32])
    bare = await appliance(root, snapshot, "--replace")
    assert bare.returncode == 2
    assert "--skip-hash-check" in bare.stderr
    assert (await appliance(root, snapshot, "--replace", "--skip-hash-check")).returncode == 0
    snapshot.write_bytes(data[:-1] + b"\0")
    wrong = await appliance(root, snapshot, "--replace")
    assert "sha256" in wrong.stderr
    async with real_etcd(tmp_path / "etcd") as address:
        for command in ("user add root:pw", "role add root", "user grant-role root root", "auth enable"):
            await etcdctl(address, *command.split())
        await etcdctl(address, "--user=root:pw", "snapshot", "save", snapshot)
    assert done.stderr == ""
    told = await appliance(root, snapshot, "--replace")
    assert (told.returncode, "authentication is enabled, as it was there" in told.stderr) == (0, True)
    missing = await appliance(root, tmp_path / "nothing")
    assert "cannot read" in missing.stderr
    async with serving(store) as (address, _):
        assert await etcdctl(address, "--user=root:pw", "get", "foo") == "foo\nbar4\n"
