"""``appliance store backup, restore, check``: the store as files; the latter two without a daemon."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from appliance.errors import NotFoundError

if TYPE_CHECKING:
    from appliance.host.disk import FileDisk

_PIECE = 1 << 20


def add_arguments(
    backup: argparse.ArgumentParser, restore: argparse.ArgumentParser, check: argparse.ArgumentParser
) -> None:
    """Of each."""
    backup.add_argument("file", metavar="FILE", help="- : standard output")
    restore.add_argument("file", metavar="FILE", help="- : standard input")
    restore.add_argument("--replace", action="store_true", help="in place of the store that is there")
    restore.add_argument("--skip-hash-check", action="store_true", help="of a snapshot without its sha256")
    check.add_argument("file", nargs="?", metavar="BACKUP", help="this backup instead of the store")


def backup(args: argparse.Namespace) -> int:
    """Proved before it has its name."""
    from appliance.cli.client import stream_bytes
    from appliance.cli.render import show
    from appliance.errors import ApplianceError, InputError
    from appliance.host import files

    pieces = stream_bytes(args.layout, "/v1/store/backup", headers={"Accept": "application/octet-stream"})
    if args.file == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return 0
    path = os.path.abspath(args.file)
    if os.path.isdir(path):
        raise InputError(f"cannot write {path}: it is a directory", where=path)
    temp = f"{path}.part"
    try:
        with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
            for piece in pieces:
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        revision = _proved(temp, args.file)
        os.rename(temp, path)
        files.sync_directory(os.path.dirname(path))
    except (OSError, ApplianceError) as exc:
        files.remove(temp)
        raise files.translate(exc, "write", path) if isinstance(exc, OSError) else exc from exc
    done = {"revision": revision, "bytes": os.path.getsize(path), "file": path}
    show(args, done, lambda _: f"revision {revision}, {done['bytes']} bytes, proved: {args.file}")
    return 0


def _proved(path: str, name: str) -> int:
    """The revision of a backup, or of the snapshot that an external store's etcd made of itself."""
    from appliance.migration import check_any  # late: a short command does not need the store's code

    with open(path, "rb") as file:
        return check_any(
            lambda size, offset: os.pread(file.fileno(), size, offset), os.fstat(file.fileno()).st_size, name
        )


def _pieces(path: str) -> Iterator[bytes]:
    from appliance.host import files

    try:
        with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    except OSError as exc:
        raise files.translate(exc, "read", path) from exc


def restore(args: argparse.Namespace) -> int:
    """Refused, with its pid, while a node runs."""
    from appliance import store
    from appliance.cli.render import show
    from appliance.host import files
    from appliance.host.disk import FileDisk

    lock = files.lock(args.layout.lock)
    try:
        disk = FileDisk(args.layout.store)
        if args.file == "-":
            revision = store.restore(disk, _pieces(args.file), replace=args.replace, name="standard input")
        else:
            revision = _restore_file(disk, args)
    finally:
        lock.release()
    done = {"revision": revision, "store": args.layout.store}
    show(args, done, lambda _: f"restored to revision {revision}: {args.layout.store}")
    return 0


def _restore_file(disk: FileDisk, args: argparse.Namespace) -> int:
    from appliance.host import files
    from appliance.migration import restore_any

    try:
        with open(args.file, "rb") as file:

            def read(size: int, offset: int) -> bytes:
                return os.pread(file.fileno(), size, offset)

            size = os.fstat(file.fileno()).st_size
            done = restore_any(disk, read, size, args.file, replace=args.replace, skip_hash_check=args.skip_hash_check)
    except OSError as exc:
        raise files.translate(exc, "read", args.file) from exc
    if done.note:
        print(f"appliance: {done.note}", file=sys.stderr)
    return done.revision


def check(args: argparse.Namespace) -> int:
    """1 when something is wrong."""
    from dataclasses import asdict

    from appliance import store
    from appliance.cli.render import show
    from appliance.host import files
    from appliance.host.disk import FileDisk

    if args.file:
        try:
            revision = store.check_backup(_pieces("-"), "-") if args.file == "-" else _proved(args.file, args.file)
        except OSError as exc:
            raise files.translate(exc, "read", args.file) from exc
        show(args, {"revision": revision, "file": args.file}, lambda _: f"{args.file}: revision {revision}, whole")
        return 0
    if not os.path.isdir(args.layout.store):
        raise NotFoundError(f"cannot check {args.layout.store}: there is no store", where=args.layout.store)
    lock = files.lock(args.layout.lock)
    try:
        report = asdict(store.check(FileDisk(args.layout.store)))
    finally:
        lock.release()
    show(args, report, _report)
    return 1 if report["problems"] else 0


def _report(report: dict[str, Any]) -> str:
    lines = [*report["notes"], *report["problems"]]
    counted = f"{report['keys']} keys, {report['records']} records in {report['segments']} segments"
    verdict = f"{len(report['problems'])} problems" if report["problems"] else "every checksum holds"
    return "\n".join([*lines, f"revision {report['revision']}, {counted}: {verdict}"])
