"""``[store] mode = "external"``: the node keeps its own keys in a real etcd, and runs on when that is gone."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from app.daemon import SETTINGS, Daemon
from appliance.errors import NotFoundError
from tests.migration.etcd import etcdctl, free_port, real_etcd

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd-server and etcd-client of Debian")

UNIT = '[service]\ncommand = ["/bin/sleep", "infinity"]\n'


def start(root: Path, *endpoints: str) -> Daemon:
    units = root / "etc/appliance/units"
    units.mkdir(parents=True, exist_ok=True)
    for name in ("stays", "stops"):
        (units / f"{name}.toml").write_text(UNIT)
    listed = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
    text = f'{SETTINGS}[store]\nmode = "external"\n[store.external]\nendpoints = [{listed}]\n'
    (root / "etc/appliance/appliance.toml").write_text(text)
    return Daemon([sys.executable, "-m", "appliance"], root).expect_ready()


async def test_own_keys_are_in_the_etcd(tmp_path: Path) -> None:
    root = tmp_path / "node"
    async with real_etcd(tmp_path / "etcd") as address:
        daemon = await trio.to_thread.run_sync(start, root, f"http://127.0.0.1:{free_port()}", f"http://{address}")
        try:
            await trio.to_thread.run_sync(daemon.expect_unit, "stops", "ready")
            await trio.to_thread.run_sync(daemon.call, "POST", "/v1/units/stops/stop", {})
            keys = await etcdctl(address, "get", "--prefix", "/appliance/", "--keys-only")
            assert keys.split() == ["/appliance/units/stops/desired"]
        finally:
            await trio.to_thread.run_sync(daemon.clean_up)
        again = await trio.to_thread.run_sync(start, root, f"http://{address}")
        try:
            await trio.to_thread.run_sync(again.expect_unit, "stays", "ready")
            assert again.unit("stops")["state"] != "ready"  # it remembers, though only the etcd knew
            names = [service["name"] for service in again.status()["services"]]
            assert "etcdapi" not in names
        finally:
            await trio.to_thread.run_sync(again.clean_up)


async def test_units_run_though_the_etcd_is_gone(tmp_path: Path) -> None:
    daemon = await trio.to_thread.run_sync(start, tmp_path / "node", f"http://127.0.0.1:{free_port()}")
    try:
        await trio.to_thread.run_sync(daemon.expect_unit, "stays", "ready")
    finally:
        await trio.to_thread.run_sync(daemon.clean_up)


async def test_store_verbs_reach_the_etcd(tmp_path: Path) -> None:
    async with real_etcd(tmp_path / "etcd") as address:
        daemon = await trio.to_thread.run_sync(start, tmp_path / "node", f"http://{address}")
        try:
            call = partial(trio.to_thread.run_sync, daemon.call, "POST")
            await call("/v1/store/put", {"key": "a2V5", "value": "dmFsdWU="})
            assert await etcdctl(address, "get", "key") == "key\nvalue\n"
            found = await call("/v1/store/range", {"key": "a2V5"})
            assert found["kvs"][0]["value"] == "dmFsdWU="
            done = await call("/v1/store/txn", {"success": [{"delete": {"key": "a2V5"}}]})
            assert done["responses"][0]["deleted"] == 1
            status = await trio.to_thread.run_sync(daemon.call, "GET", "/v1/store/status")
            assert (status["state"], status["revision"] > 2) == ("open", True)
        finally:
            await trio.to_thread.run_sync(daemon.clean_up)


async def test_a_put_with_a_lease_that_is_none_is_refused(tmp_path: Path) -> None:
    units = tmp_path / "etc/appliance/units"
    units.mkdir(parents=True)
    (tmp_path / "etc/appliance/appliance.toml").write_text(SETTINGS)
    daemon = await trio.to_thread.run_sync(Daemon, [sys.executable, "-m", "appliance"], tmp_path)
    try:
        await trio.to_thread.run_sync(daemon.expect_ready)
        put = {"key": "a2V5", "value": "", "lease": 99}
        for verb, body in (("put", put), ("txn", {"success": [{"put": put}]})):
            with pytest.raises(NotFoundError, match="no lease 99"):
                await trio.to_thread.run_sync(daemon.call, "POST", f"/v1/store/{verb}", body)
    finally:
        await trio.to_thread.run_sync(daemon.clean_up)


async def test_a_backup_is_the_etcds_snapshot(tmp_path: Path) -> None:
    """One command wherever the store is; it is proved, and what it wrote goes back into either kind of store."""
    root, file = tmp_path / "node", tmp_path / "external.backup"
    command = [sys.executable, "-m", "appliance", "--root", str(root), "store"]
    run = partial(trio.run_process, capture_stdout=True, capture_stderr=True, check=False)
    async with real_etcd(tmp_path / "etcd") as address:
        for number in range(3):
            await etcdctl(address, "put", f"key{number}", "value" * 20_000)
        daemon = await trio.to_thread.run_sync(start, root, f"http://127.0.0.1:{free_port()}", f"http://{address}")
        try:
            await trio.to_thread.run_sync(daemon.expect_unit, "stays", "ready")
            done = await run([*command, "backup", str(file)])
            assert done.returncode == 0, done.stderr
            assert b"proved" in done.stdout
        finally:
            await trio.to_thread.run_sync(daemon.clean_up)
    checked = await run([*command, "check", str(file)])
    assert checked.stdout.endswith(b", whole\n")
    assert "TOTAL KEYS" in await etcdctl(address, "snapshot", "status", str(file), "-w", "table")
    data = bytearray(await trio.Path(file).read_bytes())
    data[len(data) // 2] ^= 1
    await trio.Path(file).write_bytes(data)
    damaged = await run([*command, "check", str(file)])
    assert damaged.returncode
    assert b"its sha256 is" in damaged.stderr
