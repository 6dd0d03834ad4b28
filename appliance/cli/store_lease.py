"""``appliance store lease``: by etcd's own API on its socket, where leases are at home."""

from __future__ import annotations

import argparse
import time
from typing import Any

from appliance.cli.store_keys import bytes_of, lease_id, print_bytes
from appliance.errors import NotFoundError

_VERBS = {
    "grant": "a new lease; prints its ID",
    "revoke": "end leases, and delete their keys",
    "keep-alive": "renew a lease, again and again until interrupted",
    "timetolive": "how long a lease has left",
    "list": "every lease there is",
}
_EXAMPLES = """Examples:
  appliance store lease grant 60s
  appliance store put session me --lease 694d77aa9e38260f
  appliance store lease keep-alive 694d77aa9e38260f
  appliance store lease timetolive --keys 694d77aa9e38260f
  appliance store lease revoke 694d77aa9e38260f
  appliance store lease list"""
_PER_LIFE = 3  # renewals: two may be lost


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="act", metavar="ACTION")
    made = {name: verbs.add_parser(name, help=words, description=words) for name, words in _VERBS.items()}
    made["grant"].add_argument("ttl", type=a_ttl, metavar="TTL", help="seconds, or a duration such as 5m")
    made["revoke"].add_argument("ids", nargs="+", metavar="ID")
    made["keep-alive"].add_argument("id", metavar="ID")
    made["keep-alive"].add_argument("--once", action="store_true", help="only once")
    made["timetolive"].add_argument("id", metavar="ID")
    made["timetolive"].add_argument("--keys", action="store_true", help="and which keys it holds")


def run(args: argparse.Namespace) -> int:
    """``list`` when nothing is said."""
    acts = {
        "grant": _grant, "revoke": _revoke, "keep-alive": _keep_alive, "timetolive": _time_to_live, "list": _list,
    }  # fmt: skip
    return acts[args.act or "list"](args)


def a_ttl(text: str) -> int:
    """For ``type=``: whole seconds, at least one."""
    from appliance.cli.parser import a_duration, a_number
    from appliance.schema import parse_duration

    seconds = a_number(text) if text.isdecimal() else int(parse_duration(a_duration(text)))
    if seconds < 1:
        raise argparse.ArgumentTypeError(f'found "{text}", expected at least a second')
    return seconds


def _call(args: argparse.Namespace, act: str, body: dict[str, Any]) -> Any:
    from appliance.cli.client import call

    return call(args.layout, "POST", f"/v3/lease/{act}", body, socket_path=args.layout.etcd_socket)


def _shown(number: str | int) -> str:
    return f"{int(number):x}"


def _grant(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    answer = _call(args, "grant", {"TTL": args.ttl})
    lease = {"id": _shown(answer["ID"]), "ttl_seconds": int(answer["TTL"])}
    show(args, lease, lambda _: f"{lease['id']} for {lease['ttl_seconds']} s")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    ids = [lease_id(one) for one in args.ids]
    for one in ids:
        _call(args, "revoke", {"ID": str(one)})
    show(args, {"revoked": [_shown(one) for one in ids]}, lambda _: "\n".join(f"{one:x} revoked" for one in ids))
    return 0


def _keep_alive(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    number = lease_id(args.id)
    while True:
        seconds = int(_call(args, "keepalive", {"ID": str(number)})["result"].get("TTL", 0))
        if seconds <= 0:
            raise NotFoundError(f"cannot keep lease {number:x} alive: it has ended, or never was")
        show(
            args,
            {"id": _shown(number), "ttl_seconds": seconds},
            lambda said: f"{said['id']} for {said['ttl_seconds']} s",
        )
        if args.once:
            return 0
        time.sleep(seconds / _PER_LIFE)


def _time_to_live(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    number = lease_id(args.id)
    answer = _call(args, "timetolive", {"ID": str(number), "keys": args.keys})
    if int(answer["TTL"]) < 0:
        raise NotFoundError(f"cannot find lease {number:x}: it has ended, or never was")
    keys = answer.get("keys", [])
    lease = {
        "id": _shown(number), "ttl_seconds": int(answer["TTL"]), "granted_seconds": int(answer.get("grantedTTL", 0)),
        **({"keys": keys} if args.keys else {}),
    }  # fmt: skip
    if args.output == "json":
        show(args, lease, str)
        return 0
    print(f"{lease['id']} for {lease['ttl_seconds']} s more, of {lease['granted_seconds']}")
    for key in keys:
        print_bytes(bytes_of(key))
    return 0


def _list(args: argparse.Namespace) -> int:
    from appliance.cli.render import show

    found = [_shown(one["ID"]) for one in _call(args, "leases", {}).get("leases", [])]
    show(args, {"leases": found}, lambda _: "\n".join(found) or "no leases")
    return 0
