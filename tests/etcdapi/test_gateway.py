"""The JSON gateway and the side doors over a real socket; slow, broken and idle clients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving


class Http:
    """Raw HTTP/1.1, one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def until(self, mark: bytes) -> bytes:
        with trio.fail_after(60):
            while mark not in self.buffer:
                data = await self.stream.receive_some(65536)
                if not data:
                    raise EOFError(self.buffer)
                self.buffer += data
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    async def ask(self, method: str, path: str, body: str = "") -> tuple[int, str]:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.stream.send_all((head + body).encode())
        answer = await self.until(b"\r\n\r\n")
        status = int(answer.split()[1])
        headers = {k.lower(): v for k, _, v in (line.partition(b": ") for line in answer.split(b"\r\n")[1:])}
        if headers.get(b"transfer-encoding") == b"chunked" and b"trailer" in headers:  # etcd's errors
            text = b""
            while size := int(await self.until(b"\r\n"), 16):
                text += (await self.until(b"\r\n"))[:size]
            return status, text.decode()
        if b"content-length" not in headers:
            return status, ""
        size = int(headers[b"content-length"])
        with trio.fail_after(60):
            while len(self.buffer) < size:
                self.buffer += await self.stream.receive_some(65536)
        text, self.buffer = self.buffer[:size], self.buffer[size:]
        return status, text.decode()


async def connect(address: str) -> Http:
    host, _, port = address.rpartition(":")
    return Http(await trio.open_tcp_stream(host, int(port)))


async def test_gateway_and_side_doors(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, _):
        http = await connect(address)
        status, text = await http.ask("POST", "/v3/kv/put", '{"key":"Zm9v","value":"YmFy"}')
        header = json.loads(text)["header"]
        assert (status, header["revision"], set(header)) == (
            200,
            "2",
            {"cluster_id", "member_id", "revision", "raft_term"},
        )
        _, text = await http.ask("POST", "/v3/kv/range", '{"key":"Zm9v"}')
        assert json.loads(text)["kvs"] == [
            {"key": "Zm9v", "value": "YmFy", "create_revision": "2", "mod_revision": "2", "version": "1"}
        ]
        status, text = await http.ask("POST", "/v3/kv/range", "{}")
        expected = {"error": "etcdserver: key is not provided", "message": "etcdserver: key is not provided", "code": 3}
        assert (status, json.loads(text)) == (400, expected)
        assert (await http.ask("POST", "/v3/kv/range", "{nonsense"))[0] == 400
        assert (await http.ask("GET", "/v3/kv/range"))[0] == 405
        assert (await http.ask("POST", "/v3/nope", "{}"))[0] == 404
        assert json.loads((await http.ask("POST", "/v3beta/lease/grant", '{"TTL":"60"}'))[1])["TTL"] == "60"
        assert set(json.loads((await http.ask("GET", "/version"))[1])) == {"etcdserver", "etcdcluster"}
        assert (await http.ask("GET", "/health"))[1] == '{"health":"true"}'
        metrics = (await http.ask("GET", "/metrics"))[1]
        for line in (
            "etcd_debugging_mvcc_keys_total 1",
            "etcd_mvcc_put_total 1",
            'etcd_cluster_version{cluster_version="3.5"} 1',
        ):
            assert f"\n{line}\n" in metrics
        assert (await http.ask("GET", "/nope"))[0] == 404
        await http.stream.send_all(b"HEAD /version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 405 " in await http.until(b"\r\n\r\n")
        assert (await http.ask("GET", "/nope"))[0] == 404  # the answer had no body, and hurt nobody
        await http.stream.aclose()


async def test_watch_as_lines(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, store):
        http = await connect(address)
        assert await http.ask("POST", "/v3/watch", '{"create_request":{"key":"Zm9v"}}') == (200, "")
        line = json.loads((await http.until(b"}\n")).split(b"\r\n")[-1] + b"}")
        assert line["result"]["created"] is True
        await store.put(b"foo", b"bar")
        line = json.loads((await http.until(b"}\n")).split(b"\r\n")[-1] + b"}")
        assert line["result"]["events"][0]["kv"]["value"] == "YmFy"
        await http.stream.aclose()


async def test_bad_bytes_end_only_their_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, _):
        for garbage in (b"\x00\x01\x02\r\n\r\n", b"PRI nonsense\r\n\r\nxxxxxxxxxxxxxxxxxxx", b"GET\r\n\r\n", b"P"):
            bad = await connect(address)
            await bad.stream.send_all(garbage)
            if garbage != b"P":
                with trio.fail_after(60):
                    while await bad.stream.receive_some(65536):
                        pass
            await bad.stream.aclose()
        http = await connect(address)
        await http.stream.send_all(b"GET /health HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert b" 431 " in await http.until(b"\r\n")
        good = await connect(address)
        assert (await good.ask("GET", "/health"))[0] == 200
        await http.stream.aclose()
        await good.stream.aclose()


@pytest.mark.slow
async def test_idle_connections_cost_little(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, _):
        idle = [await Client.connect(address) for _ in range(200)]
        http = await connect(address)
        assert (await http.ask("GET", "/health"))[0] == 200
        for client in idle:
            await client.aclose()
        await http.stream.aclose()


async def test_unix_socket_is_its_owners(tmp_path: Path) -> None:
    path = str(tmp_path / "etcd.sock")
    async with serving(tmp_path / "store", unix_path=path):
        assert (tmp_path / "etcd.sock").stat().st_mode & 0o777 == 0o600
        http = Http(await trio.open_unix_socket(path))
        assert (await http.ask("GET", "/health"))[0] == 200
        await http.stream.aclose()
    assert not (tmp_path / "etcd.sock").exists()
