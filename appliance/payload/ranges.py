"""Which bytes of a pack to ask for: those of the missing chunks, neighbours in one request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.payload.index import Index

GAP_BYTES = 16 << 10  # fewer than this between two: asking once is cheaper than asking twice
RANGES_MAX = 48
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Range:
    """Bytes ``start`` to before ``end`` of the pack, and the chunks in them, in order."""

    start: int
    end: int
    chunks: tuple[int, ...]


def plan_ranges(
    index: Index, missing: Iterable[int], *, gap: int = GAP_BYTES, ranges_max: int = RANGES_MAX
) -> list[Range]:
    """In the order in which they lie. When there would be many, wider gaps are taken along."""
    wanted = sorted({index.first[number] for number in missing}, key=index.offsets.__getitem__)
    if not wanted:
        return []
    ranges = _merge(index, wanted, gap)
    if sum(one.end - one.start for one in ranges) >= index.pack_length * _NEARLY_ALL:
        gap = index.pack_length  # one request from the first to the last
        ranges = _merge(index, wanted, gap)
    while len(ranges) > ranges_max:
        gap *= 2
        ranges = _merge(index, wanted, gap)
    return ranges


def _merge(index: Index, wanted: list[int], gap: int) -> list[Range]:
    found: list[Range] = []
    chunks: list[int] = []
    start = end = index.offsets[wanted[0]]
    for number in wanted:
        offset = index.offsets[number]
        if offset - end > gap:
            found.append(Range(start, end, tuple(chunks)))
            start, chunks = offset, []
        chunks.append(number)
        end = max(end, offset + index.stored_length(number))
    found.append(Range(start, end, tuple(chunks)))
    return found
