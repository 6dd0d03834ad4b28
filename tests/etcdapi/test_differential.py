"""The same random operations against a real etcd and ours, one by one: answers, refusals, revisions.

Over gRPC, and a part of them through the JSON gateway. Lease ids are chosen by us, so that little is left to normalise.
A seed that fails prints its operations as far as they went: ``DIFFERENTIAL_SEED=N`` runs that one alone.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from appliance.etcdapi.pb import rpc_pb2 as pb
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving
from tests.etcdapi.test_transcript import free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd")]

OPERATIONS = int(os.environ.get("DIFFERENTIAL_OPERATIONS", "400"))
SEEDS = [int(os.environ["DIFFERENTIAL_SEED"])] if "DIFFERENTIAL_SEED" in os.environ else [1, 2, 3, 4, 11, 18]
KEYS = [b"", b"a", b"a\0", b"aa", b"ab", b"b", b"ba", b"c", b"c\xff", b"\xff", b"d/1", b"d/2", b"d/3"]
ENDS = [b"", b"", b"\0", b"a", b"b", b"c", b"d0", b"\xff", b"\xff\xff"]
LEASES = [7, 8, 9, 1 << 40]
GATEWAY = {
    "KV/Range": "/v3/kv/range", "KV/Put": "/v3/kv/put", "KV/DeleteRange": "/v3/kv/deleterange", "KV/Txn": "/v3/kv/txn",
    "KV/Compact": "/v3/kv/compaction", "Lease/LeaseGrant": "/v3/lease/grant", "Lease/LeaseRevoke": "/v3/lease/revoke",
    "Lease/LeaseTimeToLive": "/v3/lease/timetolive", "Lease/LeaseLeases": "/v3/lease/leases",
}  # fmt: skip
ANSWERS: dict[str, type[Message]] = {
    "KV/Range": pb.RangeResponse, "KV/Put": pb.PutResponse, "KV/DeleteRange": pb.DeleteRangeResponse,
    "KV/Txn": pb.TxnResponse, "KV/Compact": pb.CompactionResponse, "Lease/LeaseGrant": pb.LeaseGrantResponse,
    "Lease/LeaseRevoke": pb.LeaseRevokeResponse, "Lease/LeaseTimeToLive": pb.LeaseTimeToLiveResponse,
    "Lease/LeaseLeases": pb.LeaseLeasesResponse, "Lease/LeaseKeepAlive": pb.LeaseKeepAliveResponse,
}  # fmt: skip


class Chooser:
    """What is done next. ``revision`` and ``leases`` are what the real etcd has reached."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.revision = 1
        self.compacted = 0
        self.leases: set[int] = set()

    def next(self) -> tuple[str, Message]:
        makers: list[tuple[int, Callable[[], tuple[str, Message]]]] = [
            (30, lambda: ("KV/Put", self.put())), (25, lambda: ("KV/Range", self.range())),
            (8, lambda: ("KV/DeleteRange", self.delete())), (20, lambda: ("KV/Txn", self.txn())),
            (2, lambda: ("KV/Compact", self.compact())), (3, self.grant), (2, self.revoke),
            (4, self.time_to_live), (1, lambda: ("Lease/LeaseLeases", pb.LeaseLeasesRequest())),
            (2, lambda: ("Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=self.pick(LEASES)))),
            (5, lambda: ("Watch/Watch", self.watch())),
        ]  # fmt: skip
        weights = [weight for weight, _ in makers]
        return self.random.choices([maker for _, maker in makers], weights)[0]()

    def pick(self, what: Any) -> Any:
        return self.random.choice(what)

    def rarely(self, chance: float = 0.1) -> bool:
        return self.random.random() < chance

    def key(self) -> bytes:
        return self.pick(KEYS) if self.rarely(0.3) else self.pick(KEYS[1:6])

    def some_revision(self) -> int:
        if self.rarely():
            return self.pick([-1, 1, self.compacted, max(self.compacted - 1, 0), self.revision + 1, 1 << 40])
        return self.random.randint(max(self.compacted, 1), self.revision)

    def put(self, *, in_txn: bool = False) -> pb.PutRequest:
        request = pb.PutRequest(key=self.key(), value=self.random.randbytes(self.pick([0, 1, 2, 40])))
        request.prev_kv = self.rarely(0.3)
        if self.rarely(0.2):
            # an etcd dies of a transaction that puts with a lease that it does not have
            request.lease = self.pick(sorted(self.leases) or [0]) if in_txn else self.pick([*LEASES, 99])
        if self.rarely():
            request.ignore_value = True
            request.value = b"not allowed" if self.rarely() else b""
        if self.rarely():
            request.ignore_lease = True
            request.lease = request.lease if self.rarely() else 0
        return request

    def range(self) -> pb.RangeRequest:
        request = pb.RangeRequest(key=self.key(), range_end=self.pick(ENDS))
        if self.rarely(0.3):
            request.revision = self.some_revision()
        if self.rarely(0.3):
            request.limit = self.pick([1, 2, 3, 5])
        if self.rarely(0.4):
            request.sort_order = self.pick([0, 1, 2])
            request.sort_target = self.random.randrange(5)
        request.serializable = self.rarely(0.2)
        request.keys_only = self.rarely(0.2)
        request.count_only = self.rarely()
        for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            if self.rarely(0.12):
                setattr(request, name, self.random.randint(1, self.revision))
        return request

    def delete(self, *, in_txn: bool = False) -> pb.DeleteRangeRequest:
        end = self.pick(ENDS) if self.rarely(0.4) else b""
        if in_txn and end == b"\0":
            end = b"\xff\xff"  # an etcd overlooks that "from key" meets a key that is put beside it; we refuse it
        return pb.DeleteRangeRequest(key=self.key(), range_end=end, prev_kv=self.rarely(0.4))

    def txn(self, depth: int = 0) -> pb.TxnRequest:
        if depth == 0 and self.rarely(0.02):
            return pb.TxnRequest(success=[self.operation(2)] * 129)
        return pb.TxnRequest(
            compare=[self.compare() for _ in range(self.pick([0, 1, 1, 2]))],
            success=[self.operation(depth) for _ in range(self.pick([0, 1, 2, 3]))],
            failure=[self.operation(depth) for _ in range(self.pick([0, 0, 1, 2]))],
        )

    def operation(self, depth: int) -> pb.RequestOp:
        kind = self.random.randrange(7 if depth < 2 else 6)
        if kind < 2:
            return pb.RequestOp(request_range=self.range())
        if kind < 5:
            return pb.RequestOp(request_put=self.put(in_txn=True))
        if kind < 6:
            return pb.RequestOp(request_delete_range=self.delete(in_txn=True))
        return pb.RequestOp(request_txn=self.txn(depth + 1))

    def compare(self) -> pb.Compare:
        compare = pb.Compare(key=self.key(), result=self.random.randrange(4), target=self.random.randrange(5))
        if self.rarely(0.3):
            compare.range_end = self.pick(ENDS)
        if self.rarely(0.05):
            return compare
        match compare.target:
            case pb.Compare.VERSION:
                compare.version = self.pick([0, 1, 2, 3])
            case pb.Compare.CREATE:
                compare.create_revision = self.pick([0, self.revision, self.some_revision()])
            case pb.Compare.MOD:
                compare.mod_revision = self.pick([0, self.revision, self.some_revision()])
            case pb.Compare.VALUE:
                compare.value = self.random.randbytes(self.pick([0, 1]))
            case pb.Compare.LEASE:
                compare.lease = self.pick([0, *LEASES])
        return compare

    def compact(self) -> pb.CompactionRequest:
        return pb.CompactionRequest(revision=self.some_revision(), physical=self.rarely(0.5))

    def grant(self) -> tuple[str, Message]:
        return "Lease/LeaseGrant", pb.LeaseGrantRequest(ID=self.pick(LEASES), TTL=self.pick([300, 9000, 9000000001]))

    def revoke(self) -> tuple[str, Message]:
        return "Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=self.pick(LEASES))

    def time_to_live(self) -> tuple[str, Message]:
        return "Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=self.pick(LEASES), keys=self.rarely(0.7))

    def watch(self) -> pb.WatchRequest:
        create = pb.WatchCreateRequest(key=self.key() or b"a", prev_kv=self.rarely(0.5))
        create.range_end = self.pick(ENDS)
        create.start_revision = self.pick(
            [0, 0, max(self.compacted, 1), self.some_revision(), self.some_revision(), -2]
        )
        create.start_revision = min(create.start_revision, self.revision + 1)
        if self.rarely(0.3):
            create.filters.append(self.pick([pb.WatchCreateRequest.NOPUT, pb.WatchCreateRequest.NODELETE]))
        create.fragment = self.rarely(0.3)
        create.progress_notify = self.rarely(0.2)
        create.watch_id = self.pick([0, 0, 5])
        return pb.WatchRequest(create_request=create)

    def learn(self, request: Message, answer: object) -> None:
        """From the real etcd's answer."""
        if isinstance(answer, Message):
            header = getattr(answer, "header", None)
            self.revision = max(self.revision, header.revision if header else 0)
            if isinstance(request, pb.CompactionRequest):
                self.compacted = request.revision
            elif isinstance(request, pb.LeaseGrantRequest):
                self.leases.add(request.ID)
            elif isinstance(request, pb.LeaseRevokeRequest):
                self.leases.discard(request.ID)


class Side:
    """One of the two servers."""

    def __init__(self, client: Client, gateway: httpx.AsyncClient) -> None:
        self.client = client
        self.gateway = gateway
        self.compacted = 0
        self.root_token = ""

    async def do(self, method: str, request: Message) -> object:
        if isinstance(request, pb.WatchRequest):
            return await self._watch(request)
        try:
            if method == "Lease/LeaseKeepAlive":
                stream = await self.client.open(method)
                await self.client.say(stream, request, last=True)
                answer: Message = await self.client.hear(stream, ANSWERS[method])
            else:
                answer = await self.client.ask(method, request, ANSWERS[method])
        except EOFError as refused:
            return refused.args
        return normal(answer)

    async def do_json(self, method: str, request: Message) -> object:
        body = json_format.MessageToJson(request, preserving_proto_field_name=True)
        token = self.client.token
        headers = {"Authorization": token} if token else {}
        answer = await self.gateway.post(GATEWAY[method], content=body, headers=headers)
        said = answer.json()
        for name in ("cluster_id", "member_id", "raft_term"):
            said.get("header", {}).pop(name, None)
        if int(said.get("TTL", 0)) > 0 and "grantedTTL" in said:
            said["TTL"] = "some"
        for name in ("keys", "leases"):
            if name in said:
                said[name].sort(key=str)
        return answer.status_code, said

    async def _watch(self, request: pb.WatchRequest) -> object:
        """All it says up to two more changes of the key, a put and a delete; how it is cut in messages is left free.

        A delete at the very revision of the last compaction is left out: the etcd of 3.4.23 lost it.
        """
        create = request.create_request
        stream = await self.client.open("Watch/Watch")
        await self.client.say(stream, request)
        created = normal(await self.client.hear(stream, pb.WatchResponse))
        said: list[object] = [created]
        self.client.token = self.root_token
        if created.canceled:
            return said
        put = pb.PutRequest(key=create.key, value=b"end")
        last = (await self.client.ask("KV/Put", put, pb.PutResponse)).header.revision
        if pb.WatchCreateRequest.NODELETE not in create.filters:
            gone = pb.DeleteRangeRequest(key=create.key)
            last = (await self.client.ask("KV/DeleteRange", gone, pb.DeleteRangeResponse)).header.revision
        else:
            await self.client.ask("KV/DeleteRange", pb.DeleteRangeRequest(key=create.key), pb.DeleteRangeResponse)
        at = 0
        while at < last:
            answer = await self.client.hear(stream, pb.WatchResponse)
            if answer.canceled:
                answer.header.Clear()  # the revision may be from before our put
                said.append(answer)
                break
            said += [each for each in answer.events if not (each.type and each.kv.mod_revision == self.compacted)]
            at = answer.events[-1].kv.mod_revision if answer.events else at
        if create.watch_id and at >= last:  # the id of a watch that lives: refused
            await self.client.say(stream, pb.WatchRequest(create_request=create))
            said.append(normal(await self.client.hear(stream, pb.WatchResponse)))
        await self.client.say(stream, pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=created.watch_id)))
        return said


