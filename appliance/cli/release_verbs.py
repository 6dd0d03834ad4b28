"""What each verb of ``appliance release`` does; the answer is plain values."""

from __future__ import annotations

import argparse
import contextlib
import functools
import getpass
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from appliance import release
from appliance.errors import InputError
from appliance.schema import parse_duration

_PASSPHRASE = "APPLIANCE_KEY_PASSPHRASE"


def do(args: argparse.Namespace) -> dict[str, Any]:
    """The verb's answer. Raises what the room raises."""
    data = {
        "init": _init, "add": _add, "promote": _promote, "publish": _publish, "refresh": _refresh, "key": _key,
        "root": _root, "verify": _verify, "prune": _prune, "list": _list,
        "export": _export,
    }.get(args.verb, _rule)(args)  # fmt: skip
    return {**data, **({"dry_run": True} if getattr(args, "dry_run", False) else {})}


def _ring(args: argparse.Namespace) -> release.KeyRing:
    ask = functools.partial(_passphrase, args.passphrase_file)
    new = b""
    if getattr(args, "passphrase", False):
        new = ask("the new keys") or b""
        if not new:
            raise InputError(f"cannot make keys with a passphrase: there is none ({_PASSPHRASE}, --passphrase-file)")
    return release.KeyRing(os.path.abspath(args.keys), passphrase=functools.cache(ask), new_passphrase=new)


def _passphrase(file: str | None, name: str) -> bytes | None:
    """From the file, the environment, or whoever sits at the terminal."""
    if file:
        try:
            with open(file, "rb") as source:
                return source.readline().rstrip(b"\r\n")
        except OSError as exc:
            raise InputError(f"cannot read {file}: {exc.strerror}", where=file) from exc
    if said := os.environ.get(_PASSPHRASE):
        return said.encode()
    if sys.stdin.isatty():
        return getpass.getpass(f"Passphrase of {name}: ").encode()
    return None


def _expiry(args: argparse.Namespace) -> release.Expiry:
    names = ("root", "targets", "channel", "snapshot", "timestamp")
    said = {name: getattr(args, f"{name}_expires", None) for name in names}
    found = {name: parse_duration(value) for name, value in said.items() if value}
    for name, seconds in found.items():
        if seconds <= 0:
            raise InputError(f"cannot use --{name}-expires: it must be above 0")
    return release.Expiry(**found)


def _waves(args: argparse.Namespace) -> tuple[Any, ...]:
    over = parse_duration(args.over) if args.over else 0.0
    return release.read_waves(args.wave, over, release.publishing_time())


def _init(args: argparse.Namespace) -> dict[str, Any]:
    keys = _ring(args)
    before = set(keys.names.values())
    with _rehearsed(args, keys) as (directory, ring):
        fresh = release.create(args.directory, ring, root_keys=args.root_keys, threshold=args.threshold)
        fresh.directory = directory
        release.publish(directory, ring, expiry=_expiry(args), fresh=fresh)
        listing = {**release.listing(directory), "directory": args.directory}
        made = sorted(set(ring.names.values()) - before)
    trust_root = f"{args.directory}/metadata/1.root.json"
    return {"trust_root": trust_root, "keys": keys.directory, "made_keys": made, **listing}


@contextlib.contextmanager
def _rehearsed(args: argparse.Namespace, keys: release.KeyRing) -> Iterator[tuple[str, release.KeyRing]]:
    """The repository and its keys; for a dry run others, with copies of the keys, that are gone after it."""
    if not args.dry_run:
        yield args.directory, keys
        return
    for wanted in (args.directory, keys.directory):
        there = os.path.abspath(wanted)
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        if not os.path.isdir(there) or not os.access(there, os.W_OK):
            raise InputError(f"cannot make {wanted}: {there} is no directory that can be written to", where=there)
    with tempfile.TemporaryDirectory() as scratch:
        if os.path.isdir(keys.directory):
            shutil.copytree(keys.directory, f"{scratch}/keys")
        yield f"{scratch}/repository", keys.at(f"{scratch}/keys")


