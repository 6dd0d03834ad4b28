"""Ten thousand clients who say nothing: a few kilobytes each, and nobody else notices."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.etcdapi.frames import PREFACE, settings
from tests.etcdapi.test_standalone import SOURCE, etcdctl, started
from tests.etcdapi.test_transcript import free_port

CONNECTIONS = 10_000
SPARE = 300
KILOBYTES_EACH = 12


@contextmanager
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + SPARE
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(wanted, hard)))  # inherited: the server raises its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (OSError, ValueError):
        pytest.skip(f"no more than {hard} descriptors to be had here")
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_idle_connections_cost_little_and_hold_nobody_up(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    flags = ["--data-dir", str(tmp_path), "--listen-client-urls", url, "--advertise-client-urls", url]
    clients: list[socket.socket] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with many_descriptors():
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), max(hard, CONNECTIONS + SPARE)))
        with started(SOURCE, *flags) as process:
            resource.setrlimit(resource.RLIMIT_NOFILE, (CONNECTIONS + SPARE, max(hard, CONNECTIONS + SPARE)))
            try:
                assert etcdctl(url, "put", "before", "1") == "OK\n"
                before = memory_kb(process.pid)
                for _ in range(CONNECTIONS):
                    client = socket.create_connection(("127.0.0.1", port), 60)
                    clients.append(client)
                    client.sendall(PREFACE + settings((4, 65535)))
                for client in clients:
                    assert client.recv(9)  # its settings: it is served
                each = (memory_kb(process.pid) - before) / CONNECTIONS
                assert each < KILOBYTES_EACH, f"{each:.1f} KB for a connection that does nothing"
                assert etcdctl(url, "put", "after", "2") == "OK\n"
                assert etcdctl(url, "get", "after") == "after\n2\n"
            finally:
                for client in clients:
                    client.close()
            assert etcdctl(url, "get", "before") == "before\n1\n"
            begun = memory_kb(process.pid)
            for _ in range(200):  # what they left is used again
                client = socket.create_connection(("127.0.0.1", port), 60)
                client.sendall(PREFACE + settings((4, 65535)))
                assert client.recv(9)
                client.close()
            assert memory_kb(process.pid) < begun + 2048
