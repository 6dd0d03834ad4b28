"""What the suites of other projects found: the same calls to a real etcd and to ours, and their answers."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
import trio
from google.protobuf.message import Message

from appliance.etcdapi.pb import rpc_pb2 as pb
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving
from tests.etcdapi.test_differential import real_etcd

__all__ = ["real_etcd"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd")]
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
Alarm = pb.AlarmRequest
M = TypeVar("M", bound=Message)


class Both:
    """The two servers."""

    def __init__(self, ours: Client, theirs: Client) -> None:
        self._clients = (ours, theirs)

    async def ask(self, method: str, request: Message, kind: type[M]) -> M | tuple[object, ...]:
        """What both say."""
        said = [await self._one(client, method, request, kind) for client in self._clients]
        assert said[0] == said[1], (method, request)
        return said[0]

    async def _one(self, client: Client, method: str, request: Message, kind: type[M]) -> M | tuple[object, ...]:
        request = type(request).FromString(request.SerializeToString())
        status = await client.ask("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        if isinstance(request, Alarm) and request.memberID == 1:
            request.memberID = status.header.member_id
        try:
            answer = await client.ask(method, request, kind)
        except EOFError as refused:
            return refused.args
        answer.ClearField("header")
        if isinstance(answer, pb.LeaseTimeToLiveResponse):
            answer.TTL = min(answer.TTL, 1)
        if isinstance(answer, pb.AlarmResponse):
            for alarm in answer.alarms:
                alarm.memberID = 1 if alarm.memberID == status.header.member_id else alarm.memberID
            answer.alarms.sort(key=lambda alarm: (alarm.alarm, alarm.memberID))
        return answer


@asynccontextmanager
async def both(tmp_path: Path, theirs: str) -> AsyncIterator[Both]:
    async with serving(tmp_path / "ours", quota=1 << 30) as (address, _):
        clients = [await Client.connect(each) for each in (address, theirs)]
        try:
            yield Both(*clients)
        finally:
            for client in clients:
                await client.aclose()


async def test_ids_of_leases_may_be_any(real_etcd: str, tmp_path: Path) -> None:
    async with both(tmp_path, real_etcd) as servers:
        for lease in (-1, LOWEST, HIGHEST):
            await servers.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=300), pb.LeaseGrantResponse)
            await servers.ask("KV/Put", pb.PutRequest(key=b"a", value=b"b", lease=lease), pb.PutResponse)
            found = await servers.ask("KV/Range", pb.RangeRequest(key=b"a"), pb.RangeResponse)
            assert isinstance(found, pb.RangeResponse)
            assert found.kvs[0].lease == lease
            asked = pb.LeaseTimeToLiveRequest(ID=lease, keys=True)
            await servers.ask("Lease/LeaseTimeToLive", asked, pb.LeaseTimeToLiveResponse)
        await servers.ask("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=HIGHEST), pb.LeaseRevokeResponse)
        found = await servers.ask("KV/Range", pb.RangeRequest(key=b"a"), pb.RangeResponse)
        assert isinstance(found, pb.RangeResponse)
        assert not found.kvs


async def test_a_lease_counts_only_in_the_branch_that_is_taken(real_etcd: str, tmp_path: Path) -> None:
    unknown = pb.RequestOp(request_put=pb.PutRequest(key=b"a", lease=123456))
    read = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))
    never = pb.Compare(key=b"b", target=pb.Compare.CREATE, result=pb.Compare.GREATER)
    async with both(tmp_path, real_etcd) as servers:
        good = await servers.ask("KV/Txn", pb.TxnRequest(success=[read], failure=[unknown]), pb.TxnResponse)
        assert isinstance(good, pb.TxnResponse)
        for request in (pb.TxnRequest(success=[unknown]), pb.TxnRequest(compare=[never], failure=[unknown])):
            assert await servers.ask("KV/Txn", request, pb.TxnResponse) == (5, "etcdserver: requested lease not found")


async def test_how_grpc_asks_for_health(real_etcd: str, tmp_path: Path) -> None:
    """grpc.health.v1: these messages of ours have the same fields on the wire."""
    named, status = pb.RangeRequest(key=b"other"), pb.LeaseRevokeRequest
    async with serving(tmp_path / "ours") as (address, _):
        for each in (real_etcd, address):
            client = await Client.connect(each)
            try:
                check = "/grpc.health.v1.Health/Check"
                assert (await client.ask(check, pb.RangeRequest(), status)).ID == 1
                with pytest.raises(EOFError) as refused:
                    await client.ask(check, named, status)
                assert refused.value.args == (5, "unknown service")
                for request, expected in ((pb.RangeRequest(), 1), (named, 3)):
                    watch = await client.open("/grpc.health.v1.Health/Watch")
                    await client.say(watch, request)
                    assert expected == (await client.hear(watch, status)).ID
            finally:
                await client.aclose()


async def test_alarms(real_etcd: str, tmp_path: Path) -> None:
    """Those that a client raises: member 1 stands for the server's own, 0 and 7 for others."""
    put = pb.PutRequest(key=b"a", value=b"b")
    async with both(tmp_path, real_etcd) as servers:
        for kind in (pb.NOSPACE, pb.CORRUPT):
            for member in (0, 1, 7):
                await servers.ask(
                    "Maintenance/Alarm", Alarm(action="ACTIVATE", alarm=kind, memberID=member), pb.AlarmResponse
                )
                await servers.ask("Maintenance/Alarm", Alarm(action="GET", alarm=kind), pb.AlarmResponse)
                await servers.ask("Maintenance/Alarm", Alarm(action="GET"), pb.AlarmResponse)
            refused = await servers.ask("KV/Put", put, pb.PutResponse)
            assert isinstance(refused, tuple)
            await servers.ask("KV/Range", pb.RangeRequest(key=b"a"), pb.RangeResponse)
            await servers.ask("KV/DeleteRange", pb.DeleteRangeRequest(key=b"z"), pb.DeleteRangeResponse)
            await servers.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=5, TTL=60), pb.LeaseGrantResponse)
            for member in (9, 0, 1, 7):
                assert isinstance(await servers.ask("KV/Put", put, pb.PutResponse), tuple) or member == 9
                request = Alarm(action="DEACTIVATE", alarm=kind, memberID=member)
                await servers.ask("Maintenance/Alarm", request, pb.AlarmResponse)
                await servers.ask("Maintenance/Alarm", Alarm(action="GET"), pb.AlarmResponse)
            assert isinstance(await servers.ask("KV/Put", put, pb.PutResponse), pb.PutResponse)


