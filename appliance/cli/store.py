"""``appliance store``: keys of the node's store; compaction, backup. restore and check work on files, no daemon."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from appliance.cli import store_migrate
from appliance.cli.parser import a_number

if TYPE_CHECKING:
    from appliance.host.disk import FileDisk

_VERBS = {
    "get": "print keys and values",
    "put": "write a key; the value may come from standard input (-)",
    "del": "delete keys; prints how many there were",
    "watch": "print changes as they become durable, until interrupted",
    "status": "revision, keys, size, how it is",
    "compact": "forget what was overwritten or deleted before a revision",
    "backup": "everything at one revision, into a file; the node runs on",
    "restore": "make the store of a backup, or of an etcd's snapshot; the node must not run",
    "migrate": "copy the appliance's own keys from the running node into an etcd",
    "check": "prove every checksum of the store, or of a backup; the node must not run for the former",
}
_EXAMPLES = """Examples:
  appliance store put greeting hello
  appliance store get greeting --value-only
  appliance store get --prefix /app/ --keys-only
  appliance store watch --prefix /app/
  appliance store backup /mnt/usb/node.backup
  appliance store restore /mnt/usb/node.backup --replace
  appliance store restore etcd-snapshot.db
  appliance store check"""
_PIECE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    made = {name: verbs.add_parser(name, help=words, description=words) for name, words in _VERBS.items()}
    for name in ("get", "del", "watch"):
        made[name].add_argument("key", nargs="?", default="", metavar="KEY", help="empty with --prefix: every key")
        made[name].add_argument("end", nargs="?", metavar="END", help="every key from KEY up to this one")
        which = made[name].add_mutually_exclusive_group()
        which.add_argument("--prefix", action="store_true", help="every key that begins so")
        which.add_argument("--from-key", action="store_true", help="every key from this one on")
    made["put"].add_argument("key", metavar="KEY")
    made["put"].add_argument("value", nargs="?", default="-", metavar="VALUE", help="- (the default): standard input")
    for name in ("put", "del", "watch"):
        made[name].add_argument("--prev", action="store_true", help="also what was there before")
    made["get"].add_argument("--rev", type=a_number, default=0, metavar="N", help="as it was at this revision")
    made["get"].add_argument("--limit", type=a_number, default=0, metavar="N")
    shown = made["get"].add_mutually_exclusive_group()
    shown.add_argument("--keys-only", action="store_true")
    shown.add_argument("--value-only", action="store_true", help="the values as they are, byte for byte")
    shown.add_argument("--count", action="store_true", help="only how many there are")
    made["watch"].add_argument("--rev", type=a_number, default=0, metavar="N", help="from this revision on")
    made["compact"].add_argument("revision", type=a_number, metavar="REVISION")
    made["backup"].add_argument("file", metavar="FILE", help="- : standard output")
    made["restore"].add_argument("file", metavar="FILE", help="- : standard input")
    made["restore"].add_argument("--replace", action="store_true", help="in place of the store that is there")
    made["restore"].add_argument("--skip-hash-check", action="store_true", help="of a snapshot without its sha256")
    store_migrate.add_arguments(made["migrate"])
    made["check"].add_argument("file", nargs="?", metavar="BACKUP", help="this backup instead of the store")


def run(args: argparse.Namespace) -> int:
    """``status`` when no verb is given."""
    acts = {
        "get": _get, "put": _put, "del": _delete, "watch": _watch, "status": _status, "compact": _compact,
        "backup": _backup, "restore": _restore, "check": _check, "migrate": store_migrate.run,
    }  # fmt: skip
    return acts[args.verb or "status"](args)


def _call(args: argparse.Namespace, verb: str, body: dict[str, Any]) -> Any:
    from appliance.cli.client import call

    return call(args.layout, "POST", f"/v1/store/{verb}", body)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _range(args: argparse.Namespace) -> dict[str, str]:
    """Key and range_end as the API wants them. etcd's rules: a zero byte is the smallest key, and no end."""
    from appliance.errors import InputError

    key = os.fsencode(args.key)
    if args.end is not None and (args.prefix or args.from_key):
        raise InputError("cannot tell the range: END is given, and --prefix or --from-key too")
    if args.prefix:
        stem = key.rstrip(b"\xff")
        end = stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
    elif args.from_key:
        end = b"\0"
    else:
        end = os.fsencode(args.end or "")
    if not key and not args.prefix and not args.from_key:
        raise InputError("cannot tell the range: KEY is missing (every key: --prefix '')")
    return {"key": _text(key or b"\0"), **({"range_end": _text(end)} if end else {})}


