#!/usr/bin/env python3
"""Puts a directory behind the launcher: pack.py DIRECTORY OUT [--version X] [--level N] ...

DIRECTORY is .build/staged, or any directory with a program named ``appliance`` in it. The format is that of
launcher/archive.h. Nothing but names, contents and execute bits goes into the file, so equal input gives equal output.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pyfastcdc
import zstandard

HOUSE = Path(__file__).resolve().parents[1]
LAUNCHER = HOUSE / ".build/launcher/launcher"
MAGIC = b"APPLIANCE-PACK-1"
HEADER = struct.Struct("<cBHIQ")
FOOTER = struct.Struct("<QQQ64s64s16s")
EXECUTABLE, RELOCATE = 1, 2
INTERPRETER = "/@@INTERPRETER@@".ljust(400, "@")  # room for the real paths, filled in by launcher/unpack.c
LIBRARIES = "/@@LIBRARIES@@".ljust(800, "@")
FRAME_BYTES = 64 << 10  # about; smaller ones would make an update's download smaller and the file larger


def source_version() -> str:
    """The version in pyproject.toml."""
    found = re.search(r'^version = "(.+)"$', (HOUSE / "pyproject.toml").read_text(), re.MULTILINE)
    assert found, "pyproject.toml has no version"
    return found[1]


def built() -> int:
    """When the release was made, in seconds since 1970: the same for two builds of one source."""
    found = re.search(r'^released = "(.+)"', (HOUSE / "pyproject.toml").read_text(), re.MULTILINE)
    assert found, "pyproject.toml does not say when it was released"
    said = int(datetime.fromisoformat(f"{found[1]}T00:00:00+00:00").timestamp())
    return max(said, int(os.environ.get("SOURCE_DATE_EPOCH", "0")))


def _entry(kind: bytes, path: str, data: bytes = b"", *, executable: bool = False) -> Iterator[bytes]:
    flags = EXECUTABLE * executable | RELOCATE * (INTERPRETER.encode() in data)
    name = path.encode()
    yield HEADER.pack(kind, flags, len(name), 0, len(data))
    yield name
    yield data


def archive(directory: Path, added: Mapping[str, bytes], removed: Iterable[str] = ()) -> Iterator[bytes]:
    """The tree in name order, files of ``added`` put in place of, or beside, those in it."""
    files = {str(path.relative_to(directory)): path for path in directory.rglob("*") if not path.is_dir()}
    names = sorted((files.keys() | added.keys()) - set(removed))
    folders = sorted({str(parent) for name in names for parent in Path(name).parents} - {"."})
    for folder in folders:
        yield from _entry(b"d", folder)
    for name in names:
        executable = name in files and bool(files[name].stat().st_mode & 0o100)
        yield from _entry(b"f", name, added[name] if name in added else files[name].read_bytes(), executable=executable)
    yield from _entry(b"e", "")


class Stream:
    """Pieces as the stream that pyfastcdc reads."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest, self.length = pieces, memoryview(b""), 0

    def read(self, size: int) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        self.length += len(data)
        return data


def frames(stream: Stream, level: int) -> bytes:
    """One zstd frame after the other, cut by content: what did not change gives the same frame in every version.

    So an update fetches the frames that changed (appliance/payload). Whoever unpacks them reads one stream.
    """
    cutter = pyfastcdc.FastCDC(FRAME_BYTES)

    def compress(chunk: bytes) -> bytes:
        return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(chunk)

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        return b"".join(workers.map(compress, [bytes(chunk.data) for chunk in cutter.cut_stream(stream)]))


def pack(
    directory: Path,
    out: Path,
    *,
    version: str,
    level: int = 19,
    added: Mapping[str, bytes] = {},
    removed: Iterable[str] = (),
    launcher: Path = LAUNCHER,
) -> None:
    """Writes ``out``, whole or not at all."""
    program = launcher.read_bytes()
    program += b"\0" * (-len(program) % 4096)
    stream = Stream(
        archive(directory, {"VERSION": f"{version}\n".encode(), "BUILT": f"{built()}\n".encode(), **added}, removed)
    )
    payload = frames(stream, level)
    unpacked_length = stream.length
    payload_id = hashlib.sha256(payload).hexdigest().encode()
    footer = FOOTER.pack(len(program), len(payload), unpacked_length, payload_id, version.encode(), MAGIC)
    out.parent.mkdir(parents=True, exist_ok=True)
    temp = out.with_name(f"{out.name}.tmp.{os.getpid()}")
    temp.write_bytes(program + payload + footer)
    temp.chmod(0o755)
    temp.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Put a directory behind the launcher.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--version", default=source_version())
    parser.add_argument("--level", type=int, default=19)
    parser.add_argument("--replace", action="append", default=[], metavar="PATH=FILE", help="put FILE at PATH")
    parser.add_argument("--remove", action="append", default=[], metavar="PATH", help="leave PATH out")
    args = parser.parse_args()
    added = {path: Path(file).read_bytes() for path, _, file in (item.partition("=") for item in args.replace)}
    pack(args.directory, args.out, version=args.version, level=args.level, added=added, removed=args.remove)


if __name__ == "__main__":
    main()