async def test_calls_are_counted(tmp_path: Path) -> None:
    """Under the names that dashboards made for etcd ask for."""
    async with serving(tmp_path) as (address, _), httpx.AsyncClient(trust_env=False, timeout=60) as http:
        client = await Client.connect(address)
        await client.ask("KV/Put", pb.PutRequest(key=b"a"), pb.PutResponse)
        for _ in range(2):
            with pytest.raises(EOFError):
                await client.ask("KV/Put", pb.PutRequest(), pb.PutResponse)
            await client.ask("KV/DeleteRange", pb.DeleteRangeRequest(key=b"a"), pb.DeleteRangeResponse)
        txn = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=key)) for key in (b"a", b"b")])
        await client.ask("KV/Txn", txn, pb.TxnResponse)
        watch = await client.open("Watch/Watch")
        await client.say(watch, pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a")))
        await client.hear(watch, pb.WatchResponse)
        during = (await http.get(f"http://{address}/metrics")).text
        await client.aclose()
        while 'grpc_code="Canceled"' not in (after := (await http.get(f"http://{address}/metrics")).text):  # noqa: ASYNC110
            await trio.sleep(0.01)
    put = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    watching = 'grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"'
    for line in (
        f'grpc_server_handled_total{{grpc_code="OK",{put}}} 1',
        f'grpc_server_handled_total{{grpc_code="InvalidArgument",{put}}} 2',
        f"grpc_server_started_total{{{put}}} 3", f"grpc_server_started_total{{{watching}}} 1",
        f'grpc_server_handled_total{{grpc_code="OK",{watching}}} 0',
        "etcd_mvcc_put_total 3", "etcd_mvcc_delete_total 2", "etcd_mvcc_txn_total 1",
    ):  # fmt: skip
        assert f"\n{line}\n" in during, line
    assert f'\ngrpc_server_handled_total{{grpc_code="Canceled",{watching}}} 1\n' in after


async def test_damage_raises_the_corrupt_alarm(tmp_path: Path) -> None:
    """What was rotten is not given out, clients may read the rest, and somebody has to look before they write again."""
    list_alarms = Alarm(action="GET")
    async with serving(tmp_path) as (address, store):
        client = await Client.connect(address)
        try:
            for key in (b"good", b"rotten"):
                await client.ask("KV/Put", pb.PutRequest(key=key, value=key * 100), pb.PutResponse)
            segment = tmp_path / "segment-00000001"
            data = segment.read_bytes()
            at = data.rindex(b"rotten" * 100) + 300
            with segment.open("r+b") as file:
                file.seek(at)
                file.write(b"X")
            with pytest.raises(EOFError) as refused:
                await client.ask("KV/Range", pb.RangeRequest(key=b"rotten"), pb.RangeResponse)
            assert refused.value.args[0] == 15  # DATA_LOSS
            found = await client.ask("KV/Range", pb.RangeRequest(key=b"good"), pb.RangeResponse)
            assert found.kvs[0].value == b"good" * 100
            raised = (await client.ask("Maintenance/Alarm", list_alarms, pb.AlarmResponse)).alarms
            assert [alarm.alarm for alarm in raised] == [pb.CORRUPT]
            with pytest.raises(EOFError, match="corrupt cluster"):
                await client.ask("KV/Put", pb.PutRequest(key=b"good"), pb.PutResponse)
            assert store.status().state == "corrupt"
            watch = await client.open("Watch/Watch")
            create = pb.WatchCreateRequest(key=b"rotten", start_revision=1)
            await client.say(watch, pb.WatchRequest(create_request=create))
            assert (await client.hear(watch, pb.WatchResponse)).created
            ended = await client.hear(watch, pb.WatchResponse)
            assert (ended.canceled, ended.cancel_reason) == (True, "etcdserver: corrupt cluster")
            disarm = Alarm(action="DEACTIVATE", alarm="CORRUPT", memberID=raised[0].memberID)
            await client.ask("Maintenance/Alarm", disarm, pb.AlarmResponse)
            await client.ask("KV/Put", pb.PutRequest(key=b"good"), pb.PutResponse)
            with pytest.raises(EOFError):
                await client.ask("Maintenance/HashKV", pb.HashKVRequest(), pb.HashKVResponse)
            raised = (await client.ask("Maintenance/Alarm", list_alarms, pb.AlarmResponse)).alarms
            assert [alarm.alarm for alarm in raised] == [pb.CORRUPT]
        finally:
            await client.aclose()
