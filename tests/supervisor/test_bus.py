from __future__ import annotations

import gc

import trio
import trio.testing

from appliance.supervisor import EventBus


async def test_a_slow_listener_loses_the_oldest_and_is_told_how_many() -> None:
    bus = EventBus(history_max=4)
    with bus.subscribe(size_max=3) as events:
        for number in range(10):
            bus.publish("unit", "web", number=number)
        first = await anext(events)
        assert (first.sequence, first.lost, first.data["number"]) == (8, 7, 7)
        assert [(await anext(events)).lost for _ in range(2)] == [0, 0]
    assert [event.sequence for event in bus.history()] == [7, 8, 9, 10]


async def test_a_listener_wakes_and_can_start_in_the_past() -> None:
    bus = EventBus()
    bus.publish("store", "store", revision=1)
    bus.publish("store", "store", revision=2)
    seen: list[int] = []

    async def listen() -> None:
        async for event in bus.subscribe(after=1):
            seen.append(event.sequence)
            if event.sequence == 3:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [2]
        bus.publish("store", "store", revision=3)
    assert seen == [2, 3]


async def test_closing_ends_the_reader_and_nobody_is_kept_alive() -> None:
    bus = EventBus()
    events = bus.subscribe()
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            assert [event async for event in events] == []

        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        events.close()
    forgotten = bus.subscribe()
    del forgotten
    gc.collect()
    bus.publish("unit", "web")
    assert not list(bus._subscriptions)
