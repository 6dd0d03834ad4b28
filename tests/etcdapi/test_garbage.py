"""Garbage for every method, over a real socket: a status each time, and the service lives."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from google.protobuf.message import DecodeError

from appliance.etcdapi.auth import Auth
from appliance.etcdapi.identity import identity_of
from appliance.etcdapi.pb import rpc_pb2
from appliance.etcdapi.verbs import Verbs
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving

SEED = 7


class Raw:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self) -> bytes:
        return self.data


async def hear_all(client: Client, number: int) -> None:
    while True:
        await client.hear(number, rpc_pb2.CompactionResponse)


async def test_no_method_falls_over(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    async with serving(tmp_path) as (address, store), trio.open_nursery() as nursery:
        methods = sorted(Verbs(store, identity_of("x"), nursery, lambda: None, Auth(None)).methods)
        client = await Client.connect(address)
        real = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"k", lease=5))])
        for path in methods:
            for _ in range(12):
                data = bytearray(chance.randbytes(chance.randrange(30)))
                if chance.random() < 0.4:
                    data = bytearray(real.SerializeToString())
                    data[chance.randrange(len(data))] = chance.randrange(256)
                number = await client.open(path.decode().removeprefix("/etcdserverpb."))
                await client.say(number, Raw(bytes(data)), last=True)  # type: ignore[arg-type]
                if path.endswith((b"/Watch", b"/Lock", b"/Campaign", b"/Observe")):  # these outlive what was said last
                    with trio.move_on_after(0.2), pytest.raises((EOFError, DecodeError)):
                        await hear_all(client, number)
                    continue
                with pytest.raises((EOFError, DecodeError)):  # the end, or an answer of another kind than we read
                    await hear_all(client, number)
        answer = await client.ask("KV/Range", rpc_pb2.RangeRequest(key=b"k"), rpc_pb2.RangeResponse)
        assert answer.header.revision >= 1
        await client.aclose()
        nursery.cancel_scope.cancel()
