"""One call on one stream of HTTP/2. Pure; the connection does the framing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from appliance.etcdapi.grpc import Code, Consumer, Head

if TYPE_CHECKING:
    from appliance.etcdapi.http2 import Connection


class StreamCall:
    """A ``Call``; the connection keeps its state here too."""

    __slots__ = ("buffer", "connection", "consumer", "half_closed", "head", "started", "stream")

    def __init__(self, connection: Connection, stream: int, head: Head) -> None:
        self.connection = connection
        self.stream = stream
        self.head = head
        self.buffer: bytearray | None = None
        self.consumer: Consumer | None = None
        self.half_closed = False
        self.started = False  # response headers were sent

    @property
    def over(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self.stream not in self.connection.calls

    @property
    def backlog(self) -> int:
        """Bytes sent on this call's connection that have not left it yet."""
        return self.connection.outbox.size

    @property
    def token(self) -> bytes:
        """Who calls."""
        return self.head.token

    @property
    def common_name(self) -> str:
        """Whose certificate the client showed."""
        return self.connection.common_name

    def hold(self, consumer: Consumer) -> None:
        """A unary method that answers later is told by ``reset`` when nobody waits any more."""
        self.consumer = consumer

    def reply(self, message: bytes) -> None:
        """The one message of a unary method, and the end."""
        self.connection.reply(self, message)

    def refuse(self, code: Code, text: str) -> None:
        """End with a status that is not OK."""
        self.connection.end(self, code, text)

    def start(self) -> None:
        """Response headers before any message."""
        self.connection.start(self)

    def send(self, message: bytes) -> None:
        """One message of a stream."""
        self.connection.send(self, message)

    def send_all(self, messages: Sequence[bytes]) -> None:
        """Several messages of a stream."""
        self.connection.send_all(self, messages)

    def end(self) -> None:
        """End of a stream, well."""
        self.connection.end(self, Code.OK, "")
