from __future__ import annotations

import ctypes
import struct
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "packaging"))
import pack

READ = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Source(ctypes.Structure):
    _fields_ = (("read", READ),)


class Entry(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_char), ("executable", ctypes.c_bool), ("relocate", ctypes.c_bool), ("size", ctypes.c_uint64),
        ("path", ctypes.c_char * 401),
    )  # fmt: skip


class Damaged(Exception):
    pass


def entries(c: ctypes.CDLL, data: bytes) -> list[tuple[bytes, bool, bool, bytes, bytes]]:
    """What the C reader makes of an archive: kind, executable, relocate, path, data."""
    at = 0

    def read(_: int, buffer: int, length: int) -> bool:
        nonlocal at
        piece = data[at : at + length]
        ctypes.memmove(buffer, piece, len(piece))
        at += len(piece)
        return len(piece) == length

    source, found = Source(READ(read)), []
    while True:
        entry = Entry()
        if not c.archive_next(ctypes.byref(source), ctypes.byref(entry)) & 1:
            raise Damaged(f"after {len(found)} entries")
        if entry.kind == b"e":
            return found
        found.append((entry.kind, entry.executable, entry.relocate, entry.path, data[at : at + entry.size]))
        at += entry.size


def header(kind: bytes, path: bytes, size: int = 0, flags: int = 0, zero: int = 0, length: int | None = None) -> bytes:
    return pack.HEADER.pack(kind, flags, len(path) if length is None else length, zero, size) + path


END = header(b"e", b"")


def test_reads_what_pack_wrote(c: ctypes.CDLL, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/ld.so").write_bytes(b"loader")
    (tmp_path / "appliance").write_bytes(b"\x7fELF" + pack.INTERPRETER.encode())
    (tmp_path / "appliance").chmod(0o755)
    (tmp_path / "gone").write_bytes(b"x")
    data = b"".join(pack.archive(tmp_path, {"VERSION": b"1\n", "deep/down/x": b""}, ["gone"]))
    assert entries(c, data) == [
        (b"d", False, False, b"deep", b""),
        (b"d", False, False, b"deep/down", b""),
        (b"d", False, False, b"lib", b""),
        (b"f", False, False, b"VERSION", b"1\n"),
        (b"f", True, True, b"appliance", b"\x7fELF" + pack.INTERPRETER.encode()),
        (b"f", False, False, b"deep/down/x", b""),
        (b"f", False, False, b"lib/ld.so", b"loader"),
    ]


@pytest.mark.parametrize(
    "path",
    [b"", b"/etc/passwd", b"..", b"../x", b"a/../../x", b"a/..", b".", b"./a", b"a//b", b"a/", b"a\0b", b"x" * 401],
)
@pytest.mark.parametrize("kind", [b"f", b"d"])
def test_refuses_paths_that_could_leave_the_directory(c: ctypes.CDLL, kind: bytes, path: bytes) -> None:
    with pytest.raises(Damaged):
        entries(c, header(kind, path) + END)


@pytest.mark.parametrize("path", [b"...", b"..a", b"a/.b", b"a/..b/c..", b"x" * 400])
def test_takes_unusual_names(c: ctypes.CDLL, path: bytes) -> None:
    assert entries(c, header(b"f", path) + END)[0][3] == path


@pytest.mark.parametrize(
    "data",
    [
        b"",
        END[:-1],
        header(b"f", b"a", length=400),
        header(b"l", b"a") + END,
        header(b"d", b"a", size=1) + END,
        header(b"f", b"a", flags=4) + END,
        header(b"f", b"a", zero=1) + END,
        header(b"e", b"a"),
        header(b"e", b"", size=1),
    ],
)
def test_refuses_damage(c: ctypes.CDLL, data: bytes) -> None:
    with pytest.raises(Damaged):
        entries(c, data)


def footer_holds(c: ctypes.CDLL, footer: bytes, file_size: int) -> bool:
    c.footer_check.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p]
    assert len(footer) == pack.FOOTER.size
    return bool(c.footer_check(footer, file_size, ctypes.create_string_buffer(130)) & 1)


GOOD = (4096, 100, 500, b"0" * 64, b"1.0", pack.MAGIC)


def test_the_footer_must_fit_the_file(c: ctypes.CDLL) -> None:
    size = 4096 + 100 + pack.FOOTER.size
    assert footer_holds(c, pack.FOOTER.pack(*GOOD), size)
    assert not footer_holds(c, pack.FOOTER.pack(*GOOD), size + 1)
    assert not footer_holds(c, pack.FOOTER.pack(*GOOD), 10)
    assert not footer_holds(c, pack.FOOTER.pack(2**64 - 1, *GOOD[1:]), size)
    assert not footer_holds(c, pack.FOOTER.pack(4096, 2**64 - 4096, *GOOD[2:]), size)
    assert not footer_holds(c, pack.FOOTER.pack(*GOOD[:3], b"../" * 20, *GOOD[4:]), size)
    assert not footer_holds(c, pack.FOOTER.pack(*GOOD[:5], b"something else  "), size)
    assert struct.calcsize(pack.FOOTER.format) == 168
