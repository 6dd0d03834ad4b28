"""Numbers at their ends, signs where none belong: a real etcd and ours say the same."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from google.protobuf.message import Message

from appliance.etcdapi.pb import rpc_pb2 as pb
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving
from tests.etcdapi.test_differential import ANSWERS, flat, normal, real_etcd

__all__ = ["real_etcd"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd")]
NUMBERS = [0, 1, -1, 2, 5, -(1 << 63), (1 << 63) - 1, 1 << 40]
KEYS, ENDS = [b"a", b"b", b"c"], [b"", b"\0", b"c", b"a"]
KINDS: dict[str, type[Message]] = {**ANSWERS, "Maintenance/HashKV": pb.HashKVResponse}


def next_request(r: random.Random) -> tuple[str, Message]:
    number = lambda: r.choice(NUMBERS)  # noqa: E731
    key = r.choice([*KEYS, b""])
    compare = pb.Compare(key=r.choice(KEYS), range_end=r.choice(ENDS), result=r.randrange(4), target=r.randrange(5))
    if compare.target == pb.Compare.VALUE:
        compare.value = b"v"
    else:
        field = {0: "version", 1: "create_revision", 2: "mod_revision", 4: "lease"}[compare.target]
        setattr(compare, field, number())
    range_ = pb.RangeRequest(
        key=key, range_end=r.choice(ENDS), limit=number(), revision=r.choice([0, 0, 0, *NUMBERS]),
        sort_order=r.randrange(3), sort_target=r.randrange(5), min_mod_revision=number(), max_mod_revision=number(),
        min_create_revision=number(), max_create_revision=number(), keys_only=r.random() < 0.2,
    )  # fmt: skip
    read = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", limit=number()))
    write = pb.RequestOp(request_put=pb.PutRequest(key=r.choice(KEYS), value=b"w"))
    requests: list[tuple[str, Message]] = [
        ("KV/Put", pb.PutRequest(key=key, value=b"v", prev_kv=r.random() < 0.5)),
        ("KV/Put", pb.PutRequest(key=key, value=b"v", lease=number())),
        *[("KV/Range", range_)] * 4,
        *[("KV/Txn", pb.TxnRequest(compare=[compare], success=[read], failure=[write]))] * 2,
        ("KV/DeleteRange", pb.DeleteRangeRequest(key=r.choice(KEYS), range_end=r.choice(ENDS))),
        ("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=number() or 9, TTL=r.choice([300, 9 * 10**9, 9 * 10**9 + 1]))),
        ("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=number(), keys=True)),
        ("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=number())),
        ("Lease/LeaseLeases", pb.LeaseLeasesRequest()),
        ("Maintenance/HashKV", pb.HashKVRequest(revision=r.choice([-1, -(1 << 63), 1 << 40]))),
    ]
    return r.choice(requests)


async def answer(client: Client, method: str, request: Message) -> object:
    try:
        said = normal(await client.ask(method, request, KINDS[method]))
    except EOFError as refused:
        return refused.args
    if isinstance(said, pb.HashKVResponse):  # hashes of other bytes
        return said.header.revision
    return said


async def test_as_a_real_etcd(real_etcd: str, tmp_path: Path) -> None:
    chance = random.Random(5)
    async with serving(tmp_path / "ours") as (address, _):
        clients = [await Client.connect(each) for each in (real_etcd, address)]
        for _ in range(800):
            method, request = next_request(chance)
            expected, found = [await answer(client, method, request) for client in clients]
            assert found == expected, f"{method} {flat(request)}"
        for client in clients:
            await client.aclose()
