"""``appliance release``: keys, a repository of static files, channels. For the publisher, without a running node."""

from __future__ import annotations

import argparse
import os

from appliance.cli.parser import a_duration, a_number

_CHANNELS = ("alpha", "beta", "stable")
_ROLES = ("root", "targets", *_CHANNELS, "snapshot", "timestamp")
_EXAMPLES = """Examples:
  appliance release init ./repository --keys ./keys --root-keys 3 --threshold 2
  appliance release add ./repository --channel alpha ./dist/appliance
  appliance release publish ./repository --keys ./keys
  appliance release promote ./repository 1.4.0 alpha stable
  appliance release waves ./repository stable 1.4.0 --over 6d --keys ./keys
  appliance release pause ./repository stable --why "fans stop" --keys ./keys
  appliance release resume ./repository stable --keys ./keys
  appliance release yank ./repository stable 1.4.0 --why "eats disks" --keys ./keys
  appliance release dead-end ./repository stable 1.2.0 --why "install anew" --keys ./keys
  appliance release barrier ./repository stable 1.3.0 --keys ./keys
  appliance release floor ./repository stable 1.4.0 1.2.0 --keys ./keys
  appliance release minimum ./repository stable 1.3.1 --keys ./keys
  appliance release prune ./repository --keep 3 --keys ./keys
  appliance release export ./repository repository.tar
  appliance release list ./repository
  appliance release key list ./repository --keys ./keys
  appliance release key add ./repository timestamp --keys ./keys
  appliance release key rotate ./repository stable --keys ./keys
  appliance release key revoke ./repository stable 5ba9 --keys ./keys
  appliance release verify ./repository
  appliance release refresh ./repository --keys ./online-keys      in cron, so that nothing expires
  python3 -m http.server --directory ./repository        any web server, bucket or stick will do
Hosts trust what you copy to /etc/appliance/trust/root.json: ./repository/metadata/1.root.json
A passphrase of keys comes from APPLIANCE_KEY_PASSPHRASE, --passphrase-file, or the terminal.
A repository that is not named is $APPLIANCE_REPOSITORY, or the working directory."""
_CEREMONY = """The root keys never meet the repository:
  appliance release root export-payload ./repository --out root.json --add root=new.pub --revoke root=5ba9
  appliance release root sign root.json --keys /media/stick        on each holder's machine, no network needed
  appliance release root import ./repository root.json --keys ./online-keys"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    init = _verb(verbs, "init", "make keys and an empty, signed repository", signs=True)
    init.add_argument("--root-keys", type=a_number, default=3, metavar="N", help="how many root keys (3)")
    init.add_argument("--threshold", type=a_number, default=2, metavar="N", help="how many of them must sign (2)")
    init.add_argument("--passphrase", action="store_true", help="keep the new keys under a passphrase")
    add = _verb(verbs, "add", "take a built binary in, to be published next", named=True)
    add.add_argument("file", metavar="FILE")
    add.add_argument("--channel", required=True, choices=_CHANNELS)
    add.add_argument("--architecture", default=os.uname().machine, help="of the binary (this host's)")
    add.add_argument("--release-version", default="", metavar="VERSION", help="when the file does not say it itself")
    add.add_argument("--floor", default="", metavar="VERSION", help="hosts must have passed this version first")
    add.add_argument("--barrier", action="store_true", help="every older host must run this before a newer one")
    add.add_argument("--notes", default="", help="what people should know")
    add.add_argument("--packed", action="store_true", help="serve it in compressed chunks (a binary is compressed)")
    add.add_argument("--kind", default="binary", choices=("binary", "os", "bundle"), help="what FILE is (binary)")
    _add_product(add)
    _add_waves(add)
    promote = _verb(verbs, "promote", "the same bytes for another channel, to be published next")
    promote.add_argument("version", metavar="VERSION")
    promote.add_argument("source", metavar="FROM", choices=_CHANNELS)
    promote.add_argument("target", metavar="TO", choices=_CHANNELS)
    _add_waves(promote)
    _add_product(promote)
    _verb(verbs, "publish", "sign and publish what was added; renew what expires", signs=True)
    refresh = _verb(verbs, "refresh", "sign timestamp and snapshot anew, and what else expires soon", signs=True)
    refresh.add_argument("--within", type=a_duration, default="30d", metavar="DURATION", help="how soon is soon (30d)")
    _add_rules(verbs)
    _add_keys(verbs)
    check = _verb(verbs, "verify", "check every signature and every byte as a host would", dry=False)
    check.add_argument("--trust", metavar="FILE", help="the root to begin with (DIR/metadata/1.root.json)")
    check.add_argument("--as-host", action="store_true", help="show the way that a host on each version goes, too")
    prune = _verb(verbs, "prune", "remove withdrawn releases and files that nothing names", signs=True)
    prune.add_argument("--keep", type=a_number, default=0, metavar="N", help="and all but the newest N of each channel")
    prune.add_argument(
        "--grace", type=a_duration, default="1d", metavar="DURATION", help="for which old metadata stays (1d)"
    )
    export = _verb(verbs, "export", "the repository as one file, for hosts without a network", named=True)
    export.add_argument("file", metavar="FILE", help="what to write; hosts: appliance update apply --from FILE")
    export.add_argument("--channel", action="append", default=[], choices=_CHANNELS, help="only this one (repeatable)")
    export.add_argument("--all", action="store_true", help="every release, not only each channel's newest")
    _verb(verbs, "list", "what is published, with its rules, and what is waiting", dry=False)


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    words: str,
    *,
    signs: bool = False,
    named: bool = False,
    dry: bool = True,
    directory: bool = True,
) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = verbs.add_parser(name, help=words, description=words)
    if directory:
        here = os.environ.get("APPLIANCE_REPOSITORY", ".")
        one.add_argument(
            "directory", metavar="DIR", help="the repository", default=None if named else here,
            **({} if named else {"nargs": "?"}),  # type: ignore[arg-type]
        )  # fmt: skip
    if signs:
        one.add_argument("--keys", metavar="KEYDIR", required=True, help="directory of keys (NAME.pem, NAME.signer)")
        one.add_argument("--passphrase-file", metavar="FILE", help="its first line opens keys with a passphrase")
        for role in ("root", "targets", "channel", "snapshot", "timestamp"):
            one.add_argument(f"--{role}-expires", metavar="DURATION", help="for how long it is believed, such as 30d")
    if dry:
        one.add_argument("--dry-run", action="store_true", help="check everything, change nothing")
    return one


def _add_product(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--product", default="appliance", metavar="NAME", help="of which product (appliance)")


def _add_waves(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wave", action="append", default=[], metavar="START=FRACTION",
        help="from START (a time, now, +4h) on for that part of all hosts (0.05 or 5%%); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--over", type=a_duration, metavar="DURATION", help="waves of 1, 5, 10, 25, 50 and 100 %% over that time"
    )


def _add_rules(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, words in (("pause", "let nobody take it until resume"), ("resume", "end a pause")):
        one = _verb(verbs, name, words, signs=True, named=True)
        one.add_argument("channel", metavar="CHANNEL", choices=_CHANNELS)
        one.add_argument("version", metavar="VERSION", nargs="?", default="", help="this release only")
        _add_product(one)
        if name == "pause":
            one.add_argument("--why", default="", help="shown on every host")
    waves = _verb(verbs, "waves", "which part of all hosts may take a release, and when", signs=True, named=True)
    waves.add_argument("channel", metavar="CHANNEL", choices=_CHANNELS)
    waves.add_argument("version", metavar="VERSION")
    waves.add_argument("--all", action="store_true", help="no waves: for everybody at once")
    waves.add_argument("--anew", action="store_true", help="begin again: who has not taken it yet waits again")
    _add_waves(waves)
    _add_product(waves)
    for name, words, undo in (
        ("yank", "withdraw a release: nobody takes it any more", "offer it again"),
        ("dead-end", "no update leads on from that version: show a message instead", "open the way again"),
        ("barrier", "every older host must run this version before a newer one", "no barrier any more"),
    ):
        one = _verb(verbs, name, words, signs=True, named=True)
        one.add_argument("channel", metavar="CHANNEL", choices=_CHANNELS)
        one.add_argument("version", metavar="VERSION")
        one.add_argument("--undo", action="store_true", help=undo)
        _add_product(one)
        if name != "barrier":
            one.add_argument("--why", default="", help="shown on every host that it touches")
    floor = _verb(verbs, "floor", "hosts must have passed FLOOR before they take a release", signs=True, named=True)
    floor.add_argument("channel", metavar="CHANNEL", choices=_CHANNELS)
    floor.add_argument("version", metavar="VERSION")
    floor.add_argument("floor", metavar="FLOOR", help="a version, or none")
    _add_product(floor)
    least = _verb(verbs, "minimum", "no host takes anything older than that, asked or not", signs=True, named=True)
    least.add_argument("channel", metavar="CHANNEL", choices=_CHANNELS)
    least.add_argument("version", metavar="VERSION", help="a version, or none")
    _add_product(least)


def _add_keys(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    words = "list, add, rotate, revoke keys"
    actions = verbs.add_parser("key", help=words, description=words).add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    show = _verb(actions, "list", "who signs what, and which of it is here", dry=False)
    show.add_argument("--keys", metavar="KEYDIR", help="directory of keys")
    show.add_argument("--passphrase-file", metavar="FILE", help=argparse.SUPPRESS)
    add = _verb(actions, "add", "one more key for a role", signs=True, named=True)
    add.add_argument("role", metavar="ROLE", choices=_ROLES)
    add.add_argument("--name", default="", help="of its file")
    add.add_argument("--signer", default="", metavar="COMMAND", help="signs what it reads; needs --public")
    add.add_argument("--public", default="", metavar="FILE", help="the public key: PEM, or a .pub of ssh-keygen")
    add.add_argument("--ssh-agent", default="", metavar="FILE", help="a .pub of ssh-keygen whose key the agent holds")
    add.add_argument("--threshold", type=a_number, default=0, metavar="N", help="how many of the role's keys must sign")
    add.add_argument("--passphrase", action="store_true", help="keep the new key under a passphrase")
    rotate = _verb(actions, "rotate", "replace a key by a new one", signs=True, named=True)
    rotate.add_argument("name", metavar="NAME")
    rotate.add_argument("--passphrase", action="store_true", help="keep the new key under a passphrase")
    revoke = _verb(actions, "revoke", "take a key from a role", signs=True, named=True)
    revoke.add_argument("role", metavar="ROLE", choices=_ROLES)
    revoke.add_argument("name", metavar="KEY", help="the name of its file, its id, or the start of that")
    revoke.add_argument(
        "--threshold", type=a_number, default=0, metavar="N", help="how many of the role's keys must sign"
    )
    words = "a new root whose keys are offline"
    root = verbs.add_parser("root", help=words, description=words, epilog=_CEREMONY)
    root.formatter_class = argparse.RawDescriptionHelpFormatter
    steps = root.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = _verb(steps, "export-payload", "write the next root, to be signed", named=True)
    export.add_argument("--out", required=True, metavar="FILE")
    export.add_argument("--add", action="append", default=[], metavar="ROLE=FILE", help="a public key for that role")
    export.add_argument("--revoke", action="append", default=[], metavar="ROLE=KEYID", help="take a key from that role")
    export.add_argument("--threshold", action="append", default=[], metavar="ROLE=N")
    export.add_argument("--root-expires", metavar="DURATION", help="for how long it is believed (365d)")
    sign = _verb(steps, "sign", "add the signatures of the root keys that are here", directory=False)
    sign.add_argument("payload", metavar="FILE")
    sign.add_argument("--keys", metavar="KEYDIR", required=True, help="directory of keys")
    sign.add_argument("--key", action="append", default=[], metavar="NAME", help="only this one")
    sign.add_argument("--passphrase-file", metavar="FILE", help="its first line opens keys with a passphrase")
    take = _verb(steps, "import", "publish a root that enough holders signed", signs=True, named=True)
    take.add_argument("payload", metavar="FILE", nargs="+")


def run(args: argparse.Namespace) -> int:
    """Errors leave the repository as it was."""
    from appliance.cli.release_text import text
    from appliance.cli.release_verbs import do
    from appliance.cli.render import show

    if hasattr(args, "directory"):
        args.directory = os.path.abspath(args.directory)
    show(args, do(args), text)
    return 0
