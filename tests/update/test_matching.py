"""A file put together from what a seed holds: in place with shared blocks, moved, or fetched; and on a real xfs."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.host.slots import BLOCK, Writing
from appliance.payload import Index, Packer, cut, format_index, parse_index, plan_ranges
from appliance.update import download
from appliance.update.download import Assembly
from appliance.update.progress import Progress

AVERAGE = 1024


class Shelf:
    """A fetcher that has the file, and counts."""

    def __init__(self, data: bytes) -> None:
        self.data, self.sent = data, 0

    def open_at(self, url: str, offset: int, end: int | None = None) -> tuple[int, Iterator[bytes]]:
        piece = self.data[offset:end]
        self.sent += len(piece)
        return offset, iter([piece])

    def blame(self, why: str) -> int:
        return 0

    def close(self) -> None:
        pass


def index_of(data: bytes) -> Index:
    packer = Packer("file", AVERAGE)
    for _, chunk in cut(lambda at, size: data[at : at + size], len(data), average=AVERAGE):
        packer.add(chunk)
    return parse_index(format_index(packer.index()), file="x")


def assemble(place: Path, seed: bytes, new: bytes) -> int:
    """The bytes that were fetched for it."""
    place.mkdir(exist_ok=True)
    (place / "seed").write_bytes(seed)
    (place / "new").unlink(missing_ok=True)
    shelf = Shelf(new)
    Assembly(
        index=index_of(new), fetcher=shelf, url="x", path=str(place / "new"), progress=Progress(),
        seeds=[str(place / "nothing"), str(place / "seed")],
    ).run()  # fmt: skip
    assert hashlib.sha256((place / "new").read_bytes()).digest() == hashlib.sha256(new).digest()
    assert (place / "seed").read_bytes() == seed
    return shelf.sent


def cost_of(seed: bytes, new: bytes) -> int:
    """Of the chunks that a seed does not have when all of it is cut."""
    known, index = set(index_of(seed).places()), index_of(new)
    return sum(length for number, length in enumerate(index.lengths) if index.hash(number) not in known)


def copying(file: Any, source: Any, offset: int, size: int) -> bool:
    """What sharing comes to, on any file system."""
    assert offset % BLOCK == size % BLOCK == 0 < size
    file.put(offset, source.at(offset, size))
    return True


edits = st.lists(
    st.tuples(st.integers(0, 150_000), st.integers(0, 5_000), st.integers(0, 5_000)), max_size=4
)  # where, how much goes, how much comes


@pytest.mark.parametrize("shares", [True, False])
@given(number=st.integers(0, 9), edits=edits, twice=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_changed_the_file_is_right_and_little_is_fetched(
    tmp_path: Path, number: int, edits: list[tuple[int, int, int]], twice: bool, shares: bool
) -> None:
    noise = random.Random(number)
    seed = noise.randbytes(150_000)
    new = seed * 2 if twice else seed
    for where, less, more in edits:
        new = new[:where] + noise.randbytes(more) + new[where + less :]
    if not new:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writing, "share", copying if shares else lambda *_: False)
        patch.setattr(download, "plan_ranges", partial(plan_ranges, gap=0))  # what lies between is not what is missing
        fetched = assemble(tmp_path / "place", seed, new)
    assert fetched <= cost_of(seed, new) + len(edits) * 8 * AVERAGE


def test_a_file_system_that_shares_no_blocks_says_so(tmp_path: Path) -> None:
    noise = random.Random(1)
    seed = noise.randbytes(300_000)
    assert assemble(tmp_path, seed, seed) == 0  # by sharing or by copying, whatever holds here


def test_on_xfs_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    image, place = tmp_path / "image", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    place.mkdir()
    made = subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mkfs.xfs cannot make a file system that shares blocks: {made.stderr.strip()}")
    mounted = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this host cannot mount it: {mounted.stderr.strip()}")
    try:
        noise = random.Random(2)
        seed = noise.randbytes(40 << 20)
        new = bytearray(seed)
        new[20 << 20 : 21 << 20] = noise.randbytes(1 << 20)
        (place / "seed").write_bytes(seed)
        subprocess.run(["sync", "-f", place], check=True)
        before = free(place)
        assert 1 << 20 <= assemble(place, seed, bytes(new)) < 2 << 20
        subprocess.run(["sync", "-f", place], check=True)
        assert before - free(place) < 8 << 20  # of 40: what was fetched, and the edges of runs
    finally:
        subprocess.run(["umount", place], check=True)


def free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize
