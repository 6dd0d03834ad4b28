"""Which chunks lie in a file just where the index puts them. It is read in large pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from appliance.host.slots import Reading
from appliance.payload import Index, chunk_hash

_WINDOW = 2 << 20


def matching(
    source: Reading, index: Index, numbers: Iterable[int], alive: Callable[[], None]
) -> Iterator[tuple[int, memoryview | None]]:
    """Each of these chunks, in order, with its bytes, or None where something else lies. ``numbers`` must rise."""
    for window in _windows(index, numbers):
        alive()
        start = index.positions[window[0]]
        end = index.positions[window[-1]] + index.lengths[window[-1]]
        held = memoryview(source.at(start, end - start))
        for number in window:
            at = index.positions[number] - start
            data = held[at : at + index.lengths[number]]
            yield number, data if chunk_hash(data) == index.hash(number) else None


def _windows(index: Index, numbers: Iterable[int]) -> Iterator[list[int]]:
    """Neighbours together, as many as one piece holds."""
    window: list[int] = []
    for number in numbers:
        if window and (
            number != window[-1] + 1
            or index.positions[number] + index.lengths[number] - index.positions[window[0]] > _WINDOW
        ):
            yield window
            window = []
        window.append(number)
    if window:
        yield window
