"""The JSON gateway beside a real etcd's: the same requests, the same answers, to the byte."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
import trio

from appliance.etcdapi import ApiOptions
from tests.etcdapi.serving import serving
from tests.migration.etcd import real_etcd

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd")]

A = '{"key":"YQ=="}'
PUT_A = '{"request_put":{"key":"YQ=="}}'
POSTS = [
    ("kv/range", body) for body in (
        '{"key":"YQ==","nope":1}', '{"key":"YQ==","sort_order":1,"sort_target":"MOD"}',
        '{"key":"YQ==","sort_order":"1"}', '{"key":"YQ==","sort_order":"UP"}', '{"key":"YQ==","sort_order":true}',
        '{"key":"YQ==","limit":"x"}', '{"key":"YQ==","limit":1.5}', '{"key":"YQ==","limit":"1"}',
        '{"key":"YQ==","limit":null}', '{"key":"YQ==","limit":true}', '{"key":"YQ==","limit":[]}',
        '{"key":"YQ==","limit":9223372036854775808}', '{"key":"YQ==","limit":1e3}', '{"key":"YQ==","limit":"-1"}',
        '{"key":"!!"}', '{"key":"YQ"}', '{"key":"YWJj!A=="}', '{"key":1}', '{"key":null}',
        '{"key":"YQ==","keys_only":"true"}', '{"key":"YQ==","keysOnly":true}', '{"key":"YQ==","keys_only":1}',
        "[]", '"x"', "1", "null", "true", "{", "", "   ", "nonsense", "{nonsense", '{"key"', '{"key":"YQ==",}',
        '{"key":"YQ==" "limit":1}', '{"key":"YQ=="} trailing', '{"key":"YQ==","key":"Yg=="}',
        '{"key":"YQ==","revision":"999"}', '{"KEY":"YQ=="}',
    )
] + [
    ("kv/put", '{"key":"YQ==","lease":"99"}'), ("kv/put", '{"key":"","value":"YQ=="}'),
    ("lease/revoke", '{"ID":"99"}'), ("lease/grant", '{"ID":"7","TTL":"100"}'),
    ("lease/grant", '{"ID":"7","TTL":"100"}'),
    ("lease/grant", '{"id":"8","ttl":100}'), ("lease/keepalive", '{"ID":"7"}'), ("lease/keepalive", '{"ID":"77"}'),
    ("lease/keepalive", '{"ID":"7"}{"ID":"77"} {"ID":7}'), ("lease/timetolive", '{"ID":"77"}'),
    ("kv/lease/timetolive", '{"ID":"77"}'), ("kv/lease/revoke", '{"ID":"77"}'), ("auth/enable", "{}"),
    ("auth/disable", "{}"), ("auth/authenticate", '{"name":"x","password":"y"}'), ("auth/user/get", '{"name":"x"}'),
    ("auth/user/add", '{"name":""}'), ("auth/role/get", '{"role":"x"}'), ("auth/user/delete", '{"name":"x"}'),
    ("auth/role/revoke", '{"role":"x","key":"YQ=="}'),
    ("auth/role/add", '{"name":"r"}'), ("auth/role/add", '{"name":"r"}'),
    ("auth/user/grant", '{"user":"x","role":"r"}'),
    ("auth/role/grant", '{"name":"r","perm":{"permType":"READWRITE","key":"YQ=="}}'), ("auth/role/get", '{"role":"r"}'),
    ("auth/role/list", "{}"), ("auth/user/list", "{}"),
    ("cluster/member/remove", '{"ID":"5"}'), ("cluster/member/promote", '{"ID":"5"}'),
    ("cluster/member/update", '{"ID":"5","peerURLs":["http://127.0.0.1:1"]}'),
    ("maintenance/transfer-leadership", '{"targetID":"5"}'),
    ("kv/txn", '{"success":[{"requestPut":{"key":"YQ==","value":"Yg=="}},{"request_range":{"key":"YQ=="}}]}'),
    ("kv/txn", '{"compare":[{"key":"YQ==","target":"VALUE","result":"EQUAL","value":"Yg=="}],'
               '"success":[{"request_delete_range":{"key":"YQ=="}}]}'),
    ("kv/txn", f'{{"success":[{PUT_A},{PUT_A}]}}'), ("kv/txn", '{"success":[{}]}'), ("kv/txn", '{"success":{}}'),
    ("kv/txn", '{"compare":[{"key":"YQ==","target":"NOPE"}]}'), ("kv/txn", '{"success":[7]}'),
    ("kv/compaction", '{"revision":"999"}'), ("kv/compaction", '{"revision":"2"}'),
    ("kv/compaction", '{"revision":"2"}'),
    ("kv/range", '{"key":"YQ==","revision":"1"}'), ("election/leader", '{"name":"bA=="}'),
    ("election/proclaim", '{"leader":{"name":"bA==","key":"a2V5","rev":"5","lease":"7"},"value":"dg=="}'),
    ("watch", "nope"), ("lease/keepalive", "nope"), ("lease/keepalive", '{"ID":"7"} nope'),
    ("nothing", "{}"), ("", "{}"), ("maintenance/nothing", "{}"),
]  # fmt: skip
PAGE, OTHER = "https://page.example:443", "https://other.example"
OTHERS: list[tuple[str, str, Mapping[str, str], str]] = [
    ("POST", "/v3", {}, "{}"), ("POST", "//v3//kv/range", {}, A),
    ("POST", "/v3/kv/range", {"Grpc-Metadata-Token": "nope"}, A), ("POST", "/v3beta/kv/range", {}, A),
    ("GET", "/v3/kv/range", {}, ""), ("PUT", "/v3/kv/range", {}, A), ("DELETE", "/v3/kv/range", {}, ""),
    ("HEAD", "/v3/kv/range", {}, ""), ("POST", "/v3/kv/range?x=1", {}, A),
    ("POST", "/v3/kv/range", {"Content-Type": "text/plain"}, A), ("POST", "/version", {}, ""),
    ("POST", "/health", {}, ""), ("GET", "/health", {}, ""), ("GET", "/health?exclude=NOSPACE", {}, ""),
    ("HEAD", "/version", {}, ""), ("GET", "/nope", {}, ""), ("GET", "/", {}, ""),
    ("GET", "/v2/keys", {}, ""), ("OPTIONS", "/v3/kv/range", {}, ""), ("OPTIONS", "/v3/kv/range", {"Origin": PAGE}, ""),
    ("OPTIONS", "/v3/kv/range", {"Origin": OTHER}, ""), ("POST", "/v3/kv/range", {"Origin": PAGE}, A),
    ("POST", "/v3/kv/range", {"Origin": OTHER}, A), ("GET", "/nope", {"Origin": PAGE}, ""),
]  # fmt: skip
HEADERS = ("content-type", "allow", "location", "x-content-type-options", "grpc-metadata-content-type")


async def said(client: httpx.AsyncClient, method: str, path: str, headers: Mapping[str, str], body: str) -> object:
    answer = await client.request(method, path, headers=dict(headers), content=body)
    text = re.sub(r'"(cluster_id|member_id|raft_term)":"\d+",?', "", answer.text)
    text = re.sub(r'"\d{15,}"', "ID", text).replace(",}", "}")
    kept = {name: value for name, value in answer.headers.items() if name in HEADERS or name.startswith("access-")}
    return answer.status_code, text, kept


async def test_as_a_real_etcd(tmp_path: Path) -> None:
    options = ApiOptions(cors=frozenset([PAGE]))
    requests = [("POST", f"/v3/{path}", {}, body) for path, body in POSTS] + OTHERS
    different = []
    async with (
        serving(tmp_path / "ours", options=options) as (address, _),
        real_etcd(tmp_path / "etcd", 0, f"--cors={PAGE}") as real,
        httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=60) as ours,
        httpx.AsyncClient(base_url=f"http://{real}", trust_env=False, timeout=60) as theirs,
    ):
        for request in requests:
            expected, found = await said(theirs, *request), await said(ours, *request)
            if found != expected:
                different.append(f"{request}\netcd: {expected}\nours: {found}")
        oldest = await said(ours, "POST", "/v3alpha/kv/range", {}, A)  # 3.4 has left that away, its clients use it
        assert oldest == await said(ours, "POST", "/v3/kv/range", {}, A)
    assert not different, "\n".join(different)


async def asked(address: str, path: str, body: str) -> trio.SocketStream:
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    await stream.send_all(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    return stream


async def test_calls_at_once_as_many_as_streams(tmp_path: Path) -> None:
    watch, range_ = ("/v3/watch", '{"create_request":{"key":"YQ=="}}'), ("/v3/kv/range", A)
    async with serving(tmp_path, options=ApiOptions(streams=2)) as (address, _):
        with trio.fail_after(60):
            streams = [await asked(address, *watch) for _ in range(2)]
            for stream in streams:
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            left, waiting = await asked(address, *range_), await asked(address, *range_)
            with trio.move_on_after(0.3):
                pytest.fail(f"answered beside two watches: {await waiting.receive_some()!r}")
            await left.aclose()
            await streams[0].aclose()
            assert (await waiting.receive_some()).startswith(b"HTTP/1.1 200")
            for stream in (streams[1], waiting):
                await stream.aclose()
