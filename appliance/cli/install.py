"""``appliance install``: start at boot, as a service of this host's init."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
from dataclasses import asdict

from appliance.cli.render import show
from appliance.cli.service_file import Plan, init_of_this_host, is_at_work, own_command, plan_install
from appliance.errors import ApplianceError, InputError, UnavailableError, UntrustedError
from appliance.host import files

INITS = ("systemd", "openrc", "busybox", "sysv", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own options; uninstall has the same."""
    parser.epilog = (
        "Examples:\n  appliance install --dry-run\n  appliance install --root /srv/a --name a\n"
        "  appliance install --to /dev/nvme0n1 --image appliance-1.2.3.img --provision node7/"
    )
    add_shared_arguments(parser)
    whole = parser.add_argument_group("our own OS, onto a whole disk")
    whole.add_argument("--to", metavar="DISK", help="write it there, read it back; unbootable until all is right")
    whole.add_argument("--image", metavar="FILE", help="this one (default: what this machine runs)")
    provision = "appliance.toml, or a directory as /etc/appliance: for its first boot"
    whole.add_argument("--provision", metavar="PLACE", help=provision)
    whole.add_argument("--erase", action="store_true", help="give up what the disk holds")


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that install and uninstall have in common."""
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    parser.add_argument("--name", default="appliance", help="of the service (default: appliance)")
    parser.add_argument("--init", choices=INITS, default=init_of_this_host(), help="default here: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Do it, or print it."""
    if args.to:
        from appliance.cli.install_disk import install_disk

        return install_disk(args)
    if args.image or args.provision or args.erase:
        raise InputError("cannot install: --image, --provision and --erase go with --to DISK")
    command = [*own_command(), "run"]
    if args.layout.root != "/":
        command += ["--root", args.layout.root]
    if args.config:
        command += ["--config", args.config]
    plan = plan_install(args.init, command, service_name(args), at_work=args.dry_run or is_at_work(args.init))
    return carry_out(args, plan, "install")


def service_name(args: argparse.Namespace) -> str:
    """A name that every init takes. Raises InputError."""
    name = str(args.name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", name):
        raise InputError(f'cannot name the service "{name}": letters, digits, ".", "_", "-" only')
    return name


def carry_out(args: argparse.Namespace, plan: Plan, verb: str) -> int:
    """Write, remove and call, in that order, saying each step. Raises the first error."""
    if args.dry_run and args.output == "json":
        show(args, asdict(plan), lambda data: "")
        return 0
    if plan.by_hand:
        print(plan.by_hand)
        return 0 if args.dry_run else 1
    if args.dry_run:
        for path, text, mode in plan.files:
            print(f"# would write {path} (mode {mode:o}):\n{text}")
    elif os.geteuid() != 0:
        raise UntrustedError(f"cannot {verb} as a service of {plan.init}: this needs root")
    else:
        for path, text, mode in plan.files:
            files.write_atomic(path, text.encode(), mode=mode)
            print(f"wrote {path}")
    for command in plan.commands:
        _call(command, dry_run=args.dry_run)
    for path in plan.remove:
        print(f"# would remove {path}" if args.dry_run else f"removed {path}")
        if not args.dry_run:
            files.remove(path)
    for command in plan.commands_after:
        _call(command, dry_run=args.dry_run)
    return 0


def _call(command: tuple[str, ...], *, dry_run: bool) -> None:
    print(f"# would run: {shlex.join(command)}" if dry_run else shlex.join(command), flush=True)
    if dry_run:
        return
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as error:
        raise _not_called(command, error.strerror or str(error)) from error
    if code:
        raise _not_called(command, f"exit code {code}")


def _not_called(command: tuple[str, ...], cause: str) -> ApplianceError:
    return UnavailableError(f"cannot run `{shlex.join(command)}`: {cause}")
