"""Machines for tests: one image for the whole run, copies of it with files of their own, with or without the loader."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.host import block_devices
from tests.boot.versions import BINARY, STAGED, Image
from tests.boot.vm import VM

WATCHDOG = ("-device", "i6300esb", "-action", "watchdog=reset")
BUSYBOX = "/var/lib/test/busybox"
TOKEN = "a-secret-of-the-tests"
SETTINGS = """\
[status]
listen = "0.0.0.0:7780"
token_file = "/etc/appliance/token"
"""


def build_image(out: Path, version: str = "1.0.0") -> Image:
    """From dist/appliance, as `./build.sh image` does."""
    from image.build import build_parts  # type: ignore[import-not-found]
    from image.disk import build_disk  # type: ignore[import-not-found]

    parts = build_parts(out / f"root-{version}", version=version, binary=BINARY, staged=STAGED)
    disk, initrd = out / f"appliance-{version}.img", out / "initrd"
    build_disk(disk, root=parts.root.file, uki=parts.uki, entry=f"appliance_{version}.efi")
    initrd.write_bytes(parts.initrd)
    return Image(disk, parts.kernel, initrd, parts.command_line, parts)


def make_disk(image: Image, out: Path, files: Mapping[str, str] | None = None, megabytes: int = 600) -> Path:
    """A copy whose state holds busybox and these files, by their path in the guest below /var or /etc/appliance."""
    subprocess.run(["cp", "--sparse=always", image.disk, out], check=True)
    with out.open("r+b") as file:
        file.truncate(megabytes << 20)
    state = block_devices.read_table(str(out)).find("state")
    assert state is not None
    with tempfile.TemporaryDirectory(dir=out.parent) as place:
        tree = Path(place)
        (tree / "lib/test").mkdir(parents=True)
        shutil.copy("/bin/busybox", tree / "lib/test/busybox")
        wanted = {"/etc/appliance/appliance.toml": SETTINGS, "/etc/appliance/token": TOKEN, **(files or {})}
        for name, text in wanted.items():
            path = tree / (name.removeprefix("/var/") if name.startswith("/var/") else name.lstrip("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        make = ["mkfs.ext4", "-q", "-F", "-L", "state", "-d", tree, "-O", "metadata_csum"]
        options = f"offset={state.start},lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0,resize=268435456"
        subprocess.run([*make, "-E", options, out, f"{state.size >> 10}k"], check=True, capture_output=True)
    return out


def start(
    image: Image, disk: Path, work: Path, *, arguments: str = "", loader: bool = False, extra: Sequence[str] = (),
    port: int = 0,
) -> VM:  # fmt: skip
    """Power on; ``port``: of ours, that leads to the status endpoint."""
    vm = VM(disk, work, name=disk.stem, forwards={port: 7780} if port else {}, extra=[*WATCHDOG, *extra])
    if loader:
        return vm.start()
    return vm.start(kernel=image.kernel, initrd=image.initrd, append=f"{image.command_line} {arguments}".strip())


def unit(script: str, kind: str = "oneshot", more: str = "") -> str:
    """A unit of busybox's shell whose output goes to the console too."""
    return f"[service]\ntype = '{kind}'\ncommand = ['{BUSYBOX}', 'sh', '-c', '''{script}''']\n{more}"