def _get(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    asked = {"revision": args.rev, "limit": args.limit, "keys_only": args.keys_only, "count_only": args.count}
    answer = _call(args, "range", {**_range(args), **asked})
    if args.output == "json":
        show(args, answer, str)
    elif args.count:
        print(answer["count"])
    else:
        for kv in answer["kvs"]:
            if not args.value_only:
                _print_bytes(_bytes(kv["key"]))
            if not args.keys_only:
                _print_bytes(_bytes(kv["value"]), exactly=args.value_only and not sys.stdout.isatty())
    return 0 if answer["count"] or args.count else 4


def _print_bytes(data: bytes, *, exactly: bool = False) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data if exactly else data + b"\n")
    sys.stdout.buffer.flush()


def _put(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    value = sys.stdin.buffer.read() if args.value == "-" else os.fsencode(args.value)
    body = {"key": _text(os.fsencode(args.key)), "value": _text(value), "prev_kv": args.prev}
    answer = _call(args, "put", body)
    if args.output == "json":
        show(args, answer, str)
        return 0
    print(f"revision {answer['revision']}")
    if answer["prev"]:
        _print_bytes(_bytes(answer["prev"]["value"]))
    return 0


def _delete(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    answer = _call(args, "delete", {**_range(args), "prev_kv": args.prev})
    if args.output == "json":
        show(args, answer, str)
        return 0
    print(answer["deleted"])
    for kv in answer["prev"]:
        _print_bytes(_bytes(kv["key"]))
        _print_bytes(_bytes(kv["value"]))
    return 0


def _watch(args: argparse.Namespace) -> int:
    import json
    from urllib.parse import urlencode

    from appliance.cli.client import stream

    asked = {**_range(args), "start_revision": args.rev, "prev_kv": "1" if args.prev else "0"}
    for line in stream(args.layout, f"/v1/store/watch?{urlencode(asked)}"):
        if args.output == "json":
            _print_bytes(line)
            continue
        for event in json.loads(line)["events"]:
            print(f"{event['type'].upper()} (revision {event['kv']['mod_revision']})")
            if event.get("prev_kv"):
                _print_bytes(_bytes(event["prev_kv"]["key"]))
                _print_bytes(_bytes(event["prev_kv"]["value"]))
            _print_bytes(_bytes(event["kv"]["key"]))
            _print_bytes(_bytes(event["kv"]["value"]))
    return 0


def _status(args: argparse.Namespace) -> int:
    from appliance.cli.client import call
    from appliance.cli.render import show

    answer = call(args.layout, "GET", "/v1/store/status")
    show(args, answer, _facts)
    return 0 if answer.get("state") == "open" else 1


def _facts(answer: dict[str, Any]) -> str:
    from appliance.cli.render import size, table

    rows = [
        (name.replace("_", " "), size(value) if name.endswith("_bytes") else value)
        for name, value in answer.items()
        if value != ""
    ]
    return table(("store", ""), rows)


def _compact(args: argparse.Namespace) -> int:
    _call(args, "compact", {"revision": args.revision})
    print(f"kept from revision {args.revision} on")
    return 0


def _backup(args: argparse.Namespace) -> int:
    from appliance.cli.client import stream_bytes
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
    print(f"revision {revision}, {os.path.getsize(path)} bytes, proved: {args.file}")
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


def _restore(args: argparse.Namespace) -> int:
    from appliance.host import files
    from appliance.host.disk import FileDisk
    from appliance.store import restore

    lock = files.lock(args.layout.lock)  # the daemon's: refused, with its pid, while it runs
    try:
        disk = FileDisk(args.layout.store)
        if args.file == "-":
            revision = restore(disk, _pieces(args.file), replace=args.replace, name="standard input")
        else:
            revision = _restore_file(disk, args)
    finally:
        lock.release()
    print(f"restored to revision {revision}: {args.layout.store}")
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


def _check(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from appliance.cli.render import show
    from appliance.host import files
    from appliance.host.disk import FileDisk
    from appliance.store import check, check_backup

    if args.file:
        try:
            revision = check_backup(_pieces("-"), "-") if args.file == "-" else _proved(args.file, args.file)
        except OSError as exc:
            raise files.translate(exc, "read", args.file) from exc
        print(f"{args.file}: revision {revision}, whole")
        return 0
    lock = files.lock(args.layout.lock)
    try:
        report = asdict(check(FileDisk(args.layout.store)))
    finally:
        lock.release()
    show(args, report, _report)
    return 1 if report["problems"] else 0


def _report(report: dict[str, Any]) -> str:
    lines = [*report["notes"], *report["problems"]]
    counted = f"{report['keys']} keys, {report['records']} records in {report['segments']} segments"
    verdict = f"{len(report['problems'])} problems" if report["problems"] else "every checksum holds"
    return "\n".join([*lines, f"revision {report['revision']}, {counted}: {verdict}"])
