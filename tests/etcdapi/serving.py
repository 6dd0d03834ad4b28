"""A store with its etcd API on a port of loopback. By hand: ``python -m tests.etcdapi.serving DIRECTORY PORT``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from appliance.etcdapi import API_DEFAULTS, ApiOptions, EtcdApi, Listen, identity_of
from appliance.host.disk import Disk, FileDisk
from appliance.host.sockets import Address
from appliance.store import Store


@asynccontextmanager
async def serving(
    directory: Path,
    *,
    port: int = 0,
    unix_path: str | None = None,
    listen: Sequence[Listen] = (),
    reserved: bytes = b"",
    disk: Disk | None = None,
    quota: int = 0,
    options: ApiOptions = API_DEFAULTS,
) -> AsyncIterator[tuple[str, Store]]:
    """Yields (HOST:PORT, the store)."""
    store = Store(disk or FileDisk(str(directory)), quota=quota, limits=options.limits)
    identity = identity_of("default", client_urls=("http://127.0.0.1:2379",), peer_urls=("http://127.0.0.1:2380",))
    listen = listen or [Listen(Address("127.0.0.1", port), trusting=True)]
    api = EtcdApi(store, identity, unix_path=unix_path, listen=listen, reserved=reserved, options=options)
    stop_store, stop_api, api_stopped = trio.Event(), trio.Event(), trio.Event()

    async def run_api(task_status: trio.TaskStatus[None]) -> None:
        await api.run(stopping=stop_api, task_status=task_status)
        api_stopped.set()

    async with trio.open_nursery() as nursery:

        async def run_store(task_status: trio.TaskStatus[None]) -> None:
            await store.run(stopping=stop_store, task_status=task_status)

        await nursery.start(run_store)
        await nursery.start(run_api)
        try:
            yield api.listening[-1], store
        finally:
            stop_api.set()
            with trio.CancelScope(shield=True):
                await api_stopped.wait()
            stop_store.set()


async def main(directory: str, port: str) -> None:
    async with serving(Path(directory), port=int(port)) as (address, _):
        print("serving", address, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)  # the thread that syncs waits for the interpreter no longer than that
    trio.run(main, *sys.argv[1:])
