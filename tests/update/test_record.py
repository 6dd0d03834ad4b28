"""The slot record's codec: what is written is read back, and nothing else is taken for a record."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import CorruptError
from appliance.update.record import (
    COPY_SIZE,
    SlotEntry,
    SlotRecord,
    format_copy,
    other,
    parse_copy,
    pick,
    read_record,
)

versions = st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}(-rc\.[0-9])?", fullmatch=True)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
entries = st.one_of(
    st.just(SlotEntry()),
    st.builds(SlotEntry, versions, hashes, st.integers(0, 9), st.integers(0, 9), st.booleans()),
)
records = st.builds(
    SlotRecord,
    st.integers(0, 2**63),
    st.one_of(st.just(""), hashes),
    entries,
    entries,
    st.integers(0, 86400),
    st.lists(st.tuples(versions, hashes), max_size=36).map(tuple),
)
A, B = "a" * 64, "b" * 64
STARTED = SlotRecord(7, "c" * 64, SlotEntry("1.0", A, 2, 0, True), SlotEntry())


@given(records)
def test_what_is_written_is_read_back(record: SlotRecord) -> None:
    data = format_copy(record)
    assert len(data) == COPY_SIZE
    assert data.endswith(b"\n")
    assert parse_copy(data) == record


@given(records, st.integers(0, COPY_SIZE - 1), st.integers(1, 255))
def test_one_changed_byte_before_the_check_is_seen(record: SlotRecord, position: int, change: int) -> None:
    data = bytearray(format_copy(record))
    position %= data.index(b"\ncheck ")
    data[position] ^= change
    assert parse_copy(bytes(data)) is None


@given(st.binary(max_size=2 * COPY_SIZE))
def test_noise_is_no_record(data: bytes) -> None:
    assert parse_copy(data) is None


@given(records, st.integers(0, COPY_SIZE))
def test_a_torn_copy_is_no_record_or_the_whole_one(record: SlotRecord, kept: int) -> None:
    torn = format_copy(record)[:kept].ljust(COPY_SIZE, b"\0")
    assert parse_copy(torn) in (None, record) if kept < COPY_SIZE else parse_copy(torn) == record


def test_the_bytes_are_the_contract() -> None:
    record = SlotRecord(17, A, SlotEntry("1.0", A, 2, 0, True), SlotEntry("2.0", B, 3, 3, False), 600, (("0.9", B),))
    head = (
        f"appliance-slots 1\nsequence 17\nbase {A}\nslot a 1.0 {A} priority=2 tries=0 blessed=1\n"
        f"slot b 2.0 {B} priority=3 tries=3 blessed=0\ndeadline 600\ndenied 0.9 {B}\n"
    ).encode()
    assert format_copy(record) == (head + b"check %08x\n" % zlib.crc32(head)).ljust(COPY_SIZE, b"\n")


def test_lines_of_a_newer_version_are_kept() -> None:
    body = format_copy(STARTED).partition(b"check ")[0] + b"wave 12 of 100\n"
    newer = (body + b"check %08x\n" % zlib.crc32(body)).ljust(COPY_SIZE, b"\n")
    record = parse_copy(newer)
    assert record is not None
    assert record.unknown == ("wave 12 of 100",)
    assert b"\nwave 12 of 100\n" in format_copy(record.cleared("b"))


def test_the_oldest_denied_go_when_there_is_no_room() -> None:
    denied = tuple((f"1.{n}.0-{'x' * 30}", f"{n:064x}") for n in range(60))
    record = SlotRecord(1, A, denied=denied)
    kept = parse_copy(format_copy(record))
    assert kept is not None
    assert 0 < len(kept.denied) <= 40
    assert kept.denied == denied[-len(kept.denied) :]


def test_the_newer_whole_copy_counts_and_the_other_is_written_first() -> None:
    old, new = format_copy(STARTED), format_copy(STARTED.cleared("b"))
    broken = b"\0" * COPY_SIZE
    assert read_record(b"") == (None, 1)
    assert read_record(old + new) == (STARTED.cleared("b"), 0)
    assert read_record(new + old) == (STARTED.cleared("b"), 1)
    assert read_record(broken + old) == (STARTED, 0)
    assert read_record(old + broken) == (STARTED, 1)
    assert read_record(broken + old[:600]) == (STARTED, 0)  # the end of a new file was not written: only padding
    assert read_record(broken + old[:600] + b"\xff" * 999) == (STARTED, 0)
    with pytest.raises(CorruptError, match="neither copy"):
        read_record(broken + broken)


def test_an_update_through_the_record() -> None:
    assert pick(STARTED) == "a"
    armed = STARTED.cleared("b").armed("b", version="2.0", sha256=B, tries=3, deadline=60)
    assert pick(armed) == "b"
    assert armed.b.on_trial
    assert armed.sequence == STARTED.sequence + 2
    blessed = armed.blessed_as("b")
    assert (pick(blessed), blessed.a.priority, blessed.b.tries) == ("b", 1, 0)
    condemned = armed.condemned("b")
    assert (pick(condemned), condemned.denied) == ("a", (("2.0", B),))
    assert not condemned.b.on_trial
    again = condemned.cleared("b").armed("b", version="2.0", sha256=B, tries=1, deadline=60)
    assert again.denied == ()  # a person forced it
    assert other("a") == "b"


def test_a_dropped_binary_is_blessed_and_ends_a_trial() -> None:
    armed = STARTED.armed("b", version="2.0", sha256=B, tries=3, deadline=60)
    seeded = armed.seeded("b", version="9.0", sha256="d" * 64, base="e" * 64)
    assert (pick(seeded), seeded.base, seeded.a.priority) == ("b", "e" * 64, 1)
    seeded = armed.seeded("a", version="9.0", sha256="d" * 64, base="e" * 64)
    assert (pick(seeded), seeded.b) == ("a", SlotEntry())
