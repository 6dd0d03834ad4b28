from __future__ import annotations

import ctypes
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.launcher.conftest import COPY, Record, checked, lines

DENIED = "".join(f"denied {n}.0 {'d' * 64}\n" for n in range(40))


def parse(c: ctypes.CDLL, copy: bytes) -> Record | None:
    record = Record()
    assert len(copy) == COPY
    return record if c.record_parse(copy, ctypes.byref(record)) & 1 else None


def spend(c: ctypes.CDLL, copy: bytes, slot: int) -> bytes | None:
    out = ctypes.create_string_buffer(COPY)
    return out.raw if c.record_spend(copy, slot, out) & 1 else None


def test_reads_what_was_written(c: ctypes.CDLL) -> None:
    record = parse(c, checked(lines(rest=DENIED)))
    assert record is not None
    assert (record.sequence, record.base, record.deadline) == (17, b"b" * 64, 600)
    assert [(s.version, s.sha256[:1], s.priority, s.tries, s.blessed) for s in record.slot] == [
        (b"1.0", b"a", 2, 0, True),
        (b"2.0", b"c", 3, 3, False),
    ]


def test_an_empty_slot_and_words_of_a_later_version_are_read(c: ctypes.CDLL) -> None:
    text = lines(b="- - priority=0 tries=0 blessed=0 wave=7", rest="colour blue\n")
    record = parse(c, checked(text))
    assert record is not None
    assert record.slot[1].version == b"-"


@pytest.mark.parametrize(
    "text",
    [
        lines().replace("slots 1", "slots 2"),
        lines().replace("sequence 17", "sequence -1"),
        lines().replace("sequence 17", "sequence 99999999999999999999999"),
        lines().replace("sequence 17\n", ""),
        lines().replace("sequence 17", "sequence 17\nsequence 18"),
        lines().replace("slot b", "slot c"),
        lines().replace("slot b", "slot a"),
        lines().replace("priority=3", "priority="),
        lines().replace("priority=3", "priority=1001"),
        lines().replace("tries=3", "tries=three"),
        lines().replace("blessed=1", "blessed=2"),
        lines().replace("deadline 600", "deadline soon"),
        lines(base="b" * 100),
        lines() + "\n",
    ],
    ids=lambda text: text[-60:].strip()[:20],
)
def test_refuses_what_it_does_not_understand(c: ctypes.CDLL, text: str) -> None:
    assert parse(c, checked(text)) is None


def test_refuses_every_single_flipped_byte(c: ctypes.CDLL) -> None:
    good = checked(lines())
    for place in range(good.rstrip(b"\n").__len__()):
        assert parse(c, good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :]) is None, f"byte {place}"


@pytest.mark.parametrize("junk", [b"", b"\0" * COPY, b"\n" * COPY, b"x" * COPY, b"check 00000000\n".ljust(COPY, b"\n")])
def test_refuses_junk(c: ctypes.CDLL, junk: bytes) -> None:
    assert parse(c, junk.ljust(COPY, b"\0")) is None


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (checked(lines(sequence=5)), checked(lines(sequence=4)), (0, 5)),
        (checked(lines(sequence=5)), checked(lines(sequence=6)), (1, 6)),
        (checked(lines(sequence=5)), checked(lines(sequence=5)), (0, 5)),
        (b"\0" * COPY, checked(lines(sequence=6)), (1, 6)),
        (checked(lines(sequence=5)), b"torn".ljust(COPY), (0, 5)),
        (b"\0" * COPY, b"\0" * COPY, (-1, 0)),
    ],
)
def test_takes_the_valid_copy_with_the_higher_sequence(
    c: ctypes.CDLL, first: bytes, second: bytes, wanted: tuple[int, int]
) -> None:
    record = Record()
    assert (c.record_newest(first + second, ctypes.byref(record)), record.sequence) == wanted


def test_picks_the_highest_priority_that_is_blessed_or_has_tries_left(c: ctypes.CDLL) -> None:
    c.record_pick.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_bool]
    choices = list(itertools.product((1, 2), (0, 2), (False, True), (False, True)))  # priority tries blessed exists
    for a, b, may_try in itertools.product(choices, choices, (False, True)):
        record = Record()
        for slot, (priority, tries, blessed, _) in zip(record.slot, (a, b), strict=True):
            slot.priority, slot.tries, slot.blessed = priority, tries, blessed
        able = {
            number: (-priority, number)
            for number, (priority, tries, blessed, exists) in enumerate((a, b))
            if exists and (blessed or (may_try and tries > 0))
        }
        wanted = min(able, key=able.__getitem__, default=-1)
        there = (ctypes.c_bool * 2)(a[3], b[3])
        assert c.record_pick(ctypes.byref(record), there, may_try) == wanted, (a, b, may_try)


def test_spending_takes_one_try_and_nothing_else(c: ctypes.CDLL) -> None:
    text = lines(b=f"2.0 {'c' * 64} priority=3 tries=10 blessed=0 wave=7", rest="colour blue\n" + DENIED)
    spent = spend(c, checked(text), 1)
    assert spent == checked(text.replace("sequence 17", "sequence 18").replace("tries=10", "tries=9"))


@pytest.mark.parametrize(
    "copy",
    [
        checked(lines(b="2.0 c priority=3 tries=0 blessed=0")),
        b"\0" * COPY,
        checked(lines()).replace(b"tries=3", b"tries=9"),
    ],
    ids=["no try left", "nothing", "bad check"],
)
def test_what_cannot_be_spent_is_refused(c: ctypes.CDLL, copy: bytes) -> None:
    assert spend(c, copy, 1) is None


def test_a_full_record_is_not_overrun(c: ctypes.CDLL) -> None:
    text = lines(sequence=9)  # the next sequence has one digit more
    room = COPY - len("check 00000000\n") - len(text) - 1
    full = checked(text + ("x " * room)[:room] + "\n")
    assert parse(c, full) is not None
    assert spend(c, full, 1) is None


WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-+", min_size=1, max_size=64)


@settings(max_examples=200, deadline=None)
@given(
    sequence=st.integers(0, 2**64 - 3), base=WORD, versions=st.tuples(WORD, WORD), priority=st.integers(0, 1000),
    tries=st.integers(1, 1000), deadline=st.integers(0, 1000000),
)  # fmt: skip
def test_any_record_survives_the_round_trip(
    c: ctypes.CDLL, sequence: int, base: str, versions: tuple[str, str], priority: int, tries: int, deadline: int
) -> None:
    a = f"{versions[0]} {'a' * 64} priority=1 tries=0 blessed=1"
    b = f"{versions[1]} - priority={priority} tries={tries} blessed=0"
    spent = spend(c, checked(lines(sequence, base, a, b, deadline)), 1)
    assert spent is not None
    record = parse(c, spent)
    assert record is not None
    assert (record.sequence, record.base.decode(), record.deadline) == (sequence + 1, base, deadline)
    assert [slot.version.decode() for slot in record.slot] == list(versions)
    assert (record.slot[0].tries, record.slot[1].tries) == (0, tries - 1)
