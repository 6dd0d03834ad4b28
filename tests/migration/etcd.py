"""A real etcd on loopback, started and ended by the test, and Debian's etcdctl."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def etcdctl(address: str, *arguments: str | Path, refused: bool = False) -> str:
    """What it printed; with ``refused``, on standard error."""
    environment = {**os.environ, "ETCDCTL_API": "3"}
    command = ["etcdctl", f"--endpoints={address}", *map(str, arguments)]
    run = partial(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120)
    done = await trio.to_thread.run_sync(run)
    assert bool(done.returncode) == refused, done
    return done.stderr if refused else done.stdout


async def restored(snapshot: Path, directory: Path, *options: str) -> int:
    """``etcdctl snapshot restore``; returns the peer port that the new cluster has."""
    peer = free_port()
    url = f"http://127.0.0.1:{peer}"
    await etcdctl(
        "127.0.0.1:1", "snapshot", "restore", snapshot, "--data-dir", directory, "--name=default",
        f"--initial-cluster=default={url}", f"--initial-advertise-peer-urls={url}", *options,
    )  # fmt: skip
    return peer


@asynccontextmanager
async def real_etcd(directory: Path, peer: int = 0, *options: str) -> AsyncIterator[str]:
    """Yields HOST:PORT when it serves."""
    port, peer = free_port(), peer or free_port()
    url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    command = [
        "etcd", "--name=default", f"--data-dir={directory}", f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}", f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}", f"--initial-cluster=default={peer_url}", "--unsafe-no-fsync",
        *options,
    ]  # fmt: skip
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    serves, log = trio.Event(), bytearray()

    async def listen() -> None:
        assert process.stderr is not None
        async for piece in process.stderr:
            log.extend(piece)
            if b"ready to serve client requests" in log or b"serving insecure client requests" in log:
                serves.set()
        assert serves.is_set(), log.decode()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        try:
            with trio.fail_after(60):
                await serves.wait()
            patience = ("--dial-timeout=60s", "--command-timeout=60s")
            ready = ["etcdctl", f"--endpoints=127.0.0.1:{port}", "get", "x", *patience]
            run = partial(subprocess.run, ready, env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True)
            done = await trio.to_thread.run_sync(run)
            assert not done.returncode or "user name is empty" in done.stderr, done  # it asks who we are
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()
