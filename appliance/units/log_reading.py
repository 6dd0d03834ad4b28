"""Reads the logs of one unit or of many as one stream, by time. Nothing here waits; ``log_following`` does."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from appliance.errors import NotFoundError
from appliance.host import clock, files
from appliance.units.invocations import Invocations
from appliance.units.journal import Journal
from appliance.units.log_cursor import Cursor, Pieces, Place, end_of, newest_first, since_place
from appliance.units.log_query import Entry, LogQuery
from appliance.units.unit_section import plain_name

KERNEL = "kernel"
DIRECTORY = ".kernel"  # of the pseudo-unit: no unit's name
_ENTRIES_AT_ONCE = 512
_BLOCKS_AT_ONCE = 2  # that are looked through before others have their turn
_LOOKS_AT_ONCE = 2000


class Reading:
    """``begin`` to its end, then ``take`` as often as there is something."""

    def __init__(self, journals: Mapping[str, Journal], query: LogQuery) -> None:
        self._query = query
        self._wanted = query.filter()
        self._pieces = Pieces()
        self._journals: dict[str, tuple[str, Journal]] = {}  # by directory
        self._cursors: dict[str, Cursor] = {}
        self._entries: dict[str, deque[Entry]] = {}
        self._queue: list[tuple[str, str]] = []  # (time of its next line, directory); what is to be looked at has ""
        self._since: dict[str, str] = {}
        self._invocation: dict[str, str] = {}  # by directory, where one is asked for
        for unit, journal in journals.items():
            self._admit(unit, journal)

    def _admit(self, unit: str, journal: Journal) -> None:
        self._journals[journal.directory] = (unit, journal)
        oldest = journal.oldest_seconds
        self._since[journal.directory] = max(self._query.since, clock.timestamp(oldest) if oldest else "")
        if self._query.invocation:
            known = Invocations(journal.directory)
            known.look()
            self._invocation[journal.directory] = known.find(self._query.invocation)

    def begin(self) -> Iterator[None]:
        """Find where to begin in each. Every step is short."""
        lines = self._query.lines
        if lines is None:
            places = {}
            for directory, (_, journal) in self._journals.items():
                places[directory] = since_place(journal, self._pieces, self._since[directory])
                yield
        else:
            places = {}
            for directory, (_, journal) in self._journals.items():
                places[directory] = end_of(journal, self._pieces)
                yield
            yield from self._go_back(lines, places)
        for directory, place in places.items():
            self._set(directory, place)

    def _set(self, directory: str, place: Place) -> None:
        unit, journal = self._journals[directory]
        self._cursors[directory] = Cursor(journal, unit, self._pieces, place)
        self._entries[directory] = deque()
        heapq.heappush(self._queue, ("", directory))

    def _go_back(self, lines: int, places: dict[str, Place]) -> Iterator[None]:
        """The last so many of all that match; ``places`` go back to where these begin."""
        queue: list[tuple[_Newest, str, Iterator[tuple[Entry, Place] | None]]] = []
        found: dict[str, Place] = {}
        if lines <= 0:
            return
        for number, directory in enumerate(places):
            source = self._back(directory)
            for step in source:
                if step is None:
                    yield
                    continue
                entry, found[directory] = step
                heapq.heappush(queue, (_Newest(entry.time), directory, source))
                break
            if number % 8 == 7:
                yield
        looked = 0
        while queue and lines > 0:
            _, directory, source = queue[0]
            places[directory] = min(places[directory], found[directory])
            lines -= 1
            for step in source:
                if step is None:
                    yield
                    continue
                entry, found[directory] = step
                heapq.heapreplace(queue, (_Newest(entry.time), directory, source))
                break
            else:
                heapq.heappop(queue)
            looked += 1
            if looked % _LOOKS_AT_ONCE == 0:
                yield

    def _back(self, directory: str) -> Iterator[tuple[Entry, Place] | None]:
        """Lines that match, newest first; None: others may have a turn."""
        unit, journal = self._journals[directory]
        stop = since_place(journal, self._pieces, self._since[directory]) if self._since[directory] else Place(0, 0)
        for number, (entry, place) in enumerate(newest_first(journal, unit, self._pieces), 1):
            if place < stop:
                return
            if self._matches(entry, directory):
                yield entry, place
            elif number % 500 == 0:
                yield None

    def _matches(self, entry: Entry, directory: str) -> bool:
        since, until = self._since[directory], self._query.until
        if (since and entry.time < since) or (until and entry.time > until):
            return False
        if self._query.invocation and entry.invocation != (self._invocation[directory] or None):
            return False
        return self._wanted is None or self._wanted(entry)

    # -- forward ----------------------------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether ``take`` would look at something."""
        return bool(self._queue)

    def grew(self, directory: str) -> bool:
        """Something was written there; whether that is one of ours."""
        if directory not in self._entries:
            return False
        if not self._entries[directory]:
            heapq.heappush(self._queue, ("", directory))
        return True

    def admit(self, unit: str, journal: Journal) -> None:
        """One that came later: all of it."""
        if journal.directory not in self._cursors:
            self._admit(unit, journal)
            self._set(journal.directory, since_place(journal, self._pieces, self._since[journal.directory]))

    def take(self) -> list[Entry]:
        """The next lines, perhaps none of these: ``has_more`` tells whether there are others."""
        taken: list[Entry] = []
        blocks = 0
        while self._queue and len(taken) < _ENTRIES_AT_ONCE:
            _, directory = self._queue[0]
            entries = self._entries[directory]
            if not entries:
                if blocks >= _BLOCKS_AT_ONCE:
                    break
                blocks += 1
                if self._read(directory):
                    heapq.heapreplace(self._queue, (entries[0].time if entries else "", directory))
                else:
                    heapq.heappop(self._queue)
                continue
            taken.append(entries.popleft())
            heapq.heapreplace(self._queue, (entries[0].time if entries else "", directory))
        return taken

    def _read(self, directory: str) -> bool:
        """The next block of it; whether there may be more."""
        cursor, entries = self._cursors[directory], self._entries[directory]
        found = cursor.read() or (cursor.flush() if not self._query.follow else [])
        entries.extend(entry for entry in found if self._matches(entry, directory))
        until = self._query.until
        over = bool(until) and not self._query.follow and not entries and bool(found) and found[-1].time > until
        return bool(found) and not over


def read_log_files(directory: str, names: Sequence[str], query: LogQuery) -> Iterator[Entry]:
    """Of a node that does not run. Raises NotFoundError for a name without a log."""
    there = sorted(name for name in files.list_directory(directory) if name == DIRECTORY or not name.startswith("."))
    known = {KERNEL if name == DIRECTORY else name: Journal(f"{directory}/{name}") for name in there}
    wanted: dict[str, Journal] = {}
    for name in names or ("*",):
        found = {one: journal for one, journal in known.items() if fnmatchcase(one, plain_name(name))}
        if not found and not any(sign in name for sign in "*?["):
            raise NotFoundError(f"cannot find the log of {name}: nothing in {directory}", where=directory)
        wanted |= found
    reading = Reading(wanted, query)
    for _ in reading.begin():
        pass
    while reading.has_more:
        yield from reading.take()


class _Newest(str):
    """Sorts the other way round."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)
