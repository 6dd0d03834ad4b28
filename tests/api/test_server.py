"""The server among peers that are slow, silent, wrong, many, or gone."""

from __future__ import annotations

import re
import socket
import time
from email.utils import parsedate_to_datetime

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.conftest import GENEROUS, Running, Serve, all_of, read_one
from appliance.api.limits import Limits
from appliance.host import sockets

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def connect(running: Running) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", running.status_port)


async def test_a_connection_serves_many_requests_also_sent_at_once(serve: Serve) -> None:
    async with serve() as running:
        async with await connect(running) as stream:
            for _ in range(3):
                await stream.send_all(GET)
                assert (await read_one(stream)).endswith(b"alive\n")
        answer = await running.raw(GET * 20)
        assert answer.count(b"HTTP/1.1 200 OK") == 20


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"HEAD /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v1/units/%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /v1/units/..%2f..%2fetc HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"DELETE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"BREW /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n",
            400,
        ),
    ],
)
async def test_each_request_gets_its_status(serve: Serve, request_bytes: bytes, status: int) -> None:
    async with serve() as running:
        answer = await running.raw(request_bytes)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        said = re.search(rb"\r\nDate: ([^\r]*)\r\n", answer)
        assert said is not None
        assert abs(parsedate_to_datetime(said[1].decode()).timestamp() - time.time()) < GENEROUS
        if request_bytes.startswith(b"HEAD"):
            assert answer.endswith(b"\r\n\r\n")
        if status == 405:
            assert b"\r\nAllow: GET, HEAD\r\n" in answer
        assert (await running.raw(GET)).endswith(b"alive\n")


async def test_empty_lines_between_requests_are_no_request(serve: Serve) -> None:
    async with serve() as running, await connect(running) as stream:
        for _ in range(3):
            await stream.send_all(GET)
            assert (await read_one(stream)).endswith(b"alive\n")
            await stream.send_all(b"\r\n")


async def test_what_two_readers_would_count_otherwise_ends_the_connection(serve: Serve) -> None:
    async with serve() as running:
        head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await running.raw(head + b"0\r\n\r\n" + GET)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert b"alive" not in answer


async def test_upgrade_is_not_taken_up(serve: Serve) -> None:
    async with serve() as running:
        asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        assert (await running.raw(asked + GET)).count(b"200 OK") == 2


async def test_a_body_is_asked_for_only_when_it_will_be_read(serve: Serve) -> None:
    async with serve() as running:
        head = b"HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 16\r\n\r\n"
        async with await trio.open_unix_socket(running.control_path) as stream:
            await stream.send_all(b"POST /v1/units/reload " + head)
            with trio.fail_after(GENEROUS):
                assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 100 ")
            await stream.send_all(b'{"dry_run":true}')
            assert (await read_one(stream)).startswith(b"HTTP/1.1 200 ")
        async with await connect(running) as stream:  # the status endpoint does not do this
            await stream.send_all(b"POST /v1/units/reload " + head)
            assert (await read_one(stream)).startswith(b"HTTP/1.1 403 ")


async def test_too_large_a_body_is_refused_also_without_a_length(serve: Serve) -> None:
    async with (
        serve(limits=Limits(body_bytes_max=100_000)) as running,
        await trio.open_unix_socket(running.control_path) as stream,
    ):
        await stream.send_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        for _ in range(4):
            await stream.send_all(chunk)
        assert (await read_one(stream)).startswith(b"HTTP/1.1 413 ")