def _add(args: argparse.Namespace) -> dict[str, Any]:
    from appliance.update import waves_to_json

    waves = waves_to_json(_waves(args))
    rules = {**({"waves": waves} if waves else {}), **({"barrier": True} if args.barrier else {})}
    file = os.path.abspath(args.file)
    if args.kind == "bundle":
        with _packed_tree(args.directory, file) as archive:
            return _stage(args, archive, rules)
    return _stage(args, file, rules)


@contextlib.contextmanager
def _packed_tree(repository: str, directory: str) -> Iterator[str]:
    """The tree as one file, for as long as the block lasts."""
    from appliance.host import files, trees

    if not os.path.isdir(directory):
        raise InputError(f"cannot add {directory}: a bundle is added from its directory", where=directory)
    release.load(repository)
    archive = f"{repository}/.bundle-{os.getpid()}"
    try:
        trees.write_tree(directory, archive)
        yield archive
    finally:
        files.remove(archive)


def _stage(args: argparse.Namespace, file: str, rules: dict[str, Any]) -> dict[str, Any]:
    from appliance.update import Product

    added = release.stage_file(
        args.directory, file, channel=args.channel, architecture=args.architecture,
        version=args.release_version, floor=args.floor, notes=args.notes, rules=rules, dry_run=args.dry_run,
        packed=args.packed, product=Product(args.product, args.kind),
    )  # fmt: skip
    return {"staged": [vars(added)]}


def _promote(args: argparse.Namespace) -> dict[str, Any]:
    from appliance.update import waves_to_json

    staged = release.stage_promotion(
        args.directory, args.version, args.source, args.target, waves=waves_to_json(_waves(args)), dry_run=args.dry_run,
        product=args.product,
    )  # fmt: skip
    return {"staged": [vars(one) for one in staged]}


def _publish(args: argparse.Namespace) -> dict[str, Any]:
    new = release.publish(args.directory, _ring(args), expiry=_expiry(args), dry_run=args.dry_run)
    return {"published": [vars(one) for one in new], **release.listing(args.directory)}


def _refresh(args: argparse.Namespace) -> dict[str, Any]:
    within = parse_duration(args.within)
    done = release.refresh(args.directory, _ring(args), expiry=_expiry(args), within=within, dry_run=args.dry_run)
    return {"signed": done, **release.outlook(args.directory)}


def _rule(args: argparse.Namespace) -> dict[str, Any]:
    """pause, resume, waves, yank, dead-end, barrier, floor, minimum."""
    version = "" if getattr(args, "version", "") == "none" else args.version
    why = getattr(args, "why", "")
    if args.verb in ("yank", "dead-end") and bool(why) == args.undo:
        raise InputError(f"cannot {args.verb} {version}: say --why, or --undo")
    if args.verb == "waves" and args.all == bool(args.wave or args.over):
        raise InputError(f"cannot set waves of {version}: say --wave, --over, or --all")
    makers: dict[str, Callable[[], Any]] = {
        "pause": lambda: release.pause(args.channel, version, why, args.product),
        "resume": lambda: release.resume(args.channel, version, args.product),
        "waves": lambda: release.set_waves(
            args.channel, version, _waves(args), release.publishing_time(), args.product, anew=args.anew
        ),
        "yank": lambda: release.yank(args.channel, version, why, args.product),
        "dead-end": lambda: release.dead_end(args.channel, version, why, args.product),
        "barrier": lambda: release.barrier(args.channel, version, args.product, on=not args.undo),
        "floor": lambda: release.floor(args.channel, version, "" if args.floor == "none" else args.floor, args.product),
        "minimum": lambda: release.minimum(args.channel, version, args.product),
    }
    release.change(args.directory, _ring(args), makers[args.verb](), expiry=_expiry(args), dry_run=args.dry_run)
    return {"changed": {"rule": args.verb, "channel": args.channel, "version": version}, **_list(args)}


