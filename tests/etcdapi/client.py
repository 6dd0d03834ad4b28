"""A small gRPC client over a real socket, by the h2 package, for what etcdctl cannot do."""

from __future__ import annotations

from struct import pack, unpack_from
from typing import TypeVar

import h2.config
import h2.connection
import h2.events
import trio
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


class Client:
    """One connection, one task at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._h2.initiate_connection()
        self._data: dict[int, bytearray] = {}
        self._ended: dict[int, dict[bytes, bytes]] = {}
        self.token = ""  # of who asks, from the next call on

    @classmethod
    async def connect(cls, address: str) -> Client:
        host, _, port = address.rpartition(":")
        client = cls(await trio.open_tcp_stream(host, int(port)))
        await client._flush()
        return client

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _flush(self) -> None:
        await self._stream.send_all(self._h2.data_to_send())

    async def open(self, method: str) -> int:
        number = self._h2.get_next_available_stream_id()
        path = method if method.startswith("/") else f"/etcdserverpb.{method}"
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        headers += [("token", self.token)] if self.token else []
        self._h2.send_headers(number, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
        self._data[number] = bytearray()
        await self._flush()
        return number

    async def say(self, number: int, message: Message, *, last: bool = False) -> None:
        data = message.SerializeToString()
        self._h2.send_data(number, pack(">BI", 0, len(data)) + data, end_stream=last)
        await self._flush()

    async def hear(self, number: int, kind: type[M]) -> M:
        """The next message. Raises EOFError with (status, text) when the stream ended."""
        with trio.fail_after(60):
            while True:
                data = self._data[number]
                if len(data) >= 5:
                    (length,) = unpack_from(">I", data, 1)
                    if len(data) >= 5 + length:
                        message = kind.FromString(bytes(data[5 : 5 + length]))
                        del data[: 5 + length]
                        return message
                if number in self._ended:
                    headers = self._ended[number]
                    raise EOFError(int(headers[b"grpc-status"]), headers.get(b"grpc-message", b"").decode())
                await self._read()

    async def ask(self, method: str, request: Message, kind: type[M]) -> M:
        """A unary call."""
        number = await self.open(method)
        await self.say(number, request, last=True)
        return await self.hear(number, kind)

    async def _read(self) -> None:
        data = await self._stream.receive_some(65536)
        assert data, "the server hung up"
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self._data[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                headers = dict(event.headers)
                if b"grpc-status" in headers:
                    self._ended[event.stream_id] = headers
        await self._flush()
