#!/usr/bin/env python3
"""Builds dist/appliance-VERSION.img, .os, .vmlinuz and .initrd from dist/appliance. Unprivileged, reproducible."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(HOUSE / "packaging"), str(HOUSE)]

from pack import source_version  # noqa: E402

from appliance.update.boot_entries import GOOD_TRIES, BootEntry, entry_version  # noqa: E402
from appliance.update.os_payload import OsHeader  # noqa: E402
from image.cpio import Cpio  # noqa: E402
from image.disk import LOADER, build_disk  # noqa: E402
from image.kernel import Kernel, fetch_kernel, load_order  # noqa: E402
from image.root import Root, build_root, os_release  # noqa: E402
from image.uki import build_uki, sum_image  # noqa: E402

BUILD = HOUSE / ".build/image"
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
# To find and mount the root on the machines of the field; what else there is, is loaded from the root by its aliases.
MODULES = [
    "virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ahci", "ata_piix", "nvme", "hv_storvsc", "xen_blkfront",
    "dm_verity", "erofs", "vfat", "nls_ascii", "nls_cp437", "efivarfs", "i6300esb", "sha256_ssse3",
]  # fmt: skip
COMMAND_LINE = "console=tty0 console=ttyS0,115200 panic=-1 oops=panic ro quiet loglevel=4 lockdown=integrity"
WATCHDOG_SECONDS = 60


@dataclass(frozen=True)
class Parts:
    """What one version is made of."""

    version: str
    root: Root
    uki: bytes
    initrd: bytes
    kernel: Path
    command_line: str


def build_program(name: str) -> Path:
    """init/*.c or modprobe.c, static."""
    BUILD.mkdir(parents=True, exist_ok=True)
    out, temp = BUILD / name, BUILD / f"{name}.tmp.{os.getpid()}"  # others may build it, too
    flags = ["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-fno-ident", "-Wl,--build-id=none"]
    here = Path(__file__).parent
    sources = sorted((here / name).glob("*.c")) or [here / f"{name}.c"]
    subprocess.run(["gcc", *flags, "-o", temp, *(one.relative_to(here) for one in sources)], check=True, cwd=here)
    temp.rename(out)
    return out


def build_initrd(kernel: Kernel, init: bytes, *, fast: bool = False) -> bytes:
    """zstd, as the kernel unpacks it fastest; archives of their own, so that another program leaves the modules alone.

    The kernel starts /init even after an archive whose checksum was wrong, but unpacks nothing behind it: so the name
    comes last, and of an initramfs that has rotted nothing is run.
    """
    modules = Cpio()
    for directory in ("dev", "proc", "sys", "run", "sysroot", "mnt", "modules"):
        modules.directory(directory)
    modules.character_device("dev/console", 5, 1)
    modules.character_device("dev/kmsg", 1, 11)
    modules.character_device("dev/null", 1, 3, 0o666)
    order = []
    for number, (name, module) in enumerate(load_order(kernel, MODULES)):
        order.append(f"{number:02d}-{name}.ko")
        modules.file(f"modules/{order[-1]}", module)
    modules.file("modules/order", ("\n".join(order) + "\n").encode())
    program = Cpio()
    program.file("program", init, 0o755)
    name = Cpio()
    name.link("init", "program")
    return b"".join(_packed(archive.finish(), fast=fast) for archive in (modules, program, name))


def _packed(data: bytes, *, fast: bool) -> bytes:
    command = ["zstd", "-q", "-3" if fast else "-19", "-T1", "-c"]
    packed = subprocess.run(command, input=data, capture_output=True, check=True).stdout
    return packed + bytes(-len(packed) % 4)


def build_parts(
    out: Path, *, version: str, binary: Path, staged: Path, extra: Path | None = None, init: bytes | None = None,
    arguments: str = "", fast: bool = False,
) -> Parts:  # fmt: skip
    """Root and kernel image of a version; ``out``: the root's file. ``extra``, ``init``, ``arguments``: for tests.

    ``fast``: not as small as can be.
    """
    kernel = fetch_kernel(HOUSE / ".build/kernel")
    root = build_root(
        out, version=version, binary=binary, staged=staged, kernel=kernel, modprobe=build_program("modprobe"),
        extra=extra, fast=fast,
    )  # fmt: skip
    return build_uki_of(root, version=version, init=init, arguments=arguments, fast=fast)


def build_uki_of(
    root: Root, *, version: str, init: bytes | None = None, arguments: str = "", fast: bool = False
) -> Parts:
    """The kernel image that starts this root."""
    kernel = fetch_kernel(HOUSE / ".build/kernel")
    initrd = build_initrd(kernel, init or build_program("init").read_bytes(), fast=fast)
    own = f"appliance.watchdog={WATCHDOG_SECONDS} appliance.version={version}"
    words = f"{COMMAND_LINE} {own} {root.arguments()} {arguments}".strip()
    sections = {
        ".osrel": os_release(version).encode(),
        ".cmdline": _with_sums(words, 0).encode(),
        ".initrd": initrd,
        ".linux": kernel.image.read_bytes(),
    }
    stub = STUB.read_bytes()
    command_line = _with_sums(words, sum_image(build_uki(stub, sections)))  # the same length, and not part of the sum
    uki = build_uki(stub, {**sections, ".cmdline": command_line.encode()})
    return Parts(version, root, uki, initrd, kernel.image, command_line)


def _with_sums(words: str, image: int) -> str:
    """Of the kernel image, and of the command line itself: init/ looks at both."""
    words = f"{words} appliance.image={image:08x}"
    return f"{words} appliance.sum={zlib.crc32(words.encode()):08x}"


def sign(program: bytes, key: Path, certificate: Path) -> bytes:
    """An EFI program, with a key that the firmware was told to trust (db). Debian's shim is not needed then."""
    with tempfile.TemporaryDirectory() as place:
        plain, signed = Path(place) / "plain", Path(place) / "signed"
        plain.write_bytes(program)
        command = ["sbsign", "--key", key, "--cert", certificate, "--output", signed, plain]
        subprocess.run(command, check=True, capture_output=True)
        return signed.read_bytes()


def write_payload(out: Path, parts: Parts) -> None:
    """What a machine of ours takes as an update (appliance/update/os_payload.py)."""
    root = parts.root.file.read_bytes()
    header = OsHeader(
        version=parts.version, root_size=len(root), kernel_size=len(parts.uki), identity=str(parts.root.identity),
        roothash=parts.root.root_hash,
    )  # fmt: skip
    out.write_bytes(header.encode() + root + parts.uki)


def main() -> None:
    """Prints what it made, and how long each step took."""
    parser = argparse.ArgumentParser(description="Build the image of our own OS.")
    parser.add_argument("--version", default=source_version())
    parser.add_argument("--out", type=Path, default=HOUSE / "dist")
    parser.add_argument("--binary", type=Path, default=HOUSE / "dist/appliance")
    parser.add_argument("--staged", type=Path, default=HOUSE / ".build/staged")
    parser.add_argument("--sign-key", type=Path, help="sign loader and kernel image for Secure Boot, with --sign-cert")
    parser.add_argument("--sign-cert", type=Path)
    parser.add_argument("--arguments", default="", help="more words for the kernel's command line")
    args = parser.parse_args()
    started = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    root = BUILD / f"root-{args.version}"
    parts = build_parts(root, version=args.version, binary=args.binary, staged=args.staged, arguments=args.arguments)
    loader = None
    if args.sign_key:
        parts = replace(parts, uki=sign(parts.uki, args.sign_key, args.sign_cert))
        loader = sign(LOADER.read_bytes(), args.sign_key, args.sign_cert)
    name = f"appliance-{args.version}"
    entry = BootEntry(entry_version(args.version), good=True, left=GOOD_TRIES).name
    build_disk(args.out / f"{name}.img", root=root, uki=parts.uki, entry=entry, loader=loader)
    write_payload(args.out / f"{name}.os", parts)
    (args.out / f"{name}.efi").write_bytes(parts.uki)
    (args.out / f"{name}.initrd").write_bytes(parts.initrd)
    (args.out / f"{name}.vmlinuz").write_bytes(parts.kernel.read_bytes())
    seconds = time.monotonic() - started
    for suffix in ("img", "os", "efi", "initrd", "vmlinuz"):
        file = args.out / f"{name}.{suffix}"
        used = file.stat().st_blocks * 512
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB, {used / 1e6:.1f} MB on disk")
    print(f"root {root.stat().st_size / 1e6:.1f} MB, built in {seconds:.1f} s")


if __name__ == "__main__":
    main()
