"""A payload, put together from what is here and what is fetched: chunk by chunk, each verified before it counts.

The file has its full length from the beginning; which chunks it holds is found out by reading it. So there is nothing
that a power cut could set wrong, and whatever was verified once is not fetched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from appliance.errors import NotFoundError, UnavailableError, UntrustedError
from appliance.host import clock, entropy
from appliance.host.ahead import ahead
from appliance.host.failpoint import reach
from appliance.host.slots import BLOCK, Reading, Writing, file_size, reading, writing
from appliance.payload import Index, chunk_hash, cut, plain, plan_ranges
from appliance.update.fetch import Fetcher
from appliance.update.matching import matching
from appliance.update.progress import Progress

_ATTEMPTS_MAX = 4  # in a row, without a chunk between them
_WAIT_FIRST, _WAIT_MAX = 0.2, 10.0
_SYNC_BYTES = 32 << 20  # synced beside what goes on; at most twice as much is ever owed
_RUN_MAX = 2 << 20
_STRANGE_MAX = 32 << 20  # bytes in a row


class _Run:
    """Chunks of a seed that follow each other; those of a window are views of one piece of memory."""

    def __init__(self, start: int = 0) -> None:
        self.start = self.end = start
        self.chunks: list[tuple[int, memoryview]] = []

    def add(self, number: int, data: memoryview) -> None:
        """One more, right behind the last."""
        self.chunks.append((number, data))
        self.end += len(data)


@dataclass(kw_only=True)
class Assembly:
    """One file to be made. ``alive`` raises when nobody waits for it any more."""

    index: Index
    fetcher: Fetcher
    url: str  # of the pack, or of the file itself
    path: str
    progress: Progress
    seeds: Iterable[str] = ()
    alive: Callable[[], None] = lambda: None
    sleep: Callable[[float], None] = clock.sleep
    have: bytearray = field(default_factory=bytearray)
    fetched: bool = False  # the file holds what would have to be fetched again

    def run(self) -> None:
        """All chunks, synced. Raises UntrustedError, UnavailableError, NotFoundError; what is here stays then."""
        index = self.index
        self.have = bytearray(len(index))
        fresh = file_size(self.path) != index.length
        self._places = index.places()
        self._unsynced, self._owed = 0, False  # bytes written; whether a sync was begun whose end nobody saw
        self._shares = True  # until the file system says no
        with writing(self.path, index.length, mode=0o755) as file:
            self._file = file
            if not fresh:
                self.progress.enter("verifying what is here", index.length)
                self._look_through(file)
            for seed in self.seeds:
                if 0 in self.have and file_size(seed):
                    self.progress.enter("reading what runs", index.length)
                    self._take_from(seed)
            try:
                if 0 in self.have:
                    self._fetch()
            finally:
                reach("update.fetch.unsynced")
                if self._unsynced or self._owed:
                    file.sync()
                reach("update.fetch.synced")
        self.progress.enter("fetched", index.length)

    # --- what is here ---

    def _look_through(self, file: Writing) -> None:
        """Which chunks the file holds already: they were written by an attempt that was cut off."""
        for number, data in matching(file, self.index, self._written(file), self.alive):
            if data is not None:
                self._count(number, len(data))
                self.fetched = True

    def _written(self, file: Writing) -> Iterator[int]:
        """The chunks that do not lie in a hole of the file."""
        begin, end = file.data_end(0)
        for number, length in enumerate(self.index.lengths):
            position = self.index.positions[number]
            while end <= position < file.size:
                begin, end = file.data_end(position)
            if position + length > begin:
                yield number

    def _count(self, number: int, length: int) -> None:
        self.have[number] = 1
        self.progress.present += length

    def _take_from(self, seed: str) -> None:
        """What the seed has of it. A seed that cannot be read is none: everything can be fetched."""
        try:
            with reading(seed) as source:
                moved = self._take_in_place(source)
                if 0 not in self.have:
                    return
                for _, chunk in cut(source.at, source.size, average=self.index.average, parts=moved):
                    self._put(chunk_hash(chunk), chunk)
                    self.alive()
                    if 0 not in self.have:
                        return
        except UnavailableError as exc:
            if exc.where != seed:
                raise

    def _take_in_place(self, source: Reading) -> list[tuple[int, int]]:
        """What did not even move, and where the file system can, without a copy of it: the blocks are shared.

        Returns the parts of the seed that were not taken.
        """
        left, at = [], 0
        with ahead(self._runs(source)) as runs:  # read and hashed there, written here
            for run in runs:
                self._take_run(source, run)
                if run.start > at:
                    left.append((at, run.start))
                at = run.end
        return [*left, (at, source.size)] if source.size > at else left

    def _runs(self, source: Reading) -> Iterator[_Run]:
        """Missing chunks that lie in the seed where they are to be here."""
        index, run, strange = self.index, _Run(), 0
        missing = (
            number for number in self._missing()
            if index.positions[number] + index.lengths[number] <= source.size
        )  # fmt: skip
        for number, data in matching(source, index, missing, self.alive):
            if data is None:
                strange += index.lengths[number]
                if strange >= _STRANGE_MAX:  # the rest has moved: it is found by its content
                    break
                continue
            strange = 0
            if run.end != index.positions[number] or run.end - run.start >= _RUN_MAX:
                if run.chunks:
                    yield run
                run = _Run(index.positions[number])
            run.add(number, data)
        if run.chunks:
            yield run

    def _take_run(self, source: Reading, run: _Run) -> None:
        start, end = -(-run.start // BLOCK) * BLOCK, run.end // BLOCK * BLOCK
        if self._shares and end > start:
            self._shares = self._file.share(source, start, end - start)
        if not self._shares or end <= start:
            start = end = run.end
        for number, data in run.chunks:
            position = self.index.positions[number]
            if position < start:
                self._file.put(position, data[: start - position])
            if position + len(data) > end:
                self._file.put(max(position, end), data[max(0, end - position) :])
            self._kept(number, len(data))
            for same in self._places[self.index.hash(number)]:
                if not self.have[same]:
                    self._keep(same, data)
        self._sync_sometimes()

    def _put(self, name: bytes, chunk: bytes | memoryview) -> None:
        """Wherever it belongs and is missing, if it belongs anywhere."""
        numbers = self._places.get(name, ())
        for number in numbers:
            if not self.have[number] and len(chunk) == self.index.lengths[number]:
                self._keep(number, chunk)
        self._sync_sometimes()

    def _keep(self, number: int, data: bytes | memoryview) -> None:
        self._file.put(self.index.positions[number], data)
        self._kept(number, len(data))

    def _kept(self, number: int, length: int) -> None:
        self._count(number, length)
        self._unsynced += length
        reach("update.fetch.chunk")

    def _sync_sometimes(self) -> None:
        if self._unsynced >= _SYNC_BYTES:
            self._file.sync_soon()
            self._owed, self._unsynced = True, 0

    # --- what is not ---

    def _missing(self) -> list[int]:
        return [number for number, here in enumerate(self.have) if not here]

    def _fetch(self) -> None:
        failures, wait = 0, _WAIT_FIRST
        while missing := self._missing():
            ranges = plan_ranges(self.index, missing)
            self.progress.enter("downloading", self.index.length)
            self.progress.to_fetch = self.progress.fetched + sum(one.end - one.start for one in ranges)
            try:
                for one in ranges:
                    if not all(self.have[number] for number in one.chunks):
                        self._fetch_range(one.start, one.end, one.chunks)
            except UntrustedError as exc:
                others = self.fetcher.blame(exc.message)
                failures += 1
                if failures > others:
                    raise
            except NotFoundError:
                raise
            except UnavailableError as exc:
                if exc.where == self.path:
                    raise  # our own disk
                failures = failures + 1 if self._missing() == missing else 1
                if failures >= _ATTEMPTS_MAX:
                    raise
                wait = _WAIT_FIRST if failures == 1 else min(_WAIT_MAX, entropy.uniform(_WAIT_FIRST, wait * 3))
                self.progress.trouble = exc.message
                self.sleep(wait)

    def _fetch_range(self, start: int, end: int, chunks: Iterable[int]) -> None:
        reach("update.fetch.range")
        at, pieces = self.fetcher.open_at(self.url, start, end)
        if at != start:  # the server sends all of it: then take all that is missing as it comes by
            first = self.index.first
            chunks = sorted({first[number] for number in self._missing()}, key=self.index.offsets.__getitem__)
        try:
            self._read_chunks(at, pieces, chunks)
            if at == start and next(pieces, b""):  # to its end, so that the connection is used again
                raise UntrustedError(f"cannot take {self.url}: the server sends more than was asked for")
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _read_chunks(self, at: int, pieces: Iterator[bytes], chunks: Iterable[int]) -> None:
        """``at``: where in the pack the pieces begin."""
        index, buffer = self.index, bytearray()
        for number in chunks:
            offset, stored = index.offsets[number], index.stored_length(number)
            while at + len(buffer) < offset + stored:
                piece = next(pieces, b"")
                self.alive()
                if not piece:
                    raise UnavailableError(
                        f"cannot fetch {self.url}: it ended after byte {at + len(buffer)} of {index.pack_length}",
                        where=self.url,
                    )
                self.progress.receive(len(piece))
                reach("update.fetch.piece")
                if at + len(buffer) < offset:  # before what we want
                    skipped = min(offset - at, len(buffer) + len(piece))
                    buffer += piece
                    del buffer[:skipped]
                    at += skipped
                else:
                    buffer += piece
            if offset > at:
                del buffer[: offset - at]
                at = offset
            name = index.hash(number)
            with memoryview(buffer) as view, view[:stored] as held:
                chunk = plain(held, index.lengths[number])
                if chunk is None or chunk_hash(chunk) != name:
                    raise UntrustedError(
                        f"cannot take {self.url}: bytes {offset} to {offset + stored - 1} are not what was signed "
                        "(damaged or tampered with)",
                        where=self.url,
                    )
                self._put(name, chunk)
            self.fetched = True
            del buffer[:stored]
            at += stored
