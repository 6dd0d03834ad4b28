"""Logs as a stream for as long as somebody reads it, at his pace: he holds up nobody but himself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping

import trio

from appliance.host import clock
from appliance.units.journal import Growth, Journal
from appliance.units.log_query import Entry, LogQuery
from appliance.units.log_reading import Reading
from appliance.units.pictures import LogLine

_STEPS_AT_ONCE = 16


async def read_logs(
    journals: Mapping[str, Journal],
    query: LogQuery,
    growth: Growth,
    *,
    find: Callable[[str], tuple[str, Journal] | None] = lambda directory: None,
) -> AsyncGenerator[list[Entry], None]:
    """Some lines at a time; none at all, once, when all that was there is told and new ones are waited for.

    ``find`` tells of a journal that came later, by its directory, when it is wanted too.
    """
    reading = Reading(journals, query)
    grown: dict[str, None] = {}
    bell = trio.Event()

    def ring(directory: str) -> None:
        grown[directory] = None
        bell.set()

    if query.follow:
        growth.listeners.append(ring)
    try:
        for number, _ in enumerate(reading.begin()):
            if number % _STEPS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        told = False
        while True:
            while reading.has_more:
                if entries := reading.take():
                    yield entries
                await trio.lowlevel.checkpoint()
            if not query.follow:
                return
            if not told:
                told = True
                yield []
            await bell.wait()
            bell = trio.Event()
            for directory in list(grown):
                del grown[directory]
                if not reading.grew(directory) and (found := find(directory)) is not None:
                    reading.admit(*found)
    finally:
        if query.follow:
            growth.listeners.remove(ring)


async def read_journal(
    journal: Journal, *, lines: int | None = None, since: float | None = None, follow: bool = False
) -> AsyncGenerator[LogLine, None]:
    """The lines of one journal, oldest first; ``since`` in seconds since 1970."""
    query = LogQuery(lines=lines, since=clock.timestamp(since) if since is not None else "", follow=follow)
    batches = read_logs({"": journal}, query, journal.growth)
    try:
        async for entries in batches:
            for entry in entries:
                yield entry.line()
    finally:
        await batches.aclose()
