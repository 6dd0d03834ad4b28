from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from appliance.errors import ConflictError, InputError, UnavailableError
from appliance.host import sockets


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:7780", "127.0.0.1", 7780, True),
        ("localhost:0", "127.0.0.1", 0, True),
        ("[::1]:80", "::1", 80, True),
        ("0.0.0.0:65535", "0.0.0.0", 65535, False),
        ("[::]:1", "::", 1, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = sockets.parse_address(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)
    assert sockets.parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("7780", "it has no port"),
        ("", "it has no port"),
        (":7780", "it has no host"),
        ("::1:7780", "brackets"),
        ("[::1", "is no port|brackets"),
        ("127.0.0.1:", '"" is no port'),
        ("127.0.0.1:65536", "is no port"),
        ("127.0.0.1:+1", "is no port"),
        ("127.0.0.1:\u0661", "is no port"),
        ("node:80", '"node" is no IP address'),
        ("127.0.0.256:80", "is no IP address"),
    ],
)
def test_addresses_that_are_none(text: str, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as error:
        sockets.parse_address(text)
    assert "[::1]:7780" in error.value.message


async def test_a_taken_port_is_named() -> None:
    first = sockets.listen_tcp(sockets.parse_address("127.0.0.1:0"))
    with pytest.raises(UnavailableError, match=f"cannot listen on {first.name}: Address already in use"):
        sockets.listen_tcp(sockets.parse_address(first.name))
    first.close()


async def test_a_unix_socket_however_long_its_path(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / ("d" * 120) / ("e" * 120)):
        path = str(directory / "control.sock")
        listener = sockets.listen_unix(path, mode=0o660, group="no such group")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert os.listdir(directory) in (["control.sock"], sorted(os.listdir(directory)))
        client = sockets.connect_unix(path)
        with trio.fail_after(30):
            stream = await listener.accept()
        peer = sockets.peer_of(stream)
        assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
        assert {os.getegid(), *os.getgroups()} <= peer.gids
        client.close()
        await stream.aclose()
        with pytest.raises(ConflictError, match="another process answers there"):
            sockets.listen_unix(path)
        listener.close()
        assert not os.path.exists(path)  # noqa: ASYNC240


async def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listener = sockets.listen_unix(path)
    assert sockets.unix_answers(path)
    os.unlink(path)
    other = sockets.listen_unix(path)
    listener.close()  # the name is another's now, and stays
    assert sockets.unix_answers(path)
    other.close()
    assert not sockets.unix_answers(path)
    assert os.listdir(tmp_path) == []


async def test_a_directory_in_the_way_is_said(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.mkdir()
    with pytest.raises(InputError, match=r"cannot listen on .*control\.sock: Is a directory"):
        sockets.listen_unix(str(path))
    assert os.listdir(tmp_path) == ["control.sock"]
