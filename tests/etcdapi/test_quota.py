"""The NOSPACE alarm, as etcd's clients know it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.etcdapi.pb import rpc_pb2
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving

ALARMS = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.GET)
DISARM = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.DEACTIVATE, alarm=rpc_pb2.NOSPACE)


async def alarms(client: Client, request: rpc_pb2.AlarmRequest) -> list[int]:
    answer = await client.ask("Maintenance/Alarm", request, rpc_pb2.AlarmResponse)
    return [each.alarm for each in answer.alarms]


async def put(client: Client, key: bytes) -> None:
    await client.ask("KV/Put", rpc_pb2.PutRequest(key=key, value=bytes(16_000)), rpc_pb2.PutResponse)


async def fill(client: Client) -> None:
    for number in range(1000):
        await put(client, b"k%d" % (number % 5))


async def test_alarm_is_raised_listed_and_disarmed_when_there_is_room(tmp_path: Path) -> None:
    async with serving(tmp_path, quota=8 << 20) as (address, store):
        client = await Client.connect(address)
        try:
            assert await alarms(client, ALARMS) == []
            with pytest.raises(EOFError, match="mvcc: database space exceeded"):
                await fill(client)
            assert await alarms(client, ALARMS) == [rpc_pb2.NOSPACE]
            grant = rpc_pb2.LeaseGrantRequest(TTL=60)
            with pytest.raises(EOFError, match="mvcc: database space exceeded"):
                await client.ask("Lease/LeaseGrant", grant, rpc_pb2.LeaseGrantResponse)
            deletion = rpc_pb2.DeleteRangeRequest(key=b"k0")
            assert (await client.ask("KV/DeleteRange", deletion, rpc_pb2.DeleteRangeResponse)).deleted == 1
            compaction = rpc_pb2.CompactionRequest(revision=store.revision, physical=True)
            await client.ask("KV/Compact", compaction, rpc_pb2.CompactionResponse)
            await client.ask("Maintenance/Defragment", rpc_pb2.DefragmentRequest(), rpc_pb2.DefragmentResponse)
            assert await alarms(client, DISARM) == []  # that is of member 0, which has none
            raised = await client.ask("Maintenance/Alarm", ALARMS, rpc_pb2.AlarmResponse)
            ours = rpc_pb2.AlarmRequest(
                action=rpc_pb2.AlarmRequest.DEACTIVATE, alarm=rpc_pb2.NOSPACE, memberID=raised.alarms[0].memberID
            )
            assert await alarms(client, ours) == [rpc_pb2.NOSPACE]
            assert await alarms(client, ALARMS) == []
            await put(client, b"k")
        finally:
            await client.aclose()
