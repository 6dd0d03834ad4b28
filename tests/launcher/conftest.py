"""The launcher's pure C, as a library that Python calls."""

from __future__ import annotations

import ctypes
import subprocess
import zlib
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).parents[2] / "packaging/launcher"
COPY = 4096


@pytest.fixture(scope="session")
def c(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("c") / "launcher.so"
    sources = [LAUNCHER / "record.c", LAUNCHER / "archive.c"]
    flags = ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, "-shared", "-fPIC", "-o", library, *sources], check=True)
    return ctypes.CDLL(str(library))


class Slot(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_char * 72), ("sha256", ctypes.c_char * 72), ("priority", ctypes.c_long),
        ("tries", ctypes.c_long), ("blessed", ctypes.c_bool),
    )  # fmt: skip


class Record(ctypes.Structure):
    _fields_ = (
        ("sequence", ctypes.c_uint64), ("base", ctypes.c_char * 72), ("slot", Slot * 2), ("deadline", ctypes.c_long),
    )  # fmt: skip


def checked(lines: str) -> bytes:
    """A copy of a record from its lines."""
    text = lines.encode()
    text += b"check %08x\n" % zlib.crc32(text)
    assert len(text) <= COPY
    return text.ljust(COPY, b"\n")


def lines(
    sequence: int = 17,
    base: str = "b" * 64,
    a: str = f"1.0 {'a' * 64} priority=2 tries=0 blessed=1",
    b: str = f"2.0 {'c' * 64} priority=3 tries=3 blessed=0",
    deadline: int = 600,
    rest: str = "",
) -> str:
    return (
        f"appliance-slots 1\nsequence {sequence}\nbase {base}\nslot a {a}\nslot b {b}\ndeadline {deadline}\n{rest}"
    )
