"""Many ranges: the index finds what a look at each would find, whatever came and went."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from appliance.store.ranges import NEW_MAX, Ranges
from appliance.store.rules import in_range

KEYS = st.binary(min_size=1, max_size=2).map(lambda key: bytes(byte % 4 for byte in key))
RANGES = st.tuples(KEYS, KEYS | st.just(b"\0"))
STEPS = st.lists(st.tuples(st.booleans(), RANGES, st.integers(0, 2)), max_size=200)


@given(STEPS, st.lists(KEYS, min_size=1, max_size=4))
def test_as_a_look_at_each(steps: list[tuple[bool, tuple[bytes, bytes], int]], keys: list[bytes]) -> None:
    index: Ranges[tuple[bytes, bytes, int]] = Ranges()
    there: set[tuple[bytes, bytes, int]] = set()
    for adding, (key, end), name in steps:
        thing = (key, end, name)
        if adding:
            index.add(key, end, thing)
            there.add(thing)
        else:
            index.discard(key, end, thing)
            there.discard(thing)
        for asked in keys:
            found = index.at(asked)
            assert len(found) == len(set(found))
            assert set(found) == {each for each in there if in_range(asked, each[0], each[1])}
    assert (set(index), len(index), bool(index)) == (there, len(there), bool(there))


def test_large_ones_that_come_and_go() -> None:
    chance = random.Random(5)
    index: Ranges[int] = Ranges()
    there: dict[int, tuple[bytes, bytes]] = {}
    for number in range(3000):
        start = chance.randrange(100_000)
        end = b"\0" if chance.random() < 0.001 else b"%06d" % (start + chance.choice([1, 1, 10, 1000]))
        there[number] = (b"%06d" % start, end)
        index.add(*there[number], number)
        if chance.random() < 0.4:
            gone = chance.choice(list(there))
            index.discard(*there.pop(gone), gone)
    for _ in range(300):
        key = b"%06d" % chance.randrange(100_000)
        assert sorted(index.at(key)) == [number for number, ends in there.items() if in_range(key, *ends)]
    for number in list(there):
        index.discard(*there.pop(number), number)
    assert not index
    assert index.at(b"000001") == []
    assert len(index._placed) <= NEW_MAX + 1  # nothing piles up
