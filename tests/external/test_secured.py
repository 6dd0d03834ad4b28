"""A real etcd with TLS, client certificates and authentication, one endpoint gone: all of it works."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from appliance.errors import UnavailableError, UntrustedError
from appliance.external import Credentials, ExternalStore
from appliance.store import Put, Range
from tests.migration.etcd import free_port

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd-server and etcd-client of Debian")


@asynccontextmanager
async def secured_etcd(directory: Path) -> AsyncIterator[int]:
    """Yields the port; users root:pw and alice:secret, who may do all below a."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    for name in ("127.0.0.1", "client"):
        common_name = name if name[0] == "1" else None
        pem = authority.issue_cert(name, common_name=common_name).private_key_and_cert_chain_pem
        pem.write_to_path(directory / f"{name}.pem")
    port, peer = free_port(), f"http://127.0.0.1:{free_port()}"
    url, ours = f"https://127.0.0.1:{port}", str(directory / "127.0.0.1.pem")
    process = await trio.lowlevel.open_process(
        [
            "etcd", "--name=default", f"--data-dir={directory}/data", f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}", f"--cert-file={ours}", f"--key-file={ours}", "--client-cert-auth",
            f"--trusted-ca-file={directory}/ca.pem", "--unsafe-no-fsync",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        common = ["etcdctl", f"--endpoints={url}", f"--cacert={directory}/ca.pem", f"--cert={ours}", f"--key={ours}"]
        for command in (
            "get x --dial-timeout=60s --command-timeout=60s", "user add root:pw", "user add alice:secret",
            "role add root", "role add r", "role grant-permission r readwrite a --prefix", "user grant-role root root",
            "user grant-role alice r", "auth enable",
        ):  # fmt: skip
            run = partial(subprocess.run, [*common, *command.split()], env={"ETCDCTL_API": "3"}, capture_output=True)
            done = await trio.to_thread.run_sync(run)
            assert not done.returncode, done
        yield port
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_everything_with_certificates_and_a_password(tmp_path: Path) -> None:
    async with secured_etcd(tmp_path) as port:
        pem, ca = str(tmp_path / "client.pem"), str(tmp_path / "ca.pem")
        (tmp_path / "password").write_text("secret\n")
        gone = f"https://127.0.0.1:{free_port()}"
        good = Credentials(ca, pem, pem, user="alice", password_file=str(tmp_path / "password"))
        store = ExternalStore([gone, f"https://127.0.0.1:{port}"], good)
        with trio.fail_after(120):
            async with store.watch(b"a", b"b") as watch:
                revision = (await store.put(Put(b"a1", b"v"))).revision
                assert (await anext(watch)).revision == revision
            assert (await store.read(Range(b"a1"))).kvs[0].value == b"v"
            with pytest.raises(UntrustedError, match="permission denied"):
                await store.put(Put(b"b", b"v"))
            async with store.lease(60) as lease:
                await store.put(Put(b"a2", b"v", lease.id))
            assert not (await store.read(Range(b"a2"))).kvs
            await store.aclose()
            for bad, kind in (
                (Credentials(ca, pem, pem, user="alice", password="wrong"), Exception),
                (Credentials(ca, user="alice", password="secret"), UnavailableError),
                (Credentials("", pem, pem, user="alice", password="secret"), UnavailableError),
            ):
                store = ExternalStore([f"https://127.0.0.1:{port}"], bad)
                with pytest.raises(kind):
                    await store.put(Put(b"a1", b"v"))
                await store.aclose()
