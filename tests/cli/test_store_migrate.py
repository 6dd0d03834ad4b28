"""``appliance store migrate``: from a real node into a real etcd."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from app.daemon import SETTINGS, Daemon

from cli.peer import command, run
from tests.migration.etcd import etcdctl, free_port, real_etcd

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd-server and etcd-client of Debian")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    root = tmp_path / "node"
    (root / "etc/appliance").mkdir(parents=True)
    (root / "etc/appliance/appliance.toml").write_text(SETTINGS)
    one = Daemon(command(), root)
    one.expect_ready()
    one.expect_service("store", "ready")
    yield one
    one.clean_up()


async def test_the_nodes_own_keys_move(daemon: Daemon, tmp_path: Path) -> None:
    async def appliance(*words: str) -> tuple[int, str]:
        done = await trio.to_thread.run_sync(lambda: run("--root", daemon.layout.root, "store", *words))
        return done.returncode, done.stdout + done.stderr

    for number in range(3):
        await appliance("put", f"/appliance/test/{number}", f"value {number}")
    await appliance("put", "/mine", "stays")
    async with real_etcd(tmp_path / "etcd") as address:
        url = f"http://{address}"
        dead = f"http://127.0.0.1:{free_port()}"
        code, said = await appliance("migrate", dead, url)
        assert (code, "are in" in said) == (0, True), said
        assert await etcdctl(address, "get", "/appliance/test/1") == "/appliance/test/1\nvalue 1\n"
        assert await etcdctl(address, "get", "/mine") == ""
        await etcdctl(address, "put", "/appliance/test/1", "another")
        code, said = await appliance("migrate", url)
        assert (code, "another value" in said) == (7, True), said
        code, said = await appliance("migrate", url, "--replace")
        assert code == 0, said
        assert await etcdctl(address, "get", "/appliance/test/1", "--print-value-only") == "value 1\n"
        code, said = await appliance("migrate", dead)
        assert (code, "cannot reach" in said) == (1, True), said
        code, said = await appliance("migrate", "nonsense")
        assert (code, "a URL such as" in said) == (2, True), said
