"""Keys as the command line names, sends and prints them: ranges, base64, bytes as they are."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from typing import Any

from appliance.cli.parser import a_number
from appliance.errors import InputError


def add_get(verb: argparse.ArgumentParser) -> None:
    """The arguments of ``get``, on the command line and in a transaction."""
    add_range(verb)
    verb.add_argument("--rev", type=a_number, default=0, metavar="N", help="as it was at this revision")
    verb.add_argument("--limit", type=a_number, default=0, metavar="N", help="at most so many keys")
    shown = verb.add_mutually_exclusive_group()
    shown.add_argument("--keys-only", action="store_true", help="no values")
    shown.add_argument("--value-only", action="store_true", help="the values as they are, byte for byte")
    shown.add_argument("--count", action="store_true", help="only how many there are")


def add_put(verb: argparse.ArgumentParser) -> None:
    """The arguments of ``put``."""
    verb.add_argument("key", metavar="KEY")
    verb.add_argument("value", nargs="?", default="-", metavar="VALUE", help="- (the default): standard input")
    verb.add_argument("--lease", default="0", metavar="ID", help="the key goes when that lease ends (store lease)")
    verb.add_argument("--prev", action="store_true", help="also what was there before")


def add_del(verb: argparse.ArgumentParser) -> None:
    """The arguments of ``del``."""
    add_range(verb)
    verb.add_argument("--prev", action="store_true", help="also what was there before")


def add_range(verb: argparse.ArgumentParser) -> None:
    """Which keys."""
    verb.add_argument("key", nargs="?", default="", metavar="KEY", help="empty with --prefix: every key")
    verb.add_argument("end", nargs="?", metavar="END", help="every key from KEY up to this one")
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--prefix", action="store_true", help="every key that begins so")
    which.add_argument("--from-key", action="store_true", help="every key from this one on")


def get_asked(args: argparse.Namespace) -> dict[str, Any]:
    """A ``get`` as the API wants it. Raises InputError."""
    return {
        **range_asked(args), "revision": args.rev, "limit": args.limit, "keys_only": args.keys_only,
        "count_only": args.count,
    }  # fmt: skip


def put_asked(args: argparse.Namespace) -> dict[str, Any]:
    """A ``put`` as the API wants it. Raises InputError."""
    value = sys.stdin.buffer.read() if args.value == "-" else os.fsencode(args.value)
    return {
        "key": text_of(os.fsencode(args.key)), "value": text_of(value), "lease": lease_id(args.lease),
        "prev_kv": args.prev,
    }  # fmt: skip


def del_asked(args: argparse.Namespace) -> dict[str, Any]:
    """A ``del`` as the API wants it. Raises InputError."""
    return {**range_asked(args), "prev_kv": args.prev}


def range_asked(args: argparse.Namespace) -> dict[str, str]:
    """Key and range_end as the API wants them. etcd's rules: a zero byte is the smallest key, and no end."""
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
    return {"key": text_of(key or b"\0"), **({"range_end": text_of(end)} if end else {})}


def lease_id(text: str) -> int:
    """A lease's ID, in hexadecimal as etcdctl prints it. Raises InputError."""
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 63:
        raise InputError(f'cannot read the lease: found "{text}", expected an ID such as 694d77aa9e38260f')
    return number


def print_got(answer: dict[str, Any], args: argparse.Namespace) -> None:
    """What a ``get`` found."""
    if args.count:
        print(answer["count"])
        return
    for kv in answer["kvs"]:
        if not args.value_only:
            print_bytes(bytes_of(kv["key"]))
        if not args.keys_only:
            print_bytes(bytes_of(kv["value"]), exactly=args.value_only and not sys.stdout.isatty())


def print_deleted(answer: dict[str, Any]) -> None:
    """What a ``del`` did."""
    print(answer["deleted"])
    for kv in answer["prev"]:
        print_pair(kv)


def print_pair(kv: dict[str, Any]) -> None:
    """A key and its value, a line each."""
    print_bytes(bytes_of(kv["key"]))
    print_bytes(bytes_of(kv["value"]))


def print_bytes(data: bytes, *, exactly: bool = False) -> None:
    """As they are, after what was printed before."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data if exactly else data + b"\n")
    sys.stdout.buffer.flush()


def text_of(data: bytes) -> str:
    """Base64, as the API has it."""
    return base64.b64encode(data).decode()


def bytes_of(text: str) -> bytes:
    """The bytes behind base64."""
    return base64.b64decode(text)
