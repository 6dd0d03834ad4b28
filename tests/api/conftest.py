from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import trio

from api.sim import Sim
from appliance.api import Api
from appliance.api.limits import Limits
from appliance.host import sockets

GENEROUS = 60


@dataclass
class Running:
    """Both doors open, in this process."""

    sim: Sim
    api: Api
    stopping: trio.Event
    down: trio.Event
    status_port: int
    control_path: str

    def status(self, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.status_port}", timeout=GENEROUS, **more)

    def control(self, **more: Any) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=self.control_path)
        return httpx.AsyncClient(base_url="http://appliance", timeout=GENEROUS, transport=transport, **more)

    @asynccontextmanager
    async def lines(
        self, target: str, headers: dict[str, str] | None = None, unix: bool = False
    ) -> AsyncIterator[Lines]:
        with trio.fail_after(GENEROUS):
            opened = (
                await trio.open_unix_socket(self.control_path)
                if unix
                else await trio.open_tcp_stream("127.0.0.1", self.status_port)
            )
            async with opened as stream:
                lines = Lines(stream)
                await lines.ask(target, headers or {})
                yield lines

    async def raw(self, data: bytes) -> bytes:
        """Send these bytes on a new connection, and read until the server closes."""
        with trio.fail_after(GENEROUS):
            async with await trio.open_tcp_stream("127.0.0.1", self.status_port) as stream:
                await stream.send_all(data)
                await stream.send_eof()
                return await all_of(stream)


class Lines:
    """A streamed answer, line by line, over h11: httpx leaves its generators to the collector when it stops early."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)
        self.status = 0
        self.ended = False
        self._rest = b""

    async def ask(self, target: str, headers: dict[str, str]) -> None:
        lines = [("Host", "localhost"), *headers.items()]
        await self.stream.send_all(self.http.send(h11.Request(method="GET", target=target, headers=lines)))
        await self.stream.send_all(self.http.send(h11.EndOfMessage()))

    async def __anext__(self) -> str:
        """The next line; an empty one at the end too (see ``ended``)."""
        while b"\n" not in self._rest:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                self.status = event.status_code
            elif isinstance(event, h11.Data):
                self._rest += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.ended = True
                return ""
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


async def all_of(stream: trio.SocketStream) -> bytes:
    answer = b""
    try:
        async for piece in stream:
            answer += piece
    except trio.BrokenResourceError:
        pass
    return answer


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


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def serving(sim: Sim | None = None, limits: Limits | None = None) -> AsyncIterator[Running]:
        sim = sim or Sim(tmp_path)
        api = Api(sim.subjects, limits=limits)
        stopping, down = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                async with trio.open_nursery() as both:
                    await both.start(partial(api.control, stopping=stopping))
                    await both.start(partial(api.status, stopping=stopping))
                    task_status.started()
                down.set()

            await nursery.start(run)
            port = int(api.status_address.rpartition(":")[2] or 0)
            yield Running(sim, api, stopping, down, port, sim.subjects.control_socket)
            stopping.set()
            with trio.move_on_after(GENEROUS) as scope:
                await down.wait()
            assert not scope.cancelled_caught
            assert not sockets.unix_answers(sim.subjects.control_socket)

    return serving
