"""What happened, told to whoever listens. The teller never waits: a slow listener loses events and is told how many."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType

import trio

from appliance.host import clock

Value = str | int | float | bool | None


@dataclass(frozen=True)
class BusEvent:
    """One thing that happened. ``lost``: how many the listener missed just before this one."""

    sequence: int
    time: float  # wall clock
    kind: str  # service, unit, update, settings, store
    subject: str
    data: Mapping[str, Value] = field(default_factory=dict)
    lost: int = 0


class Subscription:
    """``async for event in bus.subscribe()``. Leaves the bus when closed, or when nobody holds it any more."""

    def __init__(self, size_max: int) -> None:
        self._waiting: deque[BusEvent] = deque()
        self._size_max = size_max
        self._lost = 0
        self._closed = False
        self._readers = trio.lowlevel.ParkingLot()

    def offer(self, event: BusEvent) -> None:
        """Called by the bus; when the buffer is full the oldest goes."""
        if len(self._waiting) >= self._size_max:
            dropped = self._waiting.popleft()
            self._lost += 1 + dropped.lost
        self._waiting.append(event)
        self._readers.unpark_all()

    def close(self) -> None:
        """No more events; a waiting reader ends."""
        self._closed = True
        self._waiting.clear()
        self._readers.unpark_all()

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""
        return self._closed

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> BusEvent:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            await self._readers.park()
        event = self._waiting.popleft()
        if self._lost:
            event, self._lost = replace(event, lost=self._lost), 0
        await trio.lowlevel.cancel_shielded_checkpoint()  # an event once taken is not lost to a cancel
        return event


class EventBus:
    """Keeps the last events, numbers them from 1, and passes each to every subscription."""

    def __init__(self, history_max: int = 512) -> None:
        self._sequence = 0
        self._history: deque[BusEvent] = deque(maxlen=history_max)
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()

    def publish(self, kind: str, subject: str, **data: Value) -> None:
        """Never waits, never fails."""
        self._sequence += 1
        event = BusEvent(self._sequence, clock.wall_seconds(), kind, subject, data)
        self._history.append(event)
        for subscription in list(self._subscriptions):
            if subscription.closed:
                self._subscriptions.discard(subscription)
            else:
                subscription.offer(event)

    def history(self) -> tuple[BusEvent, ...]:
        """The last events, oldest first."""
        return tuple(self._history)

    def subscribe(self, *, after: int | None = None, size_max: int = 256) -> Subscription:
        """From now on; or first what the history still has after that sequence number."""
        subscription = Subscription(size_max)
        for event in self._history if after is not None else ():
            if after is not None and event.sequence > after:
                subscription.offer(event)
        self._subscriptions.add(subscription)
        return subscription
