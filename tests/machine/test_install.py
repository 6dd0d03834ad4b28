"""appliance install --to a plain file: what is refused, what is read back, and a power cut at each of its writes."""

from __future__ import annotations

import hashlib
import random
import subprocess
import uuid
from collections import Counter
from pathlib import Path

import pytest

from appliance.errors import ConflictError, CorruptError, InputError
from appliance.host import block_devices, gpt
from appliance.host.disk_writing import TakenDisk
from appliance.machine import install, parts_of_image
from appliance.machine.provisioning import AT, SIZE_MAX, decode, encode, take_left_files

MIB = 1 << 20
SLOTS = (("root-a", gpt.ROOT, 4 * MIB), ("root-b", gpt.ROOT, 4 * MIB))
LAYOUT = (("esp", gpt.ESP, 3 * MIB), *SLOTS, ("state", gpt.STATE, 0))
PROVISION = {"appliance.toml": (0o600, b"[node]\nname = 'x'\n"), "units/web.toml": (0o644, b"# web\n")}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """As packaging/image/disk.py lays one out, small."""
    path, size = tmp_path / "image", 16 * MIB
    table = gpt.lay_out(uuid.UUID(int=7), size, LAYOUT)
    first, last = gpt.encode(table)
    with path.open("wb") as file:
        file.truncate(size)
        file.write(first)
        for one in table.partitions[:2]:
            file.seek(one.start)
            file.write(hashlib.shake_256(one.name.encode()).digest(MIB + 5000))
        file.seek(table.partitions[0].start + 2 * MIB)
        file.write(b"after a hole")
        file.seek(size - len(last))
        file.write(last)
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """With what somebody had on it, but for its first megabyte."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(MIB) + b"\xaa" * (24 * MIB) + bytes(MIB))
    return path


def contents(path: Path, name: str) -> bytes:
    one = block_devices.read_table(str(path)).find(name)
    assert one is not None
    with path.open("rb") as file:
        file.seek(one.start)
        return file.read(one.size)


def test_written_as_the_image_is_and_the_state_takes_the_rest(image: Path, disk: Path) -> None:
    target = TakenDisk(str(disk))
    done = install(parts_of_image(str(image)), target, provision=PROVISION)
    target.close()
    assert done.provisioned == ("appliance.toml", "units/web.toml")
    table, old = block_devices.read_table(str(disk)), block_devices.read_table(str(image))
    assert contents(disk, "esp") == contents(image, "esp")
    assert contents(disk, "root-a")[: 2 * MIB] == contents(image, "root-a")[: 2 * MIB]
    state = table.find("state")
    assert state is not None
    assert state.end >= 24 * MIB
    assert {one.identity for one in table.partitions}.isdisjoint(one.identity for one in old.partitions)
    backup = gpt.decode(bytes(gpt.FIRST_BYTES), disk.read_bytes()[-gpt.LAST_BYTES :], disk.stat().st_size)
    assert backup == table
    said = subprocess.run(["/sbin/sfdisk", "--verify", disk], capture_output=True, text=True, check=False)
    assert "No errors detected" in said.stdout, said


def test_what_is_in_the_way_is_refused(image: Path, disk: Path, tmp_path: Path) -> None:
    parts = parts_of_image(str(image))
    small = tmp_path / "small"
    small.write_bytes(bytes(15 * MIB))
    with pytest.raises(InputError, match="15 MiB, 16 MiB are needed"):
        install(parts, TakenDisk(str(small)))
    with disk.open("r+b") as file:
        file.write(b"precious")
    before = disk.read_bytes()
    target = TakenDisk(str(disk))
    with pytest.raises(ConflictError, match="it holds something; --erase gives it up"):
        install(parts, target)
    assert disk.read_bytes() == before
    with pytest.raises(ConflictError):
        TakenDisk(str(disk))  # one at a time
    install(parts, target, erase=True)
    with pytest.raises(InputError, match="it is no disk"):
        TakenDisk(str(tmp_path))


Operation = tuple[int, bytes] | None
"""A write, or that all before it was synced."""


class Recorded(TakenDisk):
    """What an install does, in its order."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.operations: list[Operation] = []

    def write(self, at: int, data: bytes) -> None:
        self.operations.append((at, bytes(data)))
        super().write(at, data)

    def zero(self, at: int, size: int) -> None:
        self.operations.append((at, bytes(size)))
        super().zero(at, size)

    def sync(self) -> None:
        self.operations.append(None)
        super().sync()


def apply(disk: bytearray, operation: Operation, *, torn: float = 1.0) -> None:
    if operation is not None:
        at, data = operation
        kept = int(len(data) * torn) // gpt.SECTOR * gpt.SECTOR if torn < 1 else len(data)
        disk[at : at + kept] = data[:kept]


