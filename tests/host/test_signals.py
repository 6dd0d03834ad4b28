from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from appliance.host.signals import HANGUP, TERMINATE, Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPWR)
    before = {number: signal.getsignal(number) for number in numbers}
    it = Signals()
    it.take_over()
    yield it
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_those_before_and_during_the_wait_come_in_order(signals: Signals) -> None:
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.pending
    assert [await signals.wait(), await signals.wait()] == [HANGUP, TERMINATE]
    async with trio.open_nursery() as nursery:

        async def kill() -> None:
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)

        nursery.start_soon(kill)
        assert await signals.wait() == TERMINATE
    signals.put_back(TERMINATE)
    assert await signals.wait() == TERMINATE
    assert not signals.pending


async def test_a_flood_wakes_and_loses_no_kind(signals: Signals) -> None:
    seen: set[int] = set()
    for _ in range(500):
        os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    while TERMINATE not in seen:
        seen.add(await signals.wait())
    assert seen == {HANGUP, TERMINATE}


def test_blocked_over_the_exec_they_arrive_after_taking_over(signals: Signals) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.raise_signal(signal.SIGTERM)  # at this thread: any other of pytest's has it open
    assert not signals.pending
    signals.take_over()
    assert signals.pending
