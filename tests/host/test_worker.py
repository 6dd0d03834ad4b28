"""One thread, one call after another: waited for with patience or without, never left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio

from appliance.host.worker import Worker


async def run(worker: Worker, patience: float, function: Callable[..., int], *args: int) -> object:
    """Without patience at once by the task; with it, as long as that lasts, with the loop."""
    if not patience:
        return await worker.call(function, *args)
    answers = []
    if not worker.call_now(lambda: answers.append(function(*args)), patience=patience):
        await worker.finish()
    return answers[0]


@pytest.mark.parametrize("patience", [0.0, 0.0003, 30.0])
async def test_calls_run_in_one_thread_and_answer(patience: float) -> None:
    worker = Worker("test")
    threads = set()

    def double(number: int) -> int:
        threads.add(threading.get_ident())
        if number == 7:
            raise ValueError("seven")
        return 2 * number

    for number in range(300):
        if number == 7:
            with pytest.raises(ValueError, match="seven"):
                await run(worker, patience, double, number)
        else:
            assert await run(worker, patience, double, number) == 2 * number
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    worker.close()
    worker.close()


async def test_the_loop_goes_on_when_patience_ends() -> None:
    worker = Worker("test")
    proceed = threading.Event()
    answers = []

    async def call() -> None:
        assert not worker.call_now(proceed.wait, 60, patience=0.001)
        answers.append(await worker.finish())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        proceed.set()
    assert answers == [True]
    for number in range(100):  # a wake-up that comes late must not be taken for the next call's
        assert await run(worker, 0.001 * (number % 2), lambda number=number: number) == number
    worker.close()


async def test_a_call_that_began_is_waited_for() -> None:
    worker = Worker("test")
    began, proceed = threading.Event(), threading.Event()
    ended = []

    def work() -> None:
        began.set()
        proceed.wait(60)
        ended.append(True)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.call, work)
            await trio.to_thread.run_sync(began.wait)
            scope.cancel()
            proceed.set()
    assert ended == [True]
    with trio.CancelScope() as scope:
        scope.cancel()
        await worker.call(ended.clear)
    assert ended == [True]
    worker.close()


async def test_a_call_that_the_loop_waits_for_may_go_on_without_it() -> None:
    worker = Worker("test")
    proceed = threading.Event()
    assert worker.call_now(lambda: None, patience=60)
    with pytest.raises(ZeroDivisionError):
        worker.call_now(lambda: 1 // 0, patience=60)
    assert not worker.call_now(proceed.wait, 60, patience=0.001)
    proceed.set()
    assert await worker.finish() is True
    assert await worker.call(lambda: 5) == 5
    worker.close()
