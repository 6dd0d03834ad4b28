"""Reading back from the medium: what the kernel remembers does not hide what the disk has lost."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import UntrustedError
from appliance.host import block_devices
from appliance.host.direct import PIECE, DirectFile
from appliance.host.slots import RealSlotCalls
from appliance.update.boot_entries import DIRECTORY
from appliance.update.os_payload import OsHeader
from appliance.update.os_slots import OsSlots

SIZE = 3 * PIECE
NOISE = hashlib.shake_256(b"direct").digest(SIZE)


def losetup(*words: object) -> str:
    done = subprocess.run(["losetup", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr.strip()}")
    return done.stdout.strip()


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """The file behind the device."""
    path = tmp_path / "medium"
    path.write_bytes(bytes(SIZE))
    return path


@pytest.fixture
def device(medium: Path) -> Iterator[str]:
    name = losetup("--find", "--show", medium)
    yield name
    losetup("--detach", name)


def alter(path: Path, at: int) -> None:
    """Below the kernel's memory of the device."""
    with path.open("r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), at)
        os.fsync(file.fileno())


def remembered(device: str) -> mmap.mmap:
    """All of it is in the kernel's memory, and as long as somebody has it mapped no fadvise(2) makes it go."""
    with open(device, "rb") as file:
        mapped = mmap.mmap(file.fileno(), SIZE, prot=mmap.PROT_READ)
    assert hashlib.sha256(mapped).digest()
    return mapped


def test_a_bit_that_the_disk_lost_is_found_though_the_kernel_remembers_it(medium: Path, device: str) -> None:
    calls = RealSlotCalls()
    calls.write_at(device, 0, NOISE)
    calls.sync(device)
    with remembered(device):
        alter(medium, PIECE + 5)
        assert b"".join(calls.pieces(device)) == NOISE, "this is what reading back would see without O_DIRECT"
        read = b"".join(calls.pieces(device, from_disk=True))
        assert not calls.not_from_disk
        assert [at for at in range(SIZE) if read[at] != NOISE[at]] == [PIECE + 5]
        assert block_devices.read_from_disk(device, PIECE, 4096)[5] == NOISE[PIECE + 5] ^ 1


def test_an_os_slot_that_the_disk_did_not_keep_is_not_taken(medium: Path, device: str, tmp_path: Path) -> None:
    esp = tmp_path / "esp"
    (esp / DIRECTORY).mkdir(parents=True)
    (esp / DIRECTORY / "appliance_1.0.0.good+3.efi").write_bytes(b"kernel")
    slots = OsSlots(
        RealSlotCalls(), str(tmp_path / "record"), running="a", running_entry="appliance_1.0.0.good+3.efi",
        devices={"a": str(tmp_path / "a"), "b": device}, esp_device="", mount_point=str(esp),
    )  # fmt: skip
    header = OsHeader(
        version="2.0.0", root_size=2 * PIECE, kernel_size=5001, identity="x", roothash="y"
    ).encode()  # fmt: skip
    payload = header + NOISE[: 2 * PIECE + 5001]
    source = tmp_path / "payload"
    source.write_bytes(payload)
    slots.load()
    wanted = {"sha256": hashlib.sha256(payload).hexdigest(), "length": len(payload)}
    slot = slots.slot("b")
    slot.clear()
    slot.write(str(source))
    slot.verify(**wanted)  # type: ignore[arg-type]
    with remembered(device):
        alter(medium, PIECE + 4097)
        with pytest.raises(UntrustedError, match="cannot use slot b: read back"):
            slot.verify(**wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 1, 511, 4096, 4097, PIECE - 1, PIECE, PIECE + 1, SIZE])
def test_every_length(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(NOISE[:length])
    with DirectFile(str(path)) as file:
        assert b"".join(file.pieces()) == NOISE[:length]


def test_a_file_is_opened_for_direct_reading(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(NOISE)
    calls = RealSlotCalls()
    pieces = calls.pieces(str(path), from_disk=True)
    next(pieces)
    flags = [
        int(line.split()[1], 8)
        for number in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{number}") and os.readlink(f"/proc/self/fd/{number}") == str(path)
        for line in Path(f"/proc/self/fdinfo/{number}").read_text().splitlines()
        if line.startswith("flags:")
    ]
    assert len(flags) == 1
    assert bool(flags[0] & os.O_DIRECT) is not bool(calls.not_from_disk)
    pieces.close()  # type: ignore[attr-defined]


def test_where_it_cannot_be_that_is_said() -> None:
    calls = RealSlotCalls()
    assert b"".join(calls.pieces("/proc/version", from_disk=True)) == Path("/proc/version").read_bytes()
    assert calls.not_from_disk.startswith("the file system of /proc/version refuses direct reading (O_DIRECT:")
