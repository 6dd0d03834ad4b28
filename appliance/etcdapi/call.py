"""One call on one stream, as a method sees it. Pure; the connection does the framing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.etcdapi.grpc import Code, Consumer, Head

if TYPE_CHECKING:
    from appliance.etcdapi.http2 import Connection


class Call:
    """Answer by ``reply`` or ``refuse`` once; a streaming method by ``send`` any number of times, then ``end``.

    Answers to a call that is over are dropped without a word: the client has left.
    """

    __slots__ = ("answered", "buffer", "connection", "consumer", "half_closed", "head", "started", "stream")

    def __init__(self, connection: Connection, stream: int, head: Head) -> None:
        self.connection = connection
        self.stream = stream
        self.head = head
        self.buffer: bytearray | None = None
        self.consumer: Consumer | None = None
        self.half_closed = False
        self.answered = False  # a unary method has its message: no other may follow
        self.started = False  # response headers were sent

    @property
    def over(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self.stream not in self.connection.calls

    @property
    def backlog(self) -> int:
        """Bytes sent on this call's connection that have not left it yet."""
        return self.connection.pending

    def reply(self, message: bytes) -> None:
        """The one message of a unary method, and the end."""
        self.connection.reply(self, message)

    def refuse(self, code: Code, text: str) -> None:
        """End with a status that is not OK."""
        self.connection.end(self, code, text)

    def send(self, message: bytes) -> None:
        """One message of a stream."""
        self.connection.send(self, message)

    def end(self) -> None:
        """End of a stream, well."""
        self.connection.end(self, Code.OK, "")