@asynccontextmanager
async def reached(address: str) -> AsyncIterator[Side]:
    client = await Client.connect(address)
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as gateway:
            yield Side(client, gateway)
    finally:
        await client.aclose()


def normal(answer: Any) -> Any:
    for name in ("cluster_id", "member_id", "raft_term"):
        answer.header.ClearField(name)
    if isinstance(answer, pb.LeaseTimeToLiveResponse):
        answer.TTL = min(answer.TTL, 1)
        answer.keys.sort()
    elif isinstance(answer, pb.LeaseLeasesResponse):
        answer.leases.sort(key=lambda lease: lease.ID)
    return answer


def flat(answer: object) -> str:
    return " ".join(str(answer).split())


@pytest.fixture
def real_etcd(tmp_path: Path) -> Iterator[str]:
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    process = subprocess.Popen(
        ["etcd", "--data-dir", str(tmp_path / "real"), "--listen-client-urls", client, "--advertise-client-urls",
         client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
         "--initial-cluster", f"default={peer}"], stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    assert process.stderr is not None
    lines = iter(process.stderr)
    assert any("ready to serve client requests" in line for line in lines)
    drain = threading.Thread(target=lambda: [None for _ in lines])  # else it stops when the pipe is full
    drain.start()
    yield client.removeprefix("http://")
    process.kill()
    process.wait()
    drain.join()
    process.stderr.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_as_a_real_etcd(seed: int, real_etcd: str, tmp_path: Path) -> None:
    chooser = Chooser(seed)
    done: list[str] = []
    async with serving(tmp_path / "ours") as (address, _), reached(real_etcd) as theirs, reached(address) as ours:
        for _ in range(OPERATIONS):
            method, request = chooser.next()
            as_json = method in GATEWAY and chooser.rarely(0.15)
            done.append(f"{method}{' (json)' if as_json else ''} {{{flat(request)}}}")
            expected = await (theirs.do_json if as_json else theirs.do)(method, request)
            found = await (ours.do_json if as_json else ours.do)(method, request)
            if found != expected:
                trail = "\n".join(done)
                pytest.fail(f"seed {seed}\n{trail}\netcd: {flat(expected)}\nours: {flat(found)}", pytrace=False)
            if as_json and expected[0] == 200:  # type: ignore[index]
                expected = ANSWERS[method]()
            chooser.learn(request, expected)
            theirs.compacted = ours.compacted = chooser.compacted
            if as_json or method == "Watch/Watch":
                chooser.learn(pb.RangeRequest(), await theirs.do("KV/Range", pb.RangeRequest(key=b"x")))