async def test_slow_heads_and_bodies_end(serve: Serve) -> None:
    limits = Limits(head_seconds=0.3, body_seconds=0.3, idle_seconds=0.3)
    async with serve(limits=limits) as running:
        async with await connect(running) as half, await connect(running) as silent, await connect(running) as used:
            await half.send_all(b"GET /healthz HT")
            await used.send_all(GET)
            await read_one(used)
            with trio.fail_after(GENEROUS):
                assert (await all_of(half)).startswith(b"HTTP/1.1 408 ")
                assert await all_of(silent) == b""
                assert await all_of(used) == b""
        async with await trio.open_unix_socket(running.control_path) as stream:
            await stream.send_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{")
            with trio.fail_after(GENEROUS):
                assert (await all_of(stream)).startswith(b"HTTP/1.1 408 ")


async def test_drop_by_drop_does_not_buy_time(serve: Serve) -> None:
    async with serve(limits=Limits(head_seconds=0.5)) as running, await connect(running) as stream:
        with trio.fail_after(GENEROUS):
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    while True:
                        try:
                            await stream.send_all(b"G")
                        except trio.BrokenResourceError:
                            return
                        await trio.sleep(0.05)

                nursery.start_soon(drip)
                answer = await all_of(stream)
                nursery.cancel_scope.cancel()
        assert answer == b"" or b" 408 " in answer


async def test_when_all_slots_are_taken_the_idle_make_room(serve: Serve) -> None:
    async with serve(limits=Limits(connections_max=3)) as running:
        idle = await connect(running)
        await idle.send_all(GET)
        await read_one(idle)
        busy = [await connect(running) for _ in range(2)]
        for stream in busy:
            await stream.send_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with trio.fail_after(GENEROUS):
                assert await stream.receive_some(1000)
        assert (await running.raw(GET)).endswith(b"alive\n")  # in the idle one's place
        with trio.fail_after(GENEROUS):
            assert await all_of(idle) == b""
        third = await connect(running)
        await third.send_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(GENEROUS):
            assert await third.receive_some(1000)
        refused = await connect(running)
        with trio.fail_after(GENEROUS):
            assert (await all_of(refused)).startswith(b"HTTP/1.1 503 ")
        await third.aclose()
        for stream in (idle, refused, *busy):
            await stream.aclose()


async def test_who_never_reads_holds_nobody_and_is_dropped(serve: Serve) -> None:
    async with serve(limits=Limits(send_seconds=0.5)) as running:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", running.status_port))
        raw.sendall(b"GET /v1/units/web/logs?lines=1000000&follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        units = running.sim.units
        with trio.fail_after(GENEROUS):
            while not units.following:
                await trio.lowlevel.checkpoint()
            for _ in range(200):  # 20 MB: more than the kernel keeps for it
                units.write("web", "x" * 100_000)
            assert (await running.raw(GET)).endswith(b"alive\n")
            while units.following:  # noqa: ASYNC110 - the end of a generator sets no event
                await trio.sleep(0.01)
        raw.close()


# Anything at all may arrive

WORDS = st.sampled_from(
    [
        b"GET ", b"POST ", b"HEAD ", b"/", b"/v1/units/", b"/v1/store/put", b"?", b"%", b"%00", b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n", b"\r\n\r\n", b"\n", b"Host: localhost", b"Host:", b"Content-Length: 3", b"Content-Length: -1", b"\0",
        b"Transfer-Encoding: chunked", b"5\r\nabcde\r\n", b"0\r\n\r\n", b"ffffffffffff\r\n", b"Expect: 100-continue",
        b"Connection: close", b"Upgrade: h2c", b"{}", b"Last-Event-ID: \xff", b"/v1/events", b"Authorization: Basic x",
        b"/v1/units/web/logs?follow=1&lines=", b"/metrics", b": ", b"Accept: text/html",
    ]
)  # fmt: skip
JUNK = st.one_of(st.binary(max_size=300), st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=30).map(b"".join))


async def test_no_bytes_bring_it_down(serve: Serve) -> None:
    async with serve() as running:
        junk: list[bytes] = []

        @given(st.lists(JUNK, min_size=20, max_size=20))
        @settings(max_examples=20, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        def collect(some: list[bytes]) -> None:
            junk.extend(some)

        collect()
        for doors in (False, True):
            for data in junk:
                opened = (
                    await trio.open_unix_socket(running.control_path)
                    if doors
                    else await trio.open_tcp_stream("127.0.0.1", running.status_port)
                )
                with trio.fail_after(GENEROUS):
                    async with opened as stream:
                        try:
                            await stream.send_all(data)
                            await stream.send_eof()
                        except trio.BrokenResourceError:
                            continue
                        answer = await all_of(stream)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 "), (data, answer)
        assert (await running.raw(GET)).endswith(b"alive\n")
        assert sockets.unix_answers(running.control_path)
