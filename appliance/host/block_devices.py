"""Block devices: their size, partitions grown in place, file systems checked and grown (BLKPG, EXT4_IOC_RESIZE_FS)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess

from appliance.errors import UnavailableError
from appliance.host import gpt
from appliance.host.direct import DirectFile

_BLKPG, _BLKPG_RESIZE, _BLKGETSIZE64, _BLKFLSBUF = 0x1269, 3, 0x80081272, 0x1261
_EXT4_IOC_RESIZE_FS = 0x40086610
_FSCK_MENDED, _FSCK_LEFT = 3, 4  # bits of e2fsck(8): mended (perhaps wants a reboot); errors left


def device_size(path: str) -> int:
    """In bytes; of a plain file too. Raises UnavailableError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.lseek(descriptor, 0, os.SEEK_END)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise UnavailableError(f"cannot read the size of {path}: {exc.strerror}") from exc


def read_from_disk(path: str, at: int, size: int) -> bytes:
    """From the medium; ``at`` and ``size`` are multiples of 4,096. Raises UnavailableError."""
    try:
        with DirectFile(path, size_max=size) as file:
            return file.read(at, size)
    except OSError as exc:
        raise UnavailableError(f"cannot read {path} from byte {at} on: {exc.strerror}", where=path) from exc


def read_table(disk: str) -> gpt.Table:
    """The disk's partition table. Raises UnavailableError, CorruptError."""
    size = device_size(disk)
    try:
        with open(disk, "rb", buffering=0) as file:
            first = file.read(gpt.FIRST_BYTES)
            file.seek(size - gpt.LAST_BYTES)
            return gpt.decode(first, file.read(gpt.LAST_BYTES), size)
    except OSError as exc:
        raise UnavailableError(f"cannot read {disk}: {exc.strerror}") from exc


def write_table(disk: str, table: gpt.Table) -> None:
    """The second copy first, each synced: one of them is whole at any instant. Raises UnavailableError."""
    first, last = gpt.encode(table)
    try:
        with open(disk, "r+b", buffering=0) as file:
            for at, data in ((table.disk_size - len(last), last), (0, first)):
                file.seek(at)
                file.write(data)
                os.fsync(file.fileno())
    except OSError as exc:
        raise UnavailableError(f"cannot write the partition table of {disk}: {exc.strerror}") from exc


def resize_partition(disk: str, partition: gpt.Partition) -> None:
    """Tell the kernel, while the partition may be in use. Raises UnavailableError."""
    words = struct.pack("<qqi64s64s", partition.start, partition.size, partition.number, b"", b"")
    data = ctypes.create_string_buffer(words, 152)
    request = struct.pack("<iiiiQ", _BLKPG_RESIZE, 0, len(data), 0, ctypes.addressof(data))
    try:
        with open(disk, "rb", buffering=0) as file:
            fcntl.ioctl(file, _BLKPG, request)
    except OSError as exc:
        raise UnavailableError(f"cannot resize partition {partition.number} of {disk}: {exc.strerror}") from exc


def check_ext4(device: str, *, program: str = "/usr/sbin/e2fsck") -> str:
    """Mend what can be; says what was done, empty when nothing was. Raises UnavailableError when errors are left."""
    said = ""
    for option in ("-p", "-fy"):
        try:
            done = subprocess.run([program, option, device], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError as exc:
            raise UnavailableError(f"cannot check {device}: {program}: {exc.strerror}") from exc
        said = " ".join((done.stdout + done.stderr).decode(errors="replace").split())
        if done.returncode < _FSCK_LEFT:
            return said if done.returncode & _FSCK_MENDED else ""
    raise UnavailableError(f"cannot mend the file system on {device}: {said[-300:]}")


def grow_ext4(mounted_on: str, device: str) -> int:
    """Up to the end of its device, while it is mounted; the new size in bytes. Raises UnavailableError."""
    size = device_size(device)
    try:
        descriptor = os.open(mounted_on, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            block = os.fstatvfs(descriptor).f_bsize
            fcntl.ioctl(descriptor, _EXT4_IOC_RESIZE_FS, struct.pack("<Q", size // block))
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise UnavailableError(f"cannot grow the file system on {device}: {exc.strerror}") from exc
    return size
