"""What aetcd sees as the user u, who may have what begins with u, at HOST PORT, as JSON. Runs in .build/clients."""

from __future__ import annotations

import asyncio
import json
import sys

import aetcd


async def main(host: str, port: str) -> None:
    found: list[object] = []
    async with aetcd.Client(host=host, port=int(port), timeout=30, username="u", password="p") as client:
        found.append((await client.put(b"u1", b"x")).header.revision)
        found.append((await client.get(b"u1")).value.decode())
        watch = await client.watch_prefix(b"u", start_revision=1)
        async for event in watch:
            found.append([event.kind, event.kv.key.decode()])
            break
        await watch.cancel()
        lock = client.lock(b"u-lock", ttl=60)
        found += [await lock.acquire(), await lock.release()]
        found.append(await refusal(client.put(b"other", b"x")))
        found.append(await refusal(client.get(b"other")))
        found.append(await refusal(client.get_all()))
        found.append(await refusal(client.delete_range(b"t", b"v")))
    for username, password in (("u", "wrong"), ("nobody", "p"), (None, None)):
        client = aetcd.Client(host=host, port=int(port), timeout=30, username=username, password=password)
        found.append(await refusal(client.get(b"u1")))
        await client.close()
    print(json.dumps({"found": found}))


async def refusal(attempt) -> object:
    try:
        return repr(await attempt)
    except Exception as error:
        return [type(error).__name__, str(error)]


asyncio.run(main(*sys.argv[1:]))
