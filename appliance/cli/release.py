"""``appliance release``: keys, a repository of static files, channels. For the publisher, without a running node."""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.release import Expiry

_CHANNELS = ("alpha", "beta", "stable")
_EXAMPLES = """Examples:
  appliance release init ./repository --keys ./keys --root-keys 3 --threshold 2
  appliance release add ./repository --channel alpha ./dist/appliance
  appliance release publish ./repository --keys ./keys
  appliance release promote ./repository 1.4.0 alpha stable
  appliance release verify ./repository
  python3 -m http.server --directory ./repository        any web server, bucket or stick will do
Hosts trust what you copy to /etc/appliance/trust/root.json: ./repository/metadata/1.root.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, words: str, *, keys: bool = False) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = verbs.add_parser(name, help=words, description=words)
        one.add_argument("directory", metavar="DIR", help="the repository")
        if keys:
            one.add_argument("--keys", metavar="KEYDIR", required=True, help="directory of private keys (NAME.pem)")
        return one

    init = verb("init", "make keys and an empty, signed repository", keys=True)
    init.add_argument("--root-keys", type=int, default=3, metavar="N", help="how many root keys (3)")
    init.add_argument("--threshold", type=int, default=2, metavar="N", help="how many of them must sign (2)")
    _add_expiry(init)
    add = verb("add", "take a built binary in, to be published next")
    add.add_argument("file", metavar="FILE")
    add.add_argument("--channel", required=True, choices=_CHANNELS)
    add.add_argument("--architecture", default=os.uname().machine, help="of the binary (this host's)")
    add.add_argument("--release-version", default="", metavar="VERSION", help="when the file does not say it itself")
    add.add_argument("--floor", default="", metavar="VERSION", help="hosts must have passed this version first")
    add.add_argument("--notes", default="", help="what people should know")
    promote = verb("promote", "the same bytes for another channel, to be published next")
    promote.add_argument("version", metavar="VERSION")
    promote.add_argument("source", metavar="FROM", choices=_CHANNELS)
    promote.add_argument("target", metavar="TO", choices=_CHANNELS)
    publish = verb("publish", "sign and publish what was added; renew what expires", keys=True)
    _add_expiry(publish)
    key = verb("key", "show the keys of KEYDIR, or replace one", keys=True)
    key.add_argument("--rotate", metavar="NAME", help="replace this key by a new one and publish that")
    check = verb("verify", "check every signature and every byte as a host would")
    check.add_argument("--trust", metavar="FILE", help="the root to begin with (DIR/metadata/1.root.json)")
    verb("list", "what is published, and what is waiting")


def _add_expiry(parser: argparse.ArgumentParser) -> None:
    for role in ("root", "targets", "channel", "snapshot", "timestamp"):
        parser.add_argument(f"--{role}-expires", metavar="DURATION", help="for how long it is believed, such as 30d")


def run(args: argparse.Namespace) -> int:
    """Errors leave the repository as it was."""
    from appliance.cli.render import show

    args.directory = os.path.abspath(args.directory)
    data = {
        "init": _init, "add": _add, "promote": _promote, "publish": _publish, "key": _key, "verify": _verify,
        "list": _list,
    }[args.verb](args)  # fmt: skip
    show(args, data, _text)
    return 0


def _expiry(args: argparse.Namespace) -> Expiry:
    from appliance.release import Expiry
    from appliance.schema import parse_duration

    names = ("root", "targets", "channel", "snapshot", "timestamp")
    said = {name: getattr(args, f"{name}_expires") for name in names}
    return Expiry(**{name: parse_duration(value) for name, value in said.items() if value})


def _init(args: argparse.Namespace) -> dict[str, Any]:
    from appliance.release import KeyRing, create, listing, publish

    keys = KeyRing(os.path.abspath(args.keys))
    fresh = create(args.directory, keys, root_keys=args.root_keys, threshold=args.threshold)
    publish(args.directory, keys, expiry=_expiry(args), fresh=fresh)
    return {"trust_root": f"{args.directory}/metadata/1.root.json", "keys": keys.directory, **listing(args.directory)}


def _add(args: argparse.Namespace) -> dict[str, Any]:
    from appliance.release import stage_file

    release = stage_file(
        args.directory, os.path.abspath(args.file), channel=args.channel, architecture=args.architecture,
        version=args.release_version, floor=args.floor, notes=args.notes,
    )  # fmt: skip
    return {"staged": [vars(release)]}


def _promote(args: argparse.Namespace) -> dict[str, Any]:
    from appliance.release import stage_promotion

    return {"staged": [vars(one) for one in stage_promotion(args.directory, args.version, args.source, args.target)]}


def _publish(args: argparse.Namespace) -> dict[str, Any]:
    from appliance.release import KeyRing, listing, publish

    new = publish(args.directory, KeyRing(os.path.abspath(args.keys)), expiry=_expiry(args))
    return {"published": [vars(release) for release in new], **listing(args.directory)}


def _key(args: argparse.Namespace) -> dict[str, Any]:
    from appliance.release import KeyRing, listing, rotate

    keys = KeyRing(os.path.abspath(args.keys))
    if args.rotate:
        return {"rotated": args.rotate, "new_key": rotate(args.directory, keys, args.rotate), **listing(args.directory)}
    return {"key_files": [{"name": name, "id": keyid} for name, keyid in sorted((n, i) for i, n in keys.names.items())]}


def _verify(args: argparse.Namespace) -> dict[str, Any]:
    from appliance.release import verify

    trust = os.path.abspath(args.trust) if args.trust else f"{args.directory}/metadata/1.root.json"
    with tempfile.TemporaryDirectory() as scratch:
        return {"verified": verify(args.directory, trust_root=trust, scratch=scratch)}


def _list(args: argparse.Namespace) -> dict[str, Any]:
    from appliance.release import listing, staged_releases

    return {**listing(args.directory), "staged": [vars(one) for one in staged_releases(args.directory)]}


def _text(data: dict[str, Any]) -> str:
    from appliance.cli.render import size, table

    parts = []
    if "trust_root" in data:
        parts.append(
            f"repository ready; keys are in {data['keys']}: keep root keys and channel keys offline\n"
            f"hosts need {data['trust_root']} as /etc/appliance/trust/root.json"
        )
    if "rotated" in data:
        parts.append(f"key {data['rotated']} is replaced by {data['new_key']}; remove the old file")
    if "key_files" in data:
        parts.append(table(("key", "id"), [(one["name"], one["id"][:16]) for one in data["key_files"]]))
    for title in ("published", "staged", "verified", "releases"):
        rows = data.get(title)
        if rows is None:
            continue
        cells = [(one["channel"], one["version"], one["architecture"], size(one["length"])) for one in rows]
        heading = {"staged": "to be published next", "releases": "in the repository"}.get(title, title)
        parts.append(f"{heading}: " + (f"{len(rows)}\n{table(('channel', 'version', 'architecture', 'size'), cells)}"
                                       if rows else "nothing"))  # fmt: skip
    if "roles" in data:
        cells = [(one["role"], str(one["version"]), one["expires"], f"{one['threshold']} of {one['keys']}")
                 for one in data["roles"]]  # fmt: skip
        parts.append(table(("role", "version", "expires", "keys"), cells))
    return "\n\n".join(parts)
