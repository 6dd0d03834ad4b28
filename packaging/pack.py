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
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]
LAUNCHER = HOUSE / ".build/launcher/launcher"
MAGIC = b"APPLIANCE-PACK-1"
HEADER = struct.Struct("<cBHIQ")
FOOTER = struct.Struct("<QQQ64s64s16s")
EXECUTABLE, RELOCATE = 1, 2
INTERPRETER = "/@@INTERPRETER@@".ljust(400, "@")  # room for the real paths, filled in by launcher/unpack.c
LIBRARIES = "/@@LIBRARIES@@".ljust(800, "@")


def source_version() -> str:
    """The version in pyproject.toml."""
    found = re.search(r'^version = "(.+)"$', (HOUSE / "pyproject.toml").read_text(), re.MULTILINE)
    assert found, "pyproject.toml has no version"
    return found[1]


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
    with tempfile.TemporaryDirectory() as scratch:
        plain, packed = Path(scratch, "plain"), Path(scratch, "packed")
        with plain.open("wb") as file:
            for piece in archive(directory, {"VERSION": f"{version}\n".encode(), **added}, removed):
                file.write(piece)
        unpacked_length = plain.stat().st_size
        # Two workers wherever it runs: their number changes the bytes.
        subprocess.run(["zstd", "-q", "-f", "-T2", "--check", f"-{level}", plain, "-o", packed], check=True)
        payload = packed.read_bytes()
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
