"""``appliance install --to DISK``: our own OS onto a whole disk."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from appliance.cli.render import show
from appliance.errors import InputError
from appliance.machine import install, parts_of_image, parts_of_machine, read_boot_facts, read_files


def install_disk(args: argparse.Namespace) -> int:
    """Say each step on stderr; the result at the end. Raises our errors."""
    from appliance.host.disk_writing import TakenDisk

    provision = read_files(args.provision) if args.provision else {}
    _refuse_bad_settings(provision)
    if args.image:
        parts = parts_of_image(args.image)
    else:
        facts = read_boot_facts()
        if facts is None:
            raise InputError("cannot install: this machine does not run our own OS; name an image (--image FILE)")
        parts = parts_of_machine(facts)
    target = TakenDisk(args.to)
    try:
        if args.dry_run:
            print(f"# would write {', '.join(part.name for part in parts)} to {target.path}, {target.size >> 20} MiB")
            return 0
        done = install(
            parts, target, provision=provision, erase=args.erase,
            tell=lambda text: print(f"{text} ...", file=sys.stderr, flush=True),
        )  # fmt: skip
    finally:
        target.close()
    text = f"{done.disk} boots our own OS now: {done.bytes_written >> 20} MiB written and read back"
    if done.provisioned:
        text += f"; for its first boot: {', '.join(done.provisioned)}"
    show(args, asdict(done), lambda _: text)
    return 0


def _refuse_bad_settings(provision: dict[str, tuple[int, bytes]]) -> None:
    """A machine far away shall not find out at its first boot."""
    from appliance import settings

    for path, (_, data) in provision.items():
        if path == "appliance.toml" or (path.startswith("appliance.d/") and path.endswith(".toml")):
            try:
                findings = settings.check(data.decode(), path)
            except UnicodeDecodeError as error:
                raise InputError(f"cannot provision: {path} is no text: {error}") from error
            if any(one.severity == "error" for one in findings):
                raise InputError("cannot provision:\n" + "\n".join(map(str, findings)))
