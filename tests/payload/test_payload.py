"""Cutting, the index and the ranges: pure, against any bytes."""

from __future__ import annotations

import hashlib
import itertools
import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.payload import Index, Packer, ReadAt, cut, format_index, parse_index, plain, plan_ranges
from appliance.payload.binary import _FOOTER, _MAGIC

AVERAGE = 1024


def reader(data: bytes) -> ReadAt:
    return lambda offset, size: data[offset : offset + size]


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def packed(data: bytes, layout: str = "file") -> tuple[Index, bytes]:
    packer = Packer(layout, AVERAGE)
    pack = b"".join(packer.add(chunk) for _, chunk in cut(reader(data), len(data), average=AVERAGE))
    return parse_index(format_index(packer.index()), file="x"), pack


def binary(pieces: list[bytes], launcher: bytes = b"\x7fELF" * 300) -> bytes:
    """As packaging/pack.py makes it: launcher, frames, footer."""
    payload = b"".join(zstandard.ZstdCompressor(write_checksum=True).compress(piece) for piece in pieces)
    return launcher + payload + _FOOTER.pack(len(launcher), len(payload), 0, b"0" * 64, b"1.0", _MAGIC)


def missing(new: Index, old: Index) -> list[int]:
    known = set(old.places())
    return [number for number in range(len(new)) if new.hash(number) not in known]


@given(st.binary(max_size=20000), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_the_chunks_are_the_file(data: bytes, times: int) -> None:
    data *= times
    chunks = list(cut(reader(data), len(data), average=AVERAGE))
    assert b"".join(chunk for _, chunk in chunks) == data
    assert [offset for offset, _ in chunks] == [
        sum(len(chunk) for _, chunk in chunks[:number]) for number in range(len(chunks))
    ]
    assert all(len(chunk) <= AVERAGE * 4 for _, chunk in chunks)


@pytest.mark.parametrize("where", [0, 5000, 150_000, 199_999])
def test_an_insertion_costs_the_chunks_beside_it(where: int) -> None:
    old = noise(1, 200_000)
    new = old[:where] + b"something new" + old[where:]
    assert 1 <= len(missing(packed(new)[0], packed(old)[0])) <= 3


def test_a_frame_is_a_chunk_and_a_changed_frame_costs_itself() -> None:
    pieces = [noise(seed, 1500) for seed in range(100)]
    old = binary(pieces)
    pieces[40] = noise(1000, 1600)
    new = binary(pieces)
    index, _ = packed(new)
    lost = missing(index, packed(old)[0])
    assert [index.lengths[number] for number in lost] == [len(zstandard.compress(pieces[40])) + 4, 168]


@pytest.mark.parametrize("change", [b"", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd\x04\x00\xff\xff\xff", b"\0" * 9000])
def test_a_payload_that_is_no_frames_is_cut_all_the_same(change: bytes) -> None:
    data = binary([noise(1, 3000), noise(2, 20000)])
    for at in (1200, 1300, 4200, len(data) - 168):
        broken = data[:at] + change + data[at:]
        assert b"".join(chunk for _, chunk in cut(reader(broken), len(broken), average=AVERAGE)) == broken
    for size in range(len(data) - 400, len(data), 7):
        assert b"".join(chunk for _, chunk in cut(reader(data), size, average=AVERAGE)) == data[:size]


@pytest.mark.parametrize("layout", ["file", "pack"])
def test_what_is_packed_can_be_put_together(layout: str) -> None:
    data = noise(7, 30_000) + b"the same again " * 3000 + noise(7, 30_000)
    index, pack = packed(data, layout)
    assert (index.length, index.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (len(pack) < 0.7 * len(data)) == (layout == "pack")
    made = bytearray(len(data))
    for one in plan_ranges(index, range(len(index))):
        for number in one.chunks:
            offset, length = index.offsets[number], index.lengths[number]
            chunk = plain(pack[offset : offset + index.stored_length(number)], length)
            assert chunk is not None
            for place in index.places()[index.hash(number)]:
                made[index.positions[place] : index.positions[place] + length] = chunk
    assert made == data


@given(st.sets(st.integers(0, 150)), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_ranges_hold_what_is_missing_in_few_requests(wanted: set[int], most: int) -> None:
    index, _ = packed(noise(3, 250_000))
    lost = [number for number in wanted if number < len(index)]
    ranges = plan_ranges(index, lost, gap=100, ranges_max=most)
    assert sorted(number for one in ranges for number in one.chunks) == sorted(lost)
    assert len(ranges) <= most
    for one in ranges:
        for number in one.chunks:
            assert one.start <= index.offsets[number]
            assert index.offsets[number] + index.stored_length(number) <= one.end
    assert all(one.end <= after.start for one, after in itertools.pairwise(ranges))


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(max_examples=150, deadline=None)
def test_a_damaged_index_is_refused(change: bytes, at: int) -> None:
    index, _ = packed(noise(5, 20_000))
    good = format_index(index)
    bad = good[: at % len(good)] + change + good[at % len(good) + len(change) :]
    try:
        read = parse_index(bad, file="x")
    except InputError:
        return
    assert (read.lengths, read.length) == (index.lengths, index.length)  # only a hash can differ: then no chunk fits


def test_a_chunk_that_unpacks_to_more_than_it_says_is_refused() -> None:
    bomb = zstandard.compress(b"\0" * (64 << 20))
    assert plain(bomb, 1 << 16) is None
    assert plain(bomb[:-3], 64 << 20) is None
    assert plain(b"no frame", 5) is None
