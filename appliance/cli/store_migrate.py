"""``appliance store migrate``: the appliance's own keys, from the running node into a real etcd."""

from __future__ import annotations

import argparse
import base64
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.external import Credentials
    from appliance.store import Range, RangeResult

PASSWORD_VARIABLE = "APPLIANCE_STORE_PASSWORD"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, and as whom."""
    parser.add_argument("endpoints", nargs="+", metavar="URL", help="of the etcd, such as https://10.0.0.1:2379")
    parser.add_argument("--prefix", default="/appliance/", help="which keys (default: the appliance's own)")
    parser.add_argument("--replace", action="store_true", help="keys that have another value there too")
    parser.add_argument("--ca-file", default="", metavar="FILE")
    parser.add_argument("--cert-file", default="", metavar="FILE")
    parser.add_argument("--key-file", default="", metavar="FILE")
    parser.add_argument("--user", default="", metavar="NAME", help=f"its password stands in {PASSWORD_VARIABLE}")


def run(args: argparse.Namespace) -> int:
    """Returns when all is there."""
    import trio

    from appliance.cli.render import show
    from appliance.external import Credentials

    password = os.environ.get(PASSWORD_VARIABLE, "")
    credentials = Credentials(args.ca_file, args.cert_file, args.key_file, args.user, password)
    count = trio.run(_migrate, args, credentials)
    done = {"keys": count, "prefix": args.prefix, "endpoint": args.endpoints[0]}
    show(args, done, lambda _: f"{count} keys below {args.prefix or 'the root'} are in {args.endpoints[0]}")
    return 0


async def _migrate(args: argparse.Namespace, credentials: Credentials) -> int:
    from appliance.external import ExternalStore, migrate

    target = ExternalStore(args.endpoints, credentials)
    try:
        return await migrate(_Node(args), target, os.fsencode(args.prefix), replace=args.replace)
    finally:
        await target.aclose()


class _Node:
    """The running node's store, as far as moving out asks."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._layout = args.layout

    async def read(self, request: Range) -> RangeResult:
        """A page."""
        from appliance.cli.client import call
        from appliance.store import RangeResult

        asked = {
            "key": _text(request.key), "range_end": _text(request.range_end or b""),
            "revision": request.revision, "limit": request.limit,
        }  # fmt: skip
        answer: dict[str, Any] = call(self._layout, "POST", "/v1/store/range", asked)
        kvs = tuple(_key_value(kv) for kv in answer["kvs"])
        return RangeResult(kvs, answer["more"], answer["count"], answer["revision"])


def _key_value(message: dict[str, Any]) -> Any:
    from appliance.store import KeyValue

    return KeyValue(
        base64.b64decode(message["key"]), base64.b64decode(message["value"]), message["create_revision"],
        message["mod_revision"], message["version"], message.get("lease", 0),
    )  # fmt: skip


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
