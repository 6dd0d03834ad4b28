"""The whole disk: GPT, ESP with systemd-boot and one kernel image, the first slot filled, a state partition to grow."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from appliance.host import gpt

MEGABYTE = 1 << 20
ESP_SIZE, SLOT_SIZE, STATE_SIZE = 96 * MEGABYTE, 128 * MEGABYTE, 64 * MEGABYTE
DISK_SIZE = gpt.ALIGNMENT + ESP_SIZE + 2 * SLOT_SIZE + STATE_SIZE + MEGABYTE
DISK = uuid.UUID("0b6f7a52-5a0e-4a35-9d3c-6f8f0c9c4e10")
LOADER = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
EPOCH = "1700000000"
LAYOUT = (
    ("esp", gpt.ESP, ESP_SIZE),
    ("root-a", gpt.ROOT, SLOT_SIZE),
    ("root-b", gpt.ROOT, SLOT_SIZE),
    ("state", gpt.STATE, 0),
)
LOADER_CONF = b"timeout 0\nconsole-mode keep\neditor no\n"
# An image that lists but cannot be loaded returns to the firmware; where that has a shell, this restarts, and the try
# is spent (notes/boot-qemu.md 2.2).
STARTUP = b"reset -c\r\n"


def build_disk(
    out: Path, *, root: Path, uki: bytes, entry: str, loader: bytes | None = None, size: int = DISK_SIZE
) -> None:
    """Sparse, the same bytes each time, no root needed. ``entry``: the name of the boot entry's file."""
    table = gpt.lay_out(DISK, size, LAYOUT)
    temp = out.with_name(f"{out.name}.tmp.{os.getpid()}")
    work = Path(f"{temp}.parts")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        esp, state = work / "esp", work / "state"
        files = {
            "EFI/BOOT/BOOTX64.EFI": loader or LOADER.read_bytes(),
            "EFI/systemd/systemd-bootx64.efi": loader or LOADER.read_bytes(),
            "loader/loader.conf": LOADER_CONF,
            "startup.nsh": STARTUP,
            f"EFI/Linux/{entry}": uki,
        }
        make_esp(esp, ESP_SIZE, files)
        make_state(state, table.partitions[3].size)
        with temp.open("wb") as disk:
            disk.truncate(size)
            first, last = gpt.encode(table)
            disk.write(first)
            disk.seek(size - len(last))
            disk.write(last)
        for partition, source in zip(table.partitions, (esp, root, None, state), strict=True):
            if source is not None:
                assert source.stat().st_size <= partition.size, f"{source.name} does not fit into {partition.name}"
                seek = f"seek={partition.start // MEGABYTE}"
                copy = ["dd", f"if={source}", f"of={temp}", "bs=1M", seek, "conv=notrunc,sparse", "status=none"]
                subprocess.run(copy, check=True)
        temp.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        temp.unlink(missing_ok=True)


def make_esp(out: Path, size: int, files: Mapping[str, bytes]) -> None:
    """A FAT32 file system of these files, by dosfstools and mtools."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"}
    make = ["mkfs.vfat", "-C", "-F", "32", "-n", "ESP", "-i", "0A991A7C", "--invariant", out, str(size >> 10)]
    subprocess.run(make, check=True, capture_output=True)
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    subprocess.run(["mmd", "-i", out, *(f"::{folder}" for folder in folders)], check=True, env=environment)
    scratch = out.with_name("esp-file")
    for name, data in files.items():
        scratch.write_bytes(data)
        os.utime(scratch, (int(EPOCH), int(EPOCH)))
        subprocess.run(["mcopy", "-m", "-i", out, scratch, f"::{name}"], check=True, env=environment)
    scratch.unlink()


def make_state(out: Path, size: int) -> None:
    """An empty ext4, to be grown at the first boot (host room: grow by EXT4_IOC_RESIZE_FS, up to 1,000 times)."""
    with out.open("wb") as file:
        file.truncate(size)
    identity = str(uuid.uuid5(DISK, "state file system"))
    options = f"lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0,hash_seed={identity},resize=268435456"
    make = ["mkfs.ext4", "-q", "-F", "-L", "state", "-U", identity, "-O", "metadata_csum"]
    environment = {**os.environ, "E2FSPROGS_FAKE_TIME": EPOCH}
    subprocess.run([*make, "-E", options, out], check=True, env=environment)