def _key(args: argparse.Namespace) -> dict[str, Any]:
    if args.action == "list":
        keys = _ring(args) if args.keys else None
        return {"key_roles": release.roles_of(release.load(args.directory), keys)}
    keys, expiry = _ring(args), _expiry(args)
    said: dict[str, Any]
    if args.action == "rotate":
        said = {"rotated": args.name}
        said["new_key"] = release.rotate(args.directory, keys, args.name, expiry=expiry, dry_run=args.dry_run)
    elif args.action == "revoke":
        taken = release.revoke_role_key(
            args.directory, keys, args.role, args.name, threshold=args.threshold, expiry=expiry, dry_run=args.dry_run
        )
        said = {"revoked": taken, "role": args.role}
    else:
        name = args.name or _free_name(args.role, keys)
        release.add_role_key(
            args.directory, keys, args.role, name, _maker(args, keys, name),
            threshold=args.threshold, expiry=expiry, dry_run=args.dry_run,
        )  # fmt: skip
        said = {"added": name, "role": args.role}
    return {**said, "key_roles": release.roles_of(release.load(args.directory), keys)}


def _free_name(role: str, keys: release.KeyRing) -> str:
    taken = set(keys.names.values())
    number = 2
    while f"{role}_{number}" in taken:
        number += 1
    return f"{role}_{number}"


def _maker(args: argparse.Namespace, keys: release.KeyRing, name: str) -> Callable[[], Any]:
    file = args.ssh_agent or args.public
    if bool(args.signer) != bool(args.public) or (args.ssh_agent and args.signer):
        raise InputError("cannot add a key: say --signer with --public, or --ssh-agent, or none of them for a new key")
    if not file:
        return lambda: keys.make(name)
    try:
        with open(file, "rb") as source:
            public = source.read(1 << 16)
    except OSError as exc:
        raise InputError(f"cannot read {file}: {exc.strerror}", where=file) from exc
    return lambda: keys.connect(name, public, command=args.signer, agent=bool(args.ssh_agent))


def _root(args: argparse.Namespace) -> dict[str, Any]:
    if args.action == "export-payload":
        thresholds = {role: _number(value) for role, value in _pairs(args.threshold)}
        return {"root_payload": release.export_payload(
            args.directory, os.path.abspath(args.out), add=_pairs(args.add), revoke=_pairs(args.revoke),
            thresholds=thresholds, expiry=_expiry(args), dry_run=args.dry_run,
        )}  # fmt: skip
    if args.action == "sign":
        payload = os.path.abspath(args.payload)
        return {"root_signed": release.sign_payload(payload, _ring(args), args.key, dry_run=args.dry_run)}
    payloads = [os.path.abspath(path) for path in args.payload]
    done = release.import_payload(
        args.directory, payloads, _ring(args), expiry=_expiry(args), dry_run=args.dry_run
    )  # fmt: skip
    return {"imported": done, **release.listing(args.directory)}


def _pairs(said: list[str]) -> list[tuple[str, str]]:
    found = [one.partition("=") for one in said]
    for name, equals, value in found:
        if not equals or not value:
            raise InputError(f"cannot read {name!r}: it must look like ROLE=VALUE")
    return [(name, value) for name, _, value in found]


def _number(text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"cannot read threshold {text!r}: it must be a number")
    return int(text)


def _export(args: argparse.Namespace) -> dict[str, Any]:
    out = os.path.abspath(args.file)
    return release.export(args.directory, out, channels=args.channel, everything=args.all, dry_run=args.dry_run)


def _verify(args: argparse.Namespace) -> dict[str, Any]:
    trust = os.path.abspath(args.trust) if args.trust else f"{args.directory}/metadata/1.root.json"
    with tempfile.TemporaryDirectory() as scratch:
        verified = release.verify(args.directory, trust_root=trust, scratch=scratch)
    outlook = release.outlook(args.directory)
    if not args.as_host:
        del outlook["ways"]
    return {"verified": verified, **outlook}


def _prune(args: argparse.Namespace) -> dict[str, Any]:
    return release.prune(
        args.directory, _ring(args), keep=args.keep, grace=parse_duration(args.grace), expiry=_expiry(args),
        dry_run=args.dry_run,
    )  # fmt: skip


def _list(args: argparse.Namespace) -> dict[str, Any]:
    staged = [vars(one) for one in release.staged_releases(args.directory)]
    return {**release.listing(args.directory), "staged": staged}
