"""The ESP inside a disk, looked at and changed from outside: where a file's bytes and its directory entry lie."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

from appliance.host import block_devices
from appliance.host.gpt import Partition

_CLUSTER_LOW, _SIZE = 26, 28  # in a directory entry of FAT


def find_esp(disk: Path) -> Partition:
    esp = block_devices.read_table(str(disk)).find("esp")
    assert esp is not None
    return esp


def boot_entries(disk: Path) -> list[str]:
    """As the ESP says right now."""
    listed = _mtools(disk, "mdir", "-b", "::EFI/Linux").split()
    return sorted(os.path.basename(name) for name in listed if ".efi" in name)


def add_entry(disk: Path, name: str, kernel: bytes) -> None:
    scratch = disk.with_suffix(".kernel")
    scratch.write_bytes(kernel)
    _mtools(disk, "mcopy", scratch, f"::EFI/Linux/{name}")
    scratch.unlink()


def rename_entry(disk: Path, old: str, new: str) -> None:
    _mtools(disk, "mren", f"::EFI/Linux/{old}", f"::EFI/Linux/{new}")


def find_kernel(disk: Path, kernel: bytes) -> int:
    """Where on the disk the file lies, all of it in a row."""
    esp = find_esp(disk)
    own = kernel.index(b"VERSION_ID=")  # two versions differ from there on
    with disk.open("rb") as file:
        file.seek(esp.start)
        found = file.read(esp.size)
    at = found.index(kernel[own : own + 4096]) - own
    assert found[at : at + len(kernel)] == kernel, "it lies in pieces"
    return esp.start + at


def find_directory_entry(disk: Path, kernel: bytes) -> int:
    """Where on the disk the 32 bytes are that say where the file begins, and how long it is."""
    esp = find_esp(disk)
    at = find_kernel(disk, kernel) - esp.start
    with disk.open("rb") as file:
        file.seek(esp.start)
        found = file.read(esp.size)
    sector, per_cluster, reserved, copies = struct.unpack_from("<HBHB", found, 11)
    data = (reserved + copies * struct.unpack_from("<I", found, 36)[0]) * sector
    cluster = 2 + (at - data) // (sector * per_cluster)
    for entry in range(data, len(found), 32):
        low, size = struct.unpack_from("<HI", found, entry + _CLUSTER_LOW)
        high = struct.unpack_from("<H", found, entry + 20)[0]
        if size == len(kernel) and high << 16 | low == cluster:
            return esp.start + entry
    raise AssertionError("no directory entry has that file")


def first_cluster(entry: int) -> int:
    """Of a directory entry that begins there: the byte to flip."""
    return entry + _CLUSTER_LOW


def length(entry: int) -> int:
    """See above: the byte that counts 65,536s."""
    return entry + _SIZE + 2


def _mtools(disk: Path, verb: str, *words: object) -> str:
    esp = find_esp(disk)
    command = [verb, "-i", f"{disk}@@{esp.start}", *(str(word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})
    assert done.returncode == 0, f"{verb}: {done.stderr}"
    return done.stdout