def whole(disk: bytearray) -> tuple[gpt.Table, str] | None:
    """Its table and the hash of all that it would start with and take over; None: nobody would start it."""
    try:
        table = gpt.decode(bytes(disk[: gpt.FIRST_BYTES]), bytes(disk[-gpt.LAST_BYTES :]), len(disk))
    except CorruptError:
        return None
    digest = hashlib.sha256(disk[AT : AT + SIZE_MAX])
    for one in table.partitions:
        # What the image leaves empty in a slot is not written; of the state the head tells that it is the image's.
        size = {"root-a": 2 * MIB, "root-b": 0, "state": MIB}.get(one.name, one.size)
        digest.update(disk[one.start : one.start + size])
    return table, digest.hexdigest()


def test_a_power_cut_at_any_write_leaves_the_old_disk_or_none_or_the_new_one(
    image: Path, disk: Path, tmp_path: Path
) -> None:
    """Over a disk that was installed before: at each write, what was not synced yet may be there, or not, or half."""
    target = TakenDisk(str(disk))
    install(parts_of_image(str(image)), target, provision=PROVISION)
    target.close()
    other = tmp_path / "other"
    data = bytearray(image.read_bytes())
    for one in block_devices.read_table(str(image)).partitions[:2]:
        data[one.start : one.start + MIB] = hashlib.shake_256(b"newer" + one.name.encode()).digest(MIB)
    other.write_bytes(data)
    synced = bytearray(disk.read_bytes())
    recorded = Recorded(str(disk))
    install(parts_of_image(str(other)), recorded, provision={"appliance.toml": (0o600, b"# other\n")}, erase=True)
    recorded.close()
    before, after = whole(synced), whole(bytearray(disk.read_bytes()))
    assert before
    assert after
    assert before != after
    rng, pending, seen = random.Random(6), list[Operation](), Counter[str]()
    for operation in recorded.operations:
        if operation is None:
            for one in pending:
                apply(synced, one)
            pending = []
            continue
        pending.append(operation)
        for torn in (0.0, 0.5, 1.0, rng.random()):
            state = bytearray(synced)
            for one in pending[:-1]:
                if torn == 1.0 or rng.random() < 0.5:
                    apply(state, one)
            apply(state, pending[-1], torn=torn)
            found = whole(state)
            seen["none" if found is None else "old" if found == before else "new" if found == after else "bad"] += 1
    assert not pending
    assert not seen["bad"], seen
    assert seen["none"] > 20
    assert seen["old"]
    assert seen["new"]


def is_bootable(path: Path) -> bool:
    try:
        block_devices.read_table(str(path))
    except CorruptError:
        return False
    return True


class Rotten(TakenDisk):
    """Loses one byte of what it is given."""

    def write(self, at: int, data: bytes) -> None:
        super().write(at, data[:-1] + b"!" if at == 4 * MIB else data)


def test_a_disk_that_does_not_keep_what_is_written_is_left_unbootable(image: Path, disk: Path) -> None:
    with pytest.raises(CorruptError, match="root-a does not read as it was written"):
        install(parts_of_image(str(image)), Rotten(str(disk)))
    assert not is_bootable(disk)


def test_what_is_provisioned_is_put_in_place_once_and_wiped(image: Path, disk: Path, tmp_path: Path) -> None:
    target = TakenDisk(str(disk))
    install(parts_of_image(str(image)), target, provision=PROVISION)
    target.close()
    place = tmp_path / "etc"
    assert take_left_files(str(disk), str(place)) == ("appliance.toml", "units/web.toml")
    assert (place / "appliance.toml").read_bytes() == PROVISION["appliance.toml"][1]
    assert (place / "appliance.toml").stat().st_mode & 0o777 == 0o600
    assert not any(disk.read_bytes()[AT : AT + SIZE_MAX])
    assert take_left_files(str(disk), str(place)) == ()
    assert is_bootable(disk)


def test_provision_that_is_damaged_or_too_large_is_refused(disk: Path, tmp_path: Path) -> None:
    whole = encode(PROVISION)
    assert decode(whole) == PROVISION
    for place in (20, 60, len(whole) - 1):
        with pytest.raises(CorruptError):
            decode(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    noise = hashlib.shake_256(b"").digest(2 * MIB)
    with pytest.raises(InputError, match="there is room for"):
        encode({"x": (0o644, noise)})
    with disk.open("r+b") as file:
        file.seek(AT)
        file.write(encode({"../passwd": (0o644, b"")}))
    with pytest.raises(CorruptError, match="found the path"):
        take_left_files(str(disk), str(tmp_path / "etc"))
