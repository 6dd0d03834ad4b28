"""A gRPC client by the h2 package, without a socket: the peer of a Connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import pack, unpack_from

import h2.config
import h2.connection
import h2.events
import h2.settings

from appliance.etcdapi.grpc import Methods
from appliance.etcdapi.http2 import Connection


@dataclass
class Answer:
    """What came back on one stream."""

    data: bytearray = field(default_factory=bytearray)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int((self.trailers or self.headers).get(b"grpc-status", b"-1"))

    @property
    def text(self) -> str:
        return (self.trailers or self.headers).get(b"grpc-message", b"").decode()

    def messages(self) -> list[bytes]:
        found, at = [], 0
        while at < len(self.data):
            (length,) = unpack_from(">I", self.data, at + 1)
            found.append(bytes(self.data[at + 5 : at + 5 + length]))
            at += 5 + length
        return found


def framed(message: bytes) -> bytes:
    return pack(">BI", 0, len(message)) + message


class Peer:
    """Pumps bytes both ways; ``cut`` splits what the client sends into pieces of that size."""

    def __init__(self, methods: Methods, *, cut: int = 0, reads: bool = True, settings: dict[int, int] | None = None):
        self.woken = 0
        self.connection = Connection(methods, self._wake)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings({h2.settings.SettingCodes(k): v for k, v in settings.items()})
        self.answers: dict[int, Answer] = {}
        self.cut = cut
        self.reads = reads
        self.gone: h2.events.ConnectionTerminated | None = None
        self.pongs: list[bytes] = []
        self.pump()

    def _wake(self) -> None:
        self.woken += 1

    def call(self, path: str, *messages: bytes, end: bool = True, headers: Callable[[], list] = list) -> Answer:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream,
            [
                (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "127.0.0.1:1"),
                ("content-type", "application/grpc"), ("user-agent", "grpc-go/1.33.3"), ("te", "trailers"), *headers(),
            ],
        )  # fmt: skip
        answer = self.answers[stream] = Answer()
        answer.stream = stream
        for number, message in enumerate(messages):
            self.say(answer, message, end=end and number == len(messages) - 1)
        if end and not messages:
            self.h2.end_stream(stream)
        self.pump()
        return answer

    def say(self, answer: Answer, message: bytes, *, end: bool = False) -> None:
        data = framed(message)
        while len(data) > 16384:
            self.h2.send_data(answer.stream, data[:16384])
            data = data[16384:]
            self.pump()
        self.h2.send_data(answer.stream, data, end_stream=end)

    def pump(self) -> None:
        while True:
            data = self.h2.data_to_send()
            for at in range(0, len(data), self.cut or max(len(data), 1)):
                self.connection.receive(data[at : at + (self.cut or len(data))])
            if not self.reads:
                return
            back = self.connection.take()
            self.connection.resume()
            for event in self.h2.receive_data(back):
                self._event(event)
            if not data and not back:
                return

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.gone = event
            return
        if isinstance(event, h2.events.PingAckReceived):
            self.pongs.append(event.ping_data)
            return
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0)
        if answer is None:
            return
        match event:
            case h2.events.ResponseReceived():
                answer.headers = dict(event.headers)
            case h2.events.TrailersReceived():
                answer.trailers = dict(event.headers)
            case h2.events.DataReceived():
                answer.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                answer.ended = True
            case h2.events.StreamReset():
                answer.reset = event.error_code
