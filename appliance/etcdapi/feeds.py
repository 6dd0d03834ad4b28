"""Where watches get their events: one watcher of the store for all who watch the same range at its live end.

Who starts in the past, or reads too slowly, gets a feed of its own, which rereads history as its client takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import trio

from appliance.errors import ApplianceError, CorruptError
from appliance.etcdapi.encoding import encode_event
from appliance.store import CompactedError, Event, Store, WatchBatch, Watcher

_RESTART_SECONDS = 0.5
_FLUSH_EVERY = 200

Range = tuple[bytes, bytes | None, bool]  # key, range_end, with previous values


class Way(Protocol):
    """What goes to some subscribers goes down it."""

    def deliver(
        self, subscribers: Sequence[Any], batch: WatchBatch, encoded: EncodedEvents, reached: int
    ) -> Sequence[Subscriber]:
        """As theirs, for all of these. Returns those whom it was not sent to."""


class Subscriber(Protocol):
    """One watch of one client."""

    range: Range
    next_revision: int

    @property
    def way(self) -> Way:
        """Who has the same is told in one go."""

    def deliver(self, batch: WatchBatch, encoded: EncodedEvents, reached: int) -> bool:
        """Send it; nothing else up to ``reached`` is to come. False: not sent, no room until ``wait_for_room`` says."""

    async def wait_for_room(self) -> None:
        """Until what was sent has left."""

    def compacted(self, revision: int) -> None:
        """What it wants is no longer kept."""

    def damaged(self) -> None:
        """What it wants cannot be read."""


class EncodedEvents:
    """The events of a batch as field 11 of a WatchResponse, encoded at most once each."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self._parts: list[bytes] | None = None
        self._whole: bytes | None = None

    def parts(self) -> list[bytes]:
        """One for each event."""
        if self._parts is None:
            self._parts = [encode_event(event) for event in self.events]
        return self._parts

    def whole(self) -> bytes:
        """All of them."""
        if self._whole is None:
            self._whole = b"".join(self.parts())
        return self._whole


class Feeds:
    """All feeds; ``nursery`` runs them."""

    def __init__(self, store: Store, nursery: trio.Nursery, flush: Callable[[], None]) -> None:
        """``flush`` sends what was delivered so far."""
        self.store = store
        self.flush = flush
        self._nursery = nursery
        self._live: dict[Range, _Feed] = {}
        self._of: dict[int, _Feed] = {}  # by id of the subscriber

    def add(self, subscriber: Subscriber) -> None:
        """From its ``next_revision`` on."""
        feed = self._live.get(subscriber.range)
        now = self.store.revision
        if subscriber.next_revision <= now:
            feed = _Feed(self, subscriber.range, subscriber.next_revision, shared=False)
        elif feed is None:
            feed = self._live[subscriber.range] = _Feed(self, subscriber.range, now + 1, shared=True)
        self._join(feed, subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """It wants no more."""
        feed = self._of.pop(id(subscriber), None)
        if feed is None:
            return
        feed.part(subscriber)
        if not feed.ways:
            feed.scope.cancel()
            if self._live.get(feed.range) is feed:
                del self._live[feed.range]

    def part(self, subscriber: Subscriber) -> None:
        """It is too slow for the others."""
        self.remove(subscriber)
        self._join(_Feed(self, subscriber.range, subscriber.next_revision, shared=False), subscriber)

    def has(self, feed: _Feed, subscriber: Subscriber) -> bool:
        """Whether it is still this one that feeds it."""
        return self._of.get(id(subscriber)) is feed

    def seen(self, subscriber: Subscriber) -> int:
        """Up to which revision it was told everything that it wants to know."""
        feed = self._of.get(id(subscriber))
        seen = max(subscriber.next_revision - 1, feed.seen() if feed is not None else 0)
        return min(seen, self.store.revision)

    def _join(self, feed: _Feed, subscriber: Subscriber) -> None:
        self._of[id(subscriber)] = feed
        feed.ways.setdefault(subscriber.way, {})[id(subscriber)] = subscriber
        if not feed.started:
            feed.started = True
            self._nursery.start_soon(feed.run)


class _Feed:
    def __init__(self, feeds: Feeds, what: Range, start_revision: int, *, shared: bool) -> None:
        self._feeds = feeds
        self.range = what
        self._next_revision = start_revision
        self._shared = shared
        self.ways: dict[Way, dict[int, Subscriber]] = {}  # subscribers by id, by their way
        self.scope = trio.CancelScope()
        self.started = False
        self._watcher: Watcher | None = None

    def part(self, subscriber: Subscriber) -> None:
        """One wants no more."""
        same = self.ways[subscriber.way]
        del same[id(subscriber)]
        if not same:
            del self.ways[subscriber.way]

    def subscribers(self) -> list[Subscriber]:
        """All of them now."""
        return [subscriber for same in self.ways.values() for subscriber in same.values()]

    def seen(self) -> int:
        """Up to here nothing is left to come."""
        watcher = self._watcher
        if watcher is not None and watcher.synced and watcher.next_revision == self._next_revision:
            return self._feeds.store.revision  # nothing is queued: all that is durable was looked at
        return self._next_revision - 1

    async def run(self) -> None:
        """Until nobody is left."""
        with self.scope:
            while self.ways:
                try:
                    if not self._shared:  # nothing is read for one who could not take it
                        for subscriber in self.subscribers():
                            await subscriber.wait_for_room()
                    await self._follow()
                except CompactedError as exc:
                    for subscriber in self.subscribers():
                        subscriber.compacted(exc.compacted_revision)
                        self._feeds.remove(subscriber)
                except CorruptError as exc:  # it will not get better by waiting
                    self._feeds.store.met_damage(exc)
                    for subscriber in self.subscribers():
                        subscriber.damaged()
                        self._feeds.remove(subscriber)
                except ApplianceError:
                    await trio.sleep(_RESTART_SECONDS)  # the store is being opened anew: go on where we were

    async def _tell_again(
        self, subscriber: Subscriber, batch: WatchBatch, encoded: EncodedEvents, reached: int
    ) -> None:
        """Who had no room: it goes on by itself, or is the only one and we wait."""
        while not subscriber.deliver(batch, encoded, reached) and self._feeds.has(self, subscriber):
            if self._shared:
                self._feeds.part(subscriber)
                return
            await subscriber.wait_for_room()

    async def _follow(self) -> None:
        key, range_end, prev_kv = self.range
        store = self._feeds.store
        async with store.watch(key, range_end, start_revision=self._next_revision, prev_kv=prev_kv) as watcher:
            self._watcher = watcher
            async for batch in watcher:
                encoded = EncodedEvents(batch.events)
                told = 0
                for way, same in list(self.ways.items()):
                    if told >= _FLUSH_EVERY:
                        told = 0
                        self._feeds.flush()  # the first may read while we write to the last
                    told += len(same)
                    left = way.deliver(list(same.values()), batch, encoded, watcher.reached)
                    if left:
                        self._feeds.flush()  # what can leave has left: who is parted now waits until the client reads
                    for subscriber in left:
                        await self._tell_again(subscriber, batch, encoded, watcher.reached)
                self._next_revision = batch.revision + 1
