"""``appliance store``: keys of the node's store; transactions, leases, compaction, backup. Each verb asks the node."""

from __future__ import annotations

import argparse
from typing import Any

from appliance.cli import store_files, store_keys, store_migrate
from appliance.cli.parser import a_number

_VERBS = {
    "get": "print keys and values",
    "put": "write a key; the value may come from standard input (-)",
    "del": "delete keys; prints how many there were",
    "watch": "print changes as they become durable, until interrupted",
    "txn": "compare, then one of two lists of operations, all at one revision",
    "lease": "leases: keys that go when nobody keeps them alive",
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
  appliance store del greeting
  appliance store del --prefix /app/
  appliance store watch --prefix /app/
  appliance store compact 1200
  appliance store backup /mnt/usb/node.backup
  appliance store restore /mnt/usb/node.backup --replace
  appliance store restore etcd-snapshot.db
  appliance store migrate https://10.0.0.1:2379 --ca-file ca.pem
  appliance store check"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    made = {name: verbs.add_parser(name, help=words, description=words) for name, words in _VERBS.items()}
    store_keys.add_get(made["get"])
    store_keys.add_put(made["put"])
    store_keys.add_del(made["del"])
    store_keys.add_range(made["watch"])
    made["watch"].add_argument("--prev", action="store_true", help="also what was there before")
    made["watch"].add_argument("--rev", type=a_number, default=0, metavar="N", help="from this revision on")
    made["compact"].add_argument("revision", type=a_number, metavar="REVISION")
    store_files.add_arguments(made["backup"], made["restore"], made["check"])
    store_migrate.add_arguments(made["migrate"])
    from appliance.cli import store_lease, store_txn

    store_txn.add_arguments(made["txn"])
    store_lease.add_arguments(made["lease"])


def run(args: argparse.Namespace) -> int:
    """``status`` when no verb is given."""
    from appliance.cli import store_lease, store_txn

    acts = {
        "get": _get, "put": _put, "del": _delete, "watch": _watch, "txn": store_txn.run, "lease": store_lease.run,
        "status": _status, "compact": _compact, "backup": store_files.backup, "restore": store_files.restore,
        "check": store_files.check, "migrate": store_migrate.run,
    }  # fmt: skip
    return acts[args.verb or "status"](args)


def _call(args: argparse.Namespace, verb: str, body: dict[str, Any]) -> Any:
    from appliance.cli.client import call

    return call(args.layout, "POST", f"/v1/store/{verb}", body)


def _get(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    answer = _call(args, "range", store_keys.get_asked(args))
    if args.output == "json":
        show(args, answer, str)
    else:
        store_keys.print_got(answer, args)
    return 0 if answer["count"] or args.count else 4


def _put(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    answer = _call(args, "put", store_keys.put_asked(args))
    if args.output == "json":
        show(args, answer, str)
        return 0
    print(f"revision {answer['revision']}")
    if answer["prev"]:
        store_keys.print_bytes(store_keys.bytes_of(answer["prev"]["value"]))
    return 0


def _delete(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    answer = _call(args, "delete", store_keys.del_asked(args))
    if args.output == "json":
        show(args, answer, str)
    else:
        store_keys.print_deleted(answer)
    return 0


def _watch(args: argparse.Namespace) -> int:
    import json
    from urllib.parse import urlencode

    from appliance.cli.client import stream

    asked = {**store_keys.range_asked(args), "start_revision": args.rev, "prev_kv": "1" if args.prev else "0"}
    for line in stream(args.layout, f"/v1/store/watch?{urlencode(asked)}"):
        if args.output == "json":
            store_keys.print_bytes(line)
            continue
        for event in json.loads(line)["events"]:
            print(f"{event['type'].upper()} (revision {event['kv']['mod_revision']})")
            if event.get("prev_kv"):
                store_keys.print_pair(event["prev_kv"])
            store_keys.print_pair(event["kv"])
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
    from appliance.cli.render import show

    answer = _call(args, "compact", {"revision": args.revision})
    show(args, answer, lambda _: f"kept from revision {args.revision} on")
    return 0
