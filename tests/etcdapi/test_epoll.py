"""The loop: who says nothing, reads nothing or breaks off is hung up on, and no one else is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from appliance.host.epoll import Loop
from appliance.host.sockets import Address, listen_tcp


class Lines:
    """Answers each line with itself, or, to ``more``, with ten million bytes."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.closing = False
        self.heard = b""
        self.out = b""
        self.over = trio.Event()

    @property
    def established(self) -> bool:
        return b"\n" in self.heard

    @property
    def patient(self) -> bool:
        return not self.out

    def waits_on(self) -> bool:
        return False

    def settled(self) -> Lines:
        return self

    def receive(self, data: bytes) -> None:
        self.heard += data
        self.out += b"x" * 10_000_000 if data == b"more\n" else data
        self.closing = data == b"bye\n"

    def take(self) -> bytes:
        data, self.out = self.out, b""
        return data

    def resume(self) -> None:
        pass

    def lost(self) -> None:
        self.over.set()


@asynccontextmanager
async def looping(**patience: float) -> AsyncIterator[tuple[list[Lines], int]]:
    machines: list[Lines] = []

    def begin(wake: Callable[[], None]) -> Lines:
        machines.append(Lines(wake))
        return machines[-1]

    loop = Loop(**patience)
    listener = listen_tcp(Address("127.0.0.1", 0))
    loop.listen(listener, begin)
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        yield machines, listener.port
        nursery.cancel_scope.cancel()
    assert all(machine.over.is_set() for machine in machines)
    listener.close()


async def talk(stream: trio.SocketStream, text: bytes) -> bytes:
    await stream.send_all(text)
    with trio.fail_after(60):
        return await stream.receive_some(65536)


async def test_echo_wake_and_goodbye() -> None:
    async with looping() as (machines, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        assert await talk(stream, b"hello\n") == b"hello\n"
        machines[0].out = b"by the way"
        machines[0].wake()
        with trio.fail_after(60):
            assert await stream.receive_some(100) == b"by the way"
        assert await talk(stream, b"bye\n") == b"bye\n"
        with trio.fail_after(60):
            assert await stream.receive_some(100) == b""
            await machines[0].over.wait()
        await stream.aclose()


async def test_who_says_nothing_whole_is_hung_up_on() -> None:
    async with looping(young_seconds=0.2) as (_, port):
        good = await trio.open_tcp_stream("127.0.0.1", port)
        assert await talk(good, b"hello\n") == b"hello\n"
        bad = await trio.open_tcp_stream("127.0.0.1", port)
        assert await talk(bad, b"hel") == b"hel"
        with trio.fail_after(60):
            assert await bad.receive_some(100) == b""
        assert await talk(good, b"again\n") == b"again\n"
        await bad.aclose()
        await good.aclose()


async def test_who_reads_nothing_is_hung_up_on() -> None:
    async with looping(stalled_seconds=0.5) as (machines, port):
        bad = await trio.open_tcp_stream("127.0.0.1", port)
        await bad.send_all(b"more\n")
        good = await trio.open_tcp_stream("127.0.0.1", port)
        assert await talk(good, b"hello\n") == b"hello\n"
        with trio.fail_after(60):
            await machines[0].over.wait()
        assert await talk(good, b"again\n") == b"again\n"
        await bad.aclose()
        await good.aclose()
