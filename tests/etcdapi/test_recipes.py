"""Lock and Election, over JSON, beside a real etcd: the same answers, the same order."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
import trio

from tests.etcdapi.serving import serving
from tests.etcdapi.test_gateway import Http, connect
from tests.etcdapi.test_transcript import etcd  # noqa: F401


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def normal(text: str) -> str:
    text = re.sub(r'"(cluster_id|member_id|raft_term)":"\d+"', r'"\1":"N"', text)
    return re.sub(r'"(error|message)":"[^"]*lost watcher[^"]*"', r'"\1":"lost"', text)


async def ask(address: str, path: str, **body: object) -> str:
    http = await connect(address)
    try:
        status, text = await http.ask("POST", path, json.dumps(body))
        return f"{path} {status} {normal(text)}"
    finally:
        await http.stream.aclose()


async def lines(http: Http, count: int) -> list[str]:
    return [normal((await http.until(b"\n")).decode()) for _ in range(count)]


async def story(address: str) -> list[str]:
    told: list[str] = []

    async def tell(path: str, **body: object) -> None:
        told.append(await ask(address, path, **body))

    for lease in (11, 12, 13):
        await tell("/v3/lease/grant", TTL=100, ID=lease)
    await tell("/v3/lock/lock", name=b64("l"), lease=11)
    await tell("/v3/lock/lock", name=b64("l"), lease=11)
    await tell("/v3/lock/lock", name=b64("l"), lease=99)
    async with trio.open_nursery() as nursery:
        order: list[str] = []

        async def take(lease: int) -> None:
            order.append(await ask(address, "/v3/lock/lock", name=b64("l"), lease=lease))

        nursery.start_soon(take, 12)
        await has_key(address, "l/c")
        await tell("/v3/lock/unlock", key=b64("l/b"))
    told += order
    leaving = await connect(address)  # who leaves the queue does not get the lock
    body = json.dumps({"name": b64("l"), "lease": 13})
    head = f"POST /v3/lock/lock HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    await leaving.stream.send_all((head + body).encode())
    await has_key(address, "l/d")
    await leaving.stream.aclose()
    await has_key(address, "l/d", there=False)

    await tell("/v3/election/leader", name=b64("e"))
    watcher = await connect(address)
    body = json.dumps({"name": b64("e")})
    head = f"POST /v3/election/observe HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    await watcher.stream.send_all((head + body).encode())
    await tell("/v3/election/campaign", name=b64("e"), lease=11, value=b64("one"))
    if not (await watcher.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200"):
        raise AssertionError("no stream")
    told += [re.sub(r"^[0-9a-f]+\r|\r", "", line) for line in await lines(watcher, 2)]
    leader = json.loads(told[-3].partition(" 200 ")[2])["leader"] if "leader" in told[-3] else {}
    await tell("/v3/election/proclaim", leader=leader, value=b64("two"))
    await tell("/v3/election/leader", name=b64("e"))
    await tell("/v3/election/proclaim", leader={**leader, "rev": "3"}, value=b64("three"))
    await tell("/v3/election/proclaim", value=b64("three"))
    await tell("/v3/election/resign")
    await tell("/v3/election/campaign", name=b64("e"), lease=11, value=b64("four"))
    async with trio.open_nursery() as nursery:
        order = []

        async def run() -> None:
            order.append(await ask(address, "/v3/election/campaign", name=b64("e"), lease=12, value=b64("five")))

        nursery.start_soon(run)
        await has_key(address, "e/c")
        await tell("/v3/election/resign", leader=leader)
    told += order
    await tell("/v3/election/leader", name=b64("e"))
    await tell("/v3/lease/revoke", ID=12)
    await tell("/v3/election/leader", name=b64("e"))
    said = []
    while len(said) < 3:  # two, four, five: how they are cut into chunks is nobody's business
        said += re.findall(r'"value":"([^"]+)"', (await watcher.until(b"\n")).decode())
    told.append(str([base64.b64decode(each) for each in said]))
    await watcher.stream.aclose()
    return told


async def has_key(address: str, key: str, *, there: bool = True) -> None:
    with trio.fail_after(60):
        while ('"count"' in await ask(address, "/v3/kv/range", key=b64(key))) is not there:  # noqa: ASYNC110
            await trio.sleep(0.02)  # polls a server that is not ours, too


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd")
async def test_lock_and_election_as_etcd(etcd, tmp_path: Path) -> None:  # noqa: F811
    theirs = await story(await trio.to_thread.run_sync(etcd))
    async with serving(tmp_path) as (address, _):
        ours = await story(address)
    assert ours == theirs
