"""The server among peers that are slow, silent, wrong, many, or gone."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Mapping

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.conftest import GENEROUS, Running, Serve, all_of
from appliance.api.limits import Limits
from appliance.api.router import Answer, Caller, Reply, Request, Route, Router, Stream
from appliance.api.server import HttpServer
from appliance.errors import UnavailableError
from appliance.host import sockets

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def connect(running: Running) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", running.status_port)


async def read_one(stream: trio.SocketStream) -> bytes:
    """One answer with a length."""
    answer = b""
    with trio.fail_after(GENEROUS):
        while b"\r\n\r\n" not in answer:
            piece = await stream.receive_some(65536)
            assert piece, answer
            answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += await stream.receive_some(65536)
    return head + b"\r\n\r\n" + body


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
    ],
)
async def test_each_request_gets_its_status(serve: Serve, request_bytes: bytes, status: int) -> None:
    async with serve() as running:
        answer = await running.raw(request_bytes)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        if request_bytes.startswith(b"HEAD"):
            assert answer.endswith(b"\r\n\r\n")
        if status == 405:
            assert b"\r\nAllow: GET, HEAD\r\n" in answer
        assert (await running.raw(GET)).endswith(b"alive\n")


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


# The server alone, with handlers made for the case


async def answer_slowly(request: Request) -> Reply:
    GATES[request.path].entered.set()
    await GATES[request.path].leave.wait()
    return Answer(b"{}")


async def part_then_fail(kind: str) -> AsyncGenerator[bytes, None]:
    yield b"first\n"
    raise UnavailableError(f"cannot go on with {kind}: the disk is gone")


class Gate:
    def __init__(self) -> None:
        self.entered, self.leave = trio.Event(), trio.Event()


GATES: dict[str, Gate] = {}


async def fall_over(request: Request) -> Reply:
    raise AttributeError("no such thing")


async def fail_lines(request: Request) -> Reply:
    return Stream(part_then_fail("lines"), "application/x-ndjson")


async def fail_bytes(request: Request) -> Reply:
    return Stream(part_then_fail("bytes"), "application/octet-stream")


async def endless(request: Request) -> Reply:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"begun\n"
        await trio.sleep_forever()

    return Stream(chunks(), "application/x-ndjson", endless=True)


async def endless_bug(request: Request) -> Reply:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"begun\n"
        raise AttributeError("no such thing")

    return Stream(chunks(), "application/x-ndjson", endless=True)


ROUTER = Router(
    [
        *(
            Route(method="GET", pattern=pattern, handler=handler, summary="x", answer="x")
            for pattern, handler in {
                "/slow": answer_slowly, "/lines": fail_lines, "/bytes": fail_bytes, "/endless": endless,
                "/bug": fall_over, "/endless-bug": endless_bug,
            }.items()
        ),
        Route(method="GET", pattern="/wait", handler=answer_slowly, summary="x", answer="x", waits=True),
        Route(method="POST", pattern="/act", handler=answer_slowly, summary="x", answer="x", waits=True, reads=False),
    ]
)  # fmt: skip


class AnyDoor:
    name = "status"

    def check(self, headers: Mapping[str, str], route: Route, caller: Caller) -> None:
        pass


async def started(nursery: trio.Nursery, limits: Limits) -> tuple[int, trio.Event, trio.Event]:
    listener = sockets.listen_tcp(sockets.parse_address("127.0.0.1:0"))
    server = HttpServer(ROUTER, AnyDoor(), lambda stream: Caller("status"), limits=limits)
    stopping, down = trio.Event(), trio.Event()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await server.serve(listener, stopping=stopping, task_status=task_status)
        down.set()

    await nursery.start(run)
    return listener.port, stopping, down


def ask(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def test_stop_finishes_what_is_under_way_and_ends_what_has_no_end(nursery: trio.Nursery) -> None:
    GATES["/slow"] = Gate()
    port, stopping, down = await started(nursery, Limits(drain_seconds=GENEROUS))
    slow, idle, stream = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
    await slow.send_all(ask("/slow"))
    await stream.send_all(ask("/endless"))
    with trio.fail_after(GENEROUS):
        await GATES["/slow"].entered.wait()
        told = b""
        while b"begun" not in told:
            told += await stream.receive_some(1000)
        stopping.set()
        assert await all_of(idle) == b""
        assert (told + await all_of(stream)).endswith(b"0\r\n\r\n")  # whole: no reader takes it for a crash
        assert not down.is_set()
        with pytest.raises(OSError):  # nobody listens any more
            await trio.open_tcp_stream("127.0.0.1", port)
        GATES["/slow"].leave.set()
        answer = await all_of(slow)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answer
        await down.wait()
    for one in (slow, idle, stream):
        await one.aclose()


async def test_stop_does_not_wait_longer_than_the_drain(nursery: trio.Nursery) -> None:
    GATES["/slow"] = Gate()
    port, stopping, down = await started(nursery, Limits(drain_seconds=0.1))
    async with await trio.open_tcp_stream("127.0.0.1", port) as slow:
        await slow.send_all(ask("/slow"))
        with trio.fail_after(GENEROUS):
            await GATES["/slow"].entered.wait()
            stopping.set()
            await down.wait()
            assert await all_of(slow) == b""


async def test_a_stream_that_fails_half_way_does_not_look_whole(nursery: trio.Nursery) -> None:
    port, stopping, _ = await started(nursery, Limits())
    for path, ending in (("/lines", b"0\r\n\r\n"), ("/bytes", b"first\n\r\n")):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(ask(path))
            await stream.send_eof()
            with trio.fail_after(GENEROUS):
                answer = await all_of(stream)
        assert answer.endswith(ending)
        assert (b"cannot go on with lines" in answer) == (path == "/lines")
    stopping.set()


async def answer_to(port: int, path: str, method: str = "GET") -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(ask(path, method))
        with trio.fail_after(GENEROUS):
            return await read_one(stream)


async def test_who_gave_up_waiting_holds_no_place(nursery: trio.Nursery) -> None:
    GATES["/wait"], GATES["/act"] = Gate(), Gate()
    port, stopping, down = await started(nursery, Limits(connections_max=4, drain_seconds=GENEROUS))
    for method, path in (("GET", "/wait"), ("POST", "/act")) * 2:  # twice as many as there is room for
        for _ in range(2):
            GATES[path].entered = trio.Event()
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(ask(path, method))
                with trio.fail_after(GENEROUS):
                    await GATES[path].entered.wait()
    with trio.fail_after(GENEROUS):
        while b"HTTP/1.1 200" not in await answer_slowly_let_go(port):  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.01)
        stopping.set()
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
        assert not down.is_set()  # what changes something goes on to its end, although nobody waits for it
        GATES["/act"].leave.set()
        await down.wait()


async def answer_slowly_let_go(port: int) -> bytes:
    GATES["/slow"] = Gate()
    GATES["/slow"].leave.set()
    return await answer_to(port, "/slow")


async def test_streams_and_waiting_readers_leave_room_for_others(nursery: trio.Nursery) -> None:
    GATES["/wait"] = Gate()
    port, stopping, down = await started(nursery, Limits(connections_max=4, lasting_max=2))
    streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
    await streams[0].send_all(ask("/endless"))
    await streams[1].send_all(ask("/wait"))
    with trio.fail_after(GENEROUS):
        assert await streams[0].receive_some(1000)
        await GATES["/wait"].entered.wait()
    for path in ("/endless", "/wait"):
        refused = await answer_to(port, path)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"2 streams and waiting readers" in refused
    assert (await answer_slowly_let_go(port)).startswith(b"HTTP/1.1 200 ")
    for stream in streams:
        await stream.aclose()
    with trio.fail_after(GENEROUS):
        while (await answer_after_head(port, "/endless")).startswith(b"HTTP/1.1 503 "):  # noqa: ASYNC110 - as above
            await trio.sleep(0.01)
        stopping.set()
        await down.wait()


async def answer_after_head(port: int, path: str) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(ask(path))
        return bytes(await stream.receive_some(1000))


async def test_a_bug_in_a_handler_costs_its_own_request_only(
    nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    port, stopping, down = await started(nursery, Limits())
    async with await trio.open_tcp_stream("127.0.0.1", port) as other:
        await other.send_all(ask("/endless"))
        told = b""
        with trio.fail_after(GENEROUS):
            while b"begun" not in told:
                told += await other.receive_some(1000)
        answer = await answer_to(port, "/bug")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"cannot GET /bug: a bug of ours: AttributeError: no such thing" in answer
        async with await trio.open_tcp_stream("127.0.0.1", port) as cut:
            await cut.send_all(ask("/endless-bug"))
            with trio.fail_after(GENEROUS):
                answer = await all_of(cut)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert not answer.endswith(b"0\r\n\r\n")  # does not look whole
        assert (await answer_slowly_let_go(port)).startswith(b"HTTP/1.1 200 ")
        stopping.set()
        with trio.fail_after(GENEROUS):
            assert (await all_of(other)).endswith(b"0\r\n\r\n")
            await down.wait()
    said = capfd.readouterr().err
    assert said.count("service api-status: AttributeError: no such thing") >= 1
    assert "fall_over" in said


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
