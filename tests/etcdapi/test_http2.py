"""The connection against the h2 package as the peer, cut anywhere, and against garbage."""

from __future__ import annotations

import gzip
from struct import pack

import h2.config
import h2.connection
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.etcdapi import http2
from appliance.etcdapi.answering import ESTIMATE_FROM
from appliance.etcdapi.frames import ESTIMATE, PREFACE, frame
from appliance.etcdapi.grpc import Call, Code, RefusedError, Streaming, Unary
from tests.etcdapi.peer import Answer, Peer, framed


class Echo:
    """Answers each message, then ends well."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.resets = self.drains = 0

    def message(self, message: bytes) -> None:
        self.call.send(message.upper())

    def half_close(self) -> None:
        self.call.end()

    def reset(self) -> None:
        self.resets += 1

    def drained(self) -> None:
        self.drains += 1


class Server:
    """Methods of every kind."""

    def __init__(self) -> None:
        self.later: list[tuple[Call, bytes]] = []
        self.echoes: list[Echo] = []
        self.served = 0
        self.methods = {
            b"/t.T/Upper": Unary(self.upper),
            b"/t.T/Later": Unary(self.wait),
            b"/t.T/Refuse": Unary(self.refuse),
            b"/t.T/Big": Unary(self.big),
            b"/t.T/Echo": Streaming(self.echo),
        }

    def upper(self, call: Call, message: bytes) -> bytes:
        return message.upper()

    def big(self, call: Call, message: bytes) -> bytes:
        self.served += 1
        return b"x" * int(message)

    def wait(self, call: Call, message: bytes) -> None:
        self.later.append((call, message))

    def refuse(self, call: Call, message: bytes) -> bytes:
        raise RefusedError(Code.OUT_OF_RANGE, "etcdserver: ünder 100%")

    def echo(self, call: Call) -> Echo:
        self.echoes.append(Echo(call))
        return self.echoes[-1]


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_unary(cut: int) -> None:
    peer = Peer(Server().methods, cut=cut)
    for text in (b"abc", b"", b"abc"):
        answer = peer.call("/t.T/Upper", text)
        assert answer.ended
        assert (answer.status, answer.messages()) == (0, [text.upper()])
        assert answer.headers[b"content-type"] == b"application/grpc"
    assert not peer.connection.calls


@pytest.mark.parametrize("cut", [0, 1, 13])
def test_streaming(cut: int) -> None:
    server = Server()
    peer = Peer(server.methods, cut=cut)
    answer = peer.call("/t.T/Echo", b"a", b"b" * 20_000, b"c")
    assert answer.ended
    assert answer.messages() == [b"A", b"B" * 20_000, b"C"]
    assert server.echoes[0].resets == 1


@given(st.lists(st.integers(0, 200_000), max_size=6), st.sampled_from([0, 1000, 70_000]), st.integers(1, 100_000))
@settings(max_examples=30, deadline=None)
def test_any_sizes_pass_any_windows(sizes: list[int], cut: int, window: int) -> None:
    peer = Peer(Server().methods, cut=cut, settings={4: window})
    for size in sizes:
        answer = peer.call("/t.T/Upper", b"a" * size)
        assert (answer.status, answer.messages()) == (0, [b"A" * size])
    answer = peer.call("/t.T/Echo", *(b"a" * size for size in sizes)) if sizes else None
    assert answer is None or answer.messages() == [b"A" * size for size in sizes]
    assert peer.connection.pending == 0
    assert not peer.connection.outbox._changes


def test_refusals() -> None:
    peer = Peer(Server().methods)
    answer = peer.call("/t.T/Refuse", b"")
    assert (answer.status, answer.text, answer.ended) == (11, "etcdserver: %C3%BCnder 100%25", True)
    for path, text in (
        ("/t.T/Nope", "unknown method Nope for service t.T"),
        ("/t.U/Nope", "unknown service t.U"),
        ("nope", 'malformed method name: "nope"'),
    ):
        answer = peer.call(path, b"")
        assert (answer.status, answer.text) == (12, text)
    answer = peer.call("/t.T/Upper", b"", headers=lambda: [("grpc-encoding", "snappy")])
    assert (answer.status, answer.text) == (12, 'grpc: Decompressor is not installed for grpc-encoding "snappy"')
    assert peer.call("/t.T/Upper").status == 13
    answer = peer.call("/t.T/Upper", end=False)
    peer.h2.send_data(answer.stream, pack(">BI", 0, 3 << 20))
    peer.pump()
    assert (answer.status, answer.text) == (8, "grpc: received message larger than max (3145728 vs. 2097152)")
    assert peer.gone is None
    assert not peer.connection.calls


def test_no_more_streams_at_once_than_were_told() -> None:
    server = Server()
    connection = http2.Connection(server.methods, lambda: None, streams=2)
    peer = Peer(server.methods)
    peer.connection = connection
    peer.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    peer.h2.initiate_connection()
    first = [peer.call("/t.T/Later", b"1") for _ in range(2)]
    assert peer.h2.remote_settings.max_concurrent_streams == 2
    peer.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 9  # one that does not heed it
    peer.h2.remote_settings.acknowledge()
    assert [peer.call("/t.T/Upper", b"a").reset, *(answer.reset for answer in first)] == [7, None, None]
    for call, message in server.later:
        call.reply(message)
    assert peer.call("/t.T/Upper", b"a").messages() == [b"A"]


def test_packed_messages() -> None:
    peer = Peer(Server().methods)

    def send(path: str, *packed: bytes, encoding: str = "gzip") -> Answer:
        answer = peer.call(path, end=False, headers=lambda: [("grpc-encoding", encoding)])
        for number, data in enumerate(packed, 1):
            peer.h2.send_data(answer.stream, pack(">BI", 1, len(data)) + data, end_stream=number == len(packed))
            peer.pump()
        return answer

    assert send("/t.T/Upper", gzip.compress(b"abc" * 50_000)).messages() == [b"ABC" * 50_000]
    assert send("/t.T/Echo", gzip.compress(b"a"), gzip.compress(b"b")).messages() == [b"A", b"B"]
    plain = peer.call("/t.T/Upper", b"a", headers=lambda: [("grpc-encoding", "gzip")])
    assert plain.messages() == [b"A"]  # each message says for itself whether it is packed
    for packed, status, text in (
        (gzip.compress(bytes(3 << 20)), 8, "grpc: received message larger than max (3145728 vs. 2097152)"),
        (gzip.compress(b"abc")[:-9], 13, "grpc: failed to decompress the received message unexpected EOF"),
        (b"no gzip", 13, "grpc: failed to decompress the received message Error -3 while"),
    ):
        answer = send("/t.T/Upper", packed)
        assert (answer.status, answer.text[: len(text)]) == (status, text)
    answer = send("/t.T/Upper", gzip.compress(b"abc"), encoding="identity")
    assert (answer.status, answer.text) == (13, "grpc: compressed flag set with identity or empty encoding")
    assert not peer.connection.calls


def test_answers_given_later_and_to_those_who_left() -> None:
    server = Server()
    peer = Peer(server.methods)
    first, second = peer.call("/t.T/Later", b"1"), peer.call("/t.T/Later", b"2")
    peer.h2.reset_stream(first.stream)
    peer.pump()
    assert [call.over for call, _ in server.later] == [True, False]
    for call, message in server.later:
        call.reply(message)
    assert peer.woken
    peer.pump()
    assert not first.data
    assert second.messages() == [b"2"]


def test_a_client_that_never_reads_is_bounded() -> None:
    server = Server()
    peer = Peer(server.methods, reads=False)
    for _ in range(200):
        peer.call("/t.T/Big", b"1000000")
    assert server.served <= 5
    assert peer.connection.pending < http2.OUTPUT_MAX + 2_000_000
    peer.reads = True
    peer.pump()
    assert server.served == 200
    assert all(len(answer.data) == 1_000_005 for answer in peer.answers.values())
    assert peer.connection.pending == 0


def test_a_sender_is_told_when_all_has_left() -> None:
    server = Server()
    peer = Peer(server.methods)
    answer = peer.call("/t.T/Echo", b"a" * 100, end=False)
    peer.reads = False
    for _ in range(10):
        server.echoes[0].call.send(b"b" * 100_000)
    assert server.echoes[0].call.backlog > 900_000
    peer.reads = True
    peer.pump()
    assert server.echoes[0].drains == 1
    assert server.echoes[0].call.backlog == 0
    server.echoes[0].call.end()
    peer.pump()
    assert answer.ended


def test_loss_ends_every_call() -> None:
    server = Server()
    peer = Peer(server.methods)
    peer.call("/t.T/Echo", b"a", end=False)
    peer.call("/t.T/Later", b"a")
    peer.connection.lost()
    assert server.echoes[0].resets == 1
    assert server.later[0][0].over


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        PREFACE + frame(0, 0, 1, b"x"),  # data on an idle stream
        PREFACE + frame(1, 4, 2, b""),  # a stream that only a server may open
        PREFACE + frame(9, 4, 1, b""),  # continuation of nothing
        PREFACE + frame(1, 0, 1, b"") + frame(6, 0, 0, bytes(8)),  # a ping amid headers
        PREFACE + frame(1, 12, 1, b"\x05"),  # all padding
        PREFACE + frame(8, 0, 0, bytes(4)),  # window grows by nothing
        PREFACE + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,  # window too large
        PREFACE + frame(4, 0, 0, b"12345"),
        PREFACE + frame(4, 0, 0, pack(">HI", 5, 100)),
        PREFACE + frame(6, 0, 0, b"1"),
        PREFACE + frame(5, 0, 1, bytes(4)),  # push promise
        PREFACE + frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"),  # broken header block
        PREFACE + frame(1, 0, 1, b"") + frame(9, 0, 1, bytes(16384)) * 5,  # headers without end
        PREFACE + frame(4, 0, 0, b"") * 1001,
        PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",  # a frame larger than allowed
    ],
)
def test_broken_rules_end_the_connection(data: bytes) -> None:
    connection = http2.Connection(Server().methods, lambda: None)
    connection.receive(data)
    assert connection.closing
    assert connection.take()[-600:].find(b"cannot ") > 0


frames = st.builds(
    frame,
    st.integers(0, 10),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0xFF]),
    st.sampled_from([0, 1, 3, 5, 2, 1 << 31]),
    st.one_of(
        st.binary(max_size=64),
        st.just(framed(b"hello")),
        st.just(b"\x83\x86\x04\x0a/t.T/Upper"),
        st.just(b"\x83\x86\x04\x09/t.T/Echo"),
        st.just(pack(">HI", 4, 5)),
    ),
)


@given(st.lists(st.one_of(frames, st.binary(max_size=20)), max_size=20), st.integers(1, 50))
@settings(max_examples=300, deadline=None)
def test_garbage_never_breaks_us(pieces: list[bytes], cut: int) -> None:
    server = Server()
    connection = http2.Connection(server.methods, lambda: None)
    data = PREFACE + b"".join(pieces)
    for at in range(0, len(data), cut):
        connection.receive(data[at : at + cut])
        connection.take()
        connection.resume()
    connection.lost()
    assert not connection.calls
    assert connection._partial_size == 0
    assert sum(echo.resets for echo in server.echoes) == len(server.echoes)


def test_acknowledgements_wait_for_the_answer_and_do_not_hide_it() -> None:
    server = Server()
    peer = Peer(server.methods)
    peer.call("/t.T/Later", b"1")
    peer.reads = False
    peer.h2.ping(b"12345678")
    peer.pump()
    assert peer.connection.patient
    woken = peer.woken
    server.later[0][0].reply(b"2")
    assert peer.woken == woken + 1
    assert not peer.connection.patient
    peer.reads = True
    peer.pump()
    assert peer.answers[1].messages() == [b"2"]


def test_grpc_go_learns_how_fast_we_are_with_some_later_answer() -> None:
    told: list[bytes] = []
    for size, calls in ((1, 16), (5000, 1)):
        peer = Peer(Server().methods)
        peer.call("/t.T/Upper", b"a")
        peer.h2.ping(ESTIMATE)
        answered = 0
        while not peer.pongs:
            assert peer.connection.patient
            peer.call("/t.T/Upper", b"a" * size)
            answered += 1
        assert answered == calls
        told += peer.pongs
    assert told == [ESTIMATE, ESTIMATE]


def test_grpc_go_learns_it_without_another_answer_too() -> None:
    peer = Peer(Server().methods)
    peer.call("/t.T/Upper", b"a")
    peer.h2.ping(ESTIMATE)
    peer.pump()
    moments = 1
    while peer.connection.waits_on():
        moments += 1
    peer.pump()
    assert peer.pongs == [ESTIMATE]
    assert moments == ESTIMATE_FROM
    assert not peer.connection.waits_on()


def test_many_messages_share_frames() -> None:
    server = Server()
    for sizes in ([10] * 3, [1], [9000] * 4, [20_000, 5], [16_379, 16_379], [70_000, 1]):
        peer = Peer(server.methods)
        answer = peer.call("/t.T/Echo", b"x", end=False)
        messages = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        server.echoes[-1].call.send_all(messages)
        peer.pump()
        assert answer.messages() == [b"X", *messages]
        server.echoes[-1].call.send_all([])
        assert peer.connection.patient
