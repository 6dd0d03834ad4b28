"""Stores to be a client of (ours from source, a real etcd), and a virtual environment with the clients of PyPI."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.etcdapi.test_standalone import HOUSE, SOURCE, started
from tests.etcdapi.test_transcript import etcd, free_port

__all__ = ["etcd"]  # a fixture

StartStore = Callable[..., str]


@pytest.fixture(scope="session")
def clients() -> Path:
    """The bin of .build/clients, made anew when the lock has changed."""
    place, lock = HOUSE / ".build/clients", HOUSE / "packaging/clients.lock"
    wanted, made_from = hashlib.sha256(lock.read_bytes()).hexdigest(), place / "made-from"
    if not made_from.exists() or made_from.read_text() != wanted:
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(place / "bin/pip"), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=True)
        made_from.write_text(wanted)
    return place / "bin"


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[StartStore]:
    """Starts a fresh `appliance etcd` for each call; yields its HOST:PORT. All must stop well."""
    with ExitStack() as stack:

        def start(command: Sequence[str] = SOURCE) -> str:
            address = f"127.0.0.1:{free_port()}"
            url = f"http://{address}"
            flags = ("--data-dir", str(tmp_path / address), "--listen-client-urls", url, "--advertise-client-urls", url)
            peers = ("--initial-advertise-peer-urls", "http://127.0.0.1:2380")
            stack.enter_context(started(command, *flags, *peers))
            return address

        yield start
