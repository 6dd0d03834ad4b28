"""The client against a real socket that answers well, badly, slowly, and not at all."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from appliance import errors
from appliance.cli.client import call, call_raw, stream, stream_bytes
from appliance.host.layout import Layout
from cli.peer import Peer, chunked, http, serving


def test_an_answer_with_a_length(peer: Peer) -> None:
    peer.says("GET /v1/x", {"a": 1})
    assert call(peer.layout, "GET", "/v1/x") == {"a": 1}


def test_a_body_is_sent_as_json(peer: Peer) -> None:
    peer.says("POST /v1/x", {})
    call(peer.layout, "POST", "/v1/x", {"key": "é" * 100_000})
    assert peer.requests[0][1].decode() == '{"key": "' + "\\u00e9" * 100_000 + '"}'


def test_text_that_is_not_json_comes_as_text(peer: Peer) -> None:
    peer.answers["GET /v1/file"] = http(b"[unit]\n", kind="text/plain")
    assert call(peer.layout, "GET", "/v1/file") == "[unit]\n"


def test_chunks_cut_anywhere_make_lines(peer: Peer) -> None:
    peer.answers["GET /v1/logs"] = chunked(b"on", b"e\ntwo\n\nth", b"ree")
    assert list(stream(peer.layout, "/v1/logs")) == [b"one", b"two", b"", b"three"]
    assert b"".join(stream_bytes(peer.layout, "/v1/logs")) == b"one\ntwo\n\nthree"


def test_an_answer_until_the_end_of_the_connection(peer: Peer) -> None:
    peer.answers["GET /v1/old"] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[1]"
    assert call_raw(peer.layout, "GET", "/v1/old") == (b"[1]", "application/json")


@pytest.mark.parametrize(
    "kind",
    [
        errors.InputError, errors.NotFoundError, errors.ConflictError, errors.UnavailableError, errors.NotYetError,
        errors.NotRunningError, errors.UntrustedError, errors.CorruptError,
    ],
)  # fmt: skip
def test_errors_come_back_as_what_they_were(peer: Peer, kind: type[errors.ApplianceError]) -> None:
    body = {"error": {"kind": kind.kind, "message": "cannot do it: no", "where": "there"}}
    peer.says("GET /v1/x", body, status=kind.http_status)
    with pytest.raises(errors.ApplianceError) as caught:
        call(peer.layout, "GET", "/v1/x")
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.where) == ("cannot do it: no", "there")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, errors.InputError), (404, errors.NotFoundError), (403, errors.UntrustedError), (418, errors.ApplianceError)],
)
def test_errors_without_words_go_by_their_status(peer: Peer, status: int, kind: type[errors.ApplianceError]) -> None:
    peer.answers["GET /v1/x"] = http(b"oops", status=status, kind="text/plain")
    with pytest.raises(errors.ApplianceError, match=f"cannot GET /v1/x: HTTP {status} oops") as caught:
        call(peer.layout, "GET", "/v1/x")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1",
        chunked(b"[1", end=False),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n[1",
    ],
)
def test_a_cut_answer_is_never_a_short_one(peer: Peer, answer: bytes) -> None:
    peer.answers["GET /v1/x"] = answer
    with pytest.raises(errors.UnavailableError, match="cannot read the answer to /v1/x: the connection was cut"):
        call(peer.layout, "GET", "/v1/x")


def test_what_is_not_http_is_said(peer: Peer) -> None:
    peer.answers["GET /v1/x"] = b"SSH-2.0-OpenSSH\r\n"
    with pytest.raises(errors.CorruptError, match=r"starts with 'SSH-2\.0-OpenSSH'"):
        call(peer.layout, "GET", "/v1/x")
    peer.answers["GET /v1/y"] = http(b"{")
    with pytest.raises(errors.CorruptError, match="not JSON"):
        call(peer.layout, "GET", "/v1/y")


def test_a_silent_server_is_left(peer: Peer) -> None:
    peer.answers["GET /v1/x"] = lambda connection: connection.recv(1) and None
    with pytest.raises(errors.UnavailableError, match=r"cannot GET /v1/x: no answer for 0\.2 s"):
        call(peer.layout, "GET", "/v1/x", timeout=0.2)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(errors.NotRunningError, match=f"no appliance runs below {tmp_path}"):
        call(Layout(str(tmp_path)), "GET", "/v1/x")
    with pytest.raises(errors.NotRunningError, match="no appliance runs below /dev/null"):
        call(Layout("/dev/null"), "GET", "/v1/x")


def test_a_socket_that_a_dead_appliance_left(tmp_path: Path) -> None:
    with serving(tmp_path) as peer:
        pass
    assert os.path.exists(peer.layout.control_socket)
    with pytest.raises(errors.NotRunningError):
        call(peer.layout, "GET", "/v1/x")


def test_a_root_longer_than_a_socket_name_may_be(tmp_path: Path) -> None:
    with serving(tmp_path / ("long" * 40)) as peer:
        peer.says("GET /v1/x", 1)
        assert call(peer.layout, "GET", "/v1/x") == 1


def test_a_refusal_before_the_whole_body_was_read_is_told(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    Path(layout.run).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(layout.control_socket)
        listener.listen()
        import threading

        def refuse() -> None:
            connection = listener.accept()[0]
            body = b'{"error": {"kind": "untrusted", "message": "cannot write: you may only read"}}'
            connection.sendall(http(body, status=403))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass
            connection.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(errors.UntrustedError, match="you may only read"):
            call(layout, "POST", "/v1/x", "x" * 1_000_000)
        thread.join()
