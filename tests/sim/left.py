"""What a power cut may leave on the disk of ``slotcalls``: every such disk, or for bulk data a sample by the seed.

Of a small file every unsynced sector is the old one, the new one, torn in its middle, or (where there was none before)
noise: all combinations. Of a large file nothing, all, a prefix, and a few subsets. Of the names of each directory every
prefix of the changes. All combinations of these over all files and directories.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from tests.sim.slotcalls import SimFile, SimSlotCalls, Thing, _written

SECTOR = 512
SMALL = 3 * 4096
COMBINATIONS_MAX = 256  # of one file; beyond that a sample

Names = dict[str, bytes | str]


def disks_left(calls: SimSlotCalls, *, seed: int = 0) -> Iterator[SimSlotCalls]:
    """A fresh disk for each state that the frozen one may be found in, none twice."""
    rng, seen = random.Random(seed), set[int]()
    files = {id(one): one for one in (*calls.names.values(), *calls._durable.values()) if isinstance(one, SimFile)}
    contents = [_contents(file, rng) for file in files.values()]
    changes = list(calls._pending.values())
    kept = [range(len(one) + 1) for one in changes]
    for prefix in itertools.product(*kept):
        names: dict[str, Thing] = dict(calls._durable)
        for count, one in zip(prefix, changes, strict=True):
            for path, thing in one[:count]:
                if thing is None:
                    names.pop(path, None)
                else:
                    names[path] = thing
        named = {id(thing) for thing in names.values()}
        used = [found if key in named else found[:1] for key, found in zip(files, contents, strict=True)]
        for chosen in itertools.product(*used):
            data = dict(zip(files, chosen, strict=True))
            plain = {path: thing if isinstance(thing, str) else data[id(thing)] for path, thing in names.items()}
            mark = hash(tuple(sorted(plain.items(), key=lambda item: item[0])))
            if mark in seen:
                continue
            seen.add(mark)
            yield _disk(names, data)


def _disk(names: dict[str, Thing], data: dict[int, bytes]) -> SimSlotCalls:
    made, twins = SimSlotCalls(), dict[int, SimFile]()
    for path, thing in names.items():
        if not isinstance(thing, str):  # two names of one file stay that
            thing = twins.setdefault(id(thing), SimFile(data[id(thing)]))
        made.names[path] = made._durable[path] = thing
    return made


def _contents(file: SimFile, rng: random.Random) -> list[bytes]:
    if not file.pending:
        return [file.durable]
    if sum(len(data) for _, data in file.pending) > SMALL:
        return list(dict.fromkeys(_sample(file, rng)))
    pieces = []  # per sector of a write: what may be there
    for offset, data in file.pending:
        at = offset
        while at < offset + len(data):
            end = min((at // SECTOR + 1) * SECTOR, offset + len(data))
            new = data[at - offset : end - offset]
            pieces.append(_alternatives(file.durable[at:end], new, at, rng))
            at = end
    return list(dict.fromkeys(_written(file.durable, [one for one in way if one]) for way in _ways(pieces, rng)))


Piece = tuple[int, bytes] | None


def _alternatives(old: bytes, new: bytes, at: int, rng: random.Random) -> list[Piece]:
    if old == new:
        return [None]
    middle = next(i for i in range(len(new)) if old[i : i + 1] != new[i : i + 1]) + 1
    found: list[Piece] = [None, (at, new), (at, new[:middle])]
    if not old.strip(b"\0"):
        found.append((at, rng.randbytes(len(new))))
    return found


def _ways(pieces: list[list[Piece]], rng: random.Random) -> Iterator[tuple[Piece, ...]]:
    total = 1
    for one in pieces:
        total *= len(one)
    if total <= COMBINATIONS_MAX:
        yield from itertools.product(*pieces)
        return
    for index in range(4):  # nothing, all, all torn, all noise
        yield tuple(one[min(index, len(one) - 1)] for one in pieces)
    for _ in range(COMBINATIONS_MAX // 4):
        yield tuple(rng.choice(one) for one in pieces)


def _sample(file: SimFile, rng: random.Random) -> Iterator[bytes]:
    pending = file.pending
    yield file.durable
    yield _written(file.durable, pending)
    for _ in range(2):
        yield _written(file.durable, pending[: rng.randint(0, len(pending))])
        kept = [(at, data[: rng.randint(0, len(data))]) for at, data in pending if rng.random() < 0.5]
        yield _written(file.durable, kept)
