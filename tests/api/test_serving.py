"""The server alone, with handlers made for the case: stopping, waiting, failing half way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import pytest
import trio
import trio.testing

from api.conftest import GENEROUS, all_of, read_one
from appliance.api.limits import Limits
from appliance.api.router import Answer, Caller, Reply, Request, Route, Router, Stream
from appliance.api.server import HttpServer
from appliance.errors import UnavailableError
from appliance.host import sockets


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
