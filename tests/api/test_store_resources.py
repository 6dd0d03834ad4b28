"""The store's resources in front of the real store on a real disk."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import trio

from api.conftest import GENEROUS, Serve
from api.sim import Sim
from appliance.host.disk import FileDisk
from appliance.store import Store

KEYS = {"a": "MQ==", "b": "Mg==", "c": "Mw=="}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_every_verb_on_the_real_store(serve: Serve, tmp_path: Path, nursery: trio.Nursery) -> None:
    store = Store(FileDisk(str(tmp_path / "store")))
    stopping = trio.Event()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await store.run(stopping=stopping, task_status=task_status)

    await nursery.start(run)
    async with serve(Sim(tmp_path, store=store)) as running, running.control() as http:

        async def ask(verb: str, status: int = 200, **body: Any) -> Any:
            answer = await http.post(f"/v1/store/{verb}", json=body)
            assert answer.status_code == status, answer.text
            return answer.json()

        for key, value in KEYS.items():
            await ask("put", key=encoded(key), value=value)
        everything = {"key": "AA==", "range_end": "AA=="}
        found = await ask("range", **everything, sort_target="key", sort_order="descend", limit=2)
        assert [kv["key"] for kv in found["kvs"]] == [encoded("c"), encoded("b")]
        assert (found["more"], found["count"]) == (True, 3)
        assert (await ask("range", **everything, keys_only=True))["kvs"][0]["value"] == ""
        done = await ask(
            "txn",
            compare=[{"key": encoded("a"), "target": "value", "result": "equal", "value": KEYS["a"]}],
            success=[{"put": {"key": encoded("a"), "value": ""}}, {"range": {"key": encoded("b")}}],
            failure=[{"delete": everything}],
        )
        assert done["succeeded"] is True
        assert done["responses"][1]["kvs"][0]["value"] == KEYS["b"]
        deleted = await ask("delete", key=encoded("c"), prev_kv=True)
        assert deleted["prev"][0]["value"] == KEYS["c"]
        async with running.lines(
            f"/v1/store/watch?key=AA==&range_end=AA==&start_revision={deleted['revision']}", unix=True
        ) as lines:
            with trio.fail_after(GENEROUS):
                assert [event["type"] for event in json.loads(await anext(lines))["events"]] == ["delete"]
                await ask("put", key=encoded("d"), value="")
                assert [event["type"] for event in json.loads(await anext(lines))["events"]] == ["put"]
        await ask("compact", revision=deleted["revision"])
        old = await ask("range", 409, **everything, revision=2)
        assert old["error"]["kind"] == "conflict"
        await ask("range", 400, **everything, revision=10**6)
        async with running.lines("/v1/store/watch?key=AA==&start_revision=1", unix=True) as lines:
            assert "error" in json.loads(await anext(lines))
        assert (await http.get("/v1/store/status")).json()["keys"] == 3
        assert len((await http.get("/v1/store/backup")).content) > 50
    stopping.set()
