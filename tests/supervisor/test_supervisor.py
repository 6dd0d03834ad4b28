"""The nursery that keeps services up, on simulated time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from appliance.errors import InputError, UnavailableError
from appliance.supervisor import EventBus, Restart, Service, State, Supervisor

Main = Callable[..., Awaitable[None]]


def polite(takes: float = 0, log: list[tuple[str, float]] | None = None, name: str = "") -> Main:
    async def main(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await stopping.wait()
        await trio.sleep(takes)
        if log is not None:
            log.append((name, trio.current_time()))

    return main


async def deaf(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


def crashing(*after: float) -> tuple[Main, list[float]]:
    starts: list[float] = []

    async def main(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        starts.append(trio.current_time())
        task_status.started()
        if len(starts) <= len(after):
            await trio.sleep(after[len(starts) - 1])
            raise UnavailableError("cannot go on: gone")
        await stopping.wait()

    return main, starts


def states(supervisor: Supervisor) -> dict[str, str]:
    return {picture.name: picture.state for picture in supervisor.pictures()}


def walk(supervisor: Supervisor, name: str) -> list[str]:
    return next([moment.state for moment in it.history] for it in supervisor.pictures() if it.name == name)


async def test_dies_twice_then_stays_up(autojump_clock: MockClock) -> None:
    main, starts = crashing(5, 5)
    supervisor = Supervisor([Service(name="a", main=main), Service(name="b", main=polite(), needs=frozenset({"a"}))])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await trio.sleep(100)
        assert states(supervisor) == {"a": "ready", "b": "ready"}
        assert [at - starts[0] for at in starts] == [0, 6, 13]
        assert walk(supervisor, "b") == [
            *("waiting", "starting", "ready"),
            *("stopping", "stopped", "waiting", "starting", "ready"),
            *("stopping", "stopped", "waiting", "starting", "ready"),
        ]
        assert supervisor.pictures()[0].failures == 2
        await trio.sleep(120)
        assert supervisor.pictures()[0].failures == 0
        await supervisor.stop_all()
    assert states(supervisor) == {"a": "stopped", "b": "stopped"}


async def test_reasons_are_kept_and_published(autojump_clock: MockClock) -> None:
    bus = EventBus()
    main, _ = crashing(1)
    supervisor = Supervisor([Service(name="a", main=main, restart=Restart(first_delay=3))], publish=bus.publish)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await trio.sleep(2)
        assert supervisor.essential_ready() == (False, ("a is backoff: cannot go on: gone",))
        await supervisor.wait_ready()
        await supervisor.stop_all("enough")
    assert [(event.data["state"], event.data["reason"]) for event in bus.history()] == [
        ("starting", ""), ("ready", ""), ("backoff", "cannot go on: gone"), ("waiting", ""),
        ("starting", ""), ("ready", ""), ("stopping", "enough"), ("stopped", ""),
    ]  # fmt: skip


async def test_a_thousand_failures_are_survived_and_forgotten_after_quiet(autojump_clock: MockClock) -> None:
    main, starts = crashing(*[0.0] * 1100, 1000.0)
    supervisor = Supervisor([Service(name="a", main=main, restart=Restart(first_delay=1, delay_max=2, quiet=900))])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await trio.sleep(1 + 2 * 1099 + 999)
        assert supervisor.pictures()[0].state == "ready"
        await trio.sleep(2.5)  # it died after 1000 quiet seconds: back after 1 s, not 2
        assert starts[-1] - starts[-2] == 1001
        supervisor.close()


async def test_stops_in_reverse_order_asking_first_then_forcing(autojump_clock: MockClock) -> None:
    log: list[tuple[str, float]] = []
    supervisor = Supervisor(
        [
            Service(name="store", main=polite(1, log, "store")),
            Service(name="api", main=polite(2, log, "api"), needs=frozenset({"store"})),
            Service(name="deaf", main=deaf, needs=frozenset({"store"}), stop_grace=5),
        ]
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await supervisor.wait_ready()
        begin = trio.current_time()
        await supervisor.stop_all()
        assert trio.current_time() - begin == 6
    assert [(name, at - begin) for name, at in log] == [("api", 2), ("store", 6)]
    assert supervisor.pictures()[2].reason == "did not stop in 5 s: cancelled"


async def test_a_start_that_fails_or_takes_too_long_is_retried(autojump_clock: MockClock) -> None:
    tries: list[float] = []

    async def slow(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        tries.append(trio.current_time())
        if len(tries) == 1:
            raise OSError("no such thing")
        if len(tries) == 2:
            await trio.sleep(1000)
        if len(tries) == 3:
            return
        await trio.sleep(29)
        task_status.started()
        await stopping.wait()

    supervisor = Supervisor([Service(name="a", main=slow, start_timeout=30)])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await supervisor.wait_settled()
        assert states(supervisor) == {"a": "backoff"}
        await supervisor.wait_ready()
        await supervisor.stop_all()
    reasons = [moment.reason for moment in supervisor.pictures()[0].history if moment.state == "backoff"]
    assert reasons[:2] == ["OSError: no such thing", "not ready in 30 s"]
    assert "task_status.started()" in reasons[2]
    assert [at - tries[0] for at in tries] == [0, 1, 33, 37]


async def test_giving_up_an_essential_service_closes_all_the_other_kind_only_fails(autojump_clock: MockClock) -> None:
    main, starts = crashing(*[0.0] * 9)
    log: list[tuple[str, float]] = []
    supervisor = Supervisor(
        [
            Service(name="rest", main=polite(1, log, "rest")),
            Service(name="extra", main=main, restart=Restart(attempts_max=2), essential=False),
            Service(name="core", main=crashing(*[0.0] * 9)[0], restart=Restart(attempts_max=4)),
        ]
    )
    await supervisor.run()
    assert supervisor.gave_up is not None
    assert (supervisor.gave_up.name, len(starts)) == ("core", 2)
    assert supervisor.gave_up.reason == "given up after 4 failures: cannot go on: gone"
    assert states(supervisor) == {"rest": "stopped", "extra": "failed", "core": "failed"}
    assert log


async def test_a_given_up_one_starts_again_when_a_person_asks(autojump_clock: MockClock) -> None:
    main, starts = crashing(0, 0)
    supervisor = Supervisor([Service(name="a", main=main, restart=Restart(attempts_max=2), essential=False)])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await trio.sleep(100)
        assert states(supervisor) == {"a": "failed"}
        supervisor.start("a")
        await trio.sleep(1)
        assert states(supervisor) == {"a": "ready"}
        assert len(starts) == 3
        supervisor.close()


async def test_one_is_stopped_and_restarted_with_those_that_need_it(autojump_clock: MockClock) -> None:
    log: list[tuple[str, float]] = []
    supervisor = Supervisor(
        [
            Service(name="a", main=polite(1, log, "a")),
            Service(name="b", main=polite(1, log, "b"), needs=frozenset({"a"})),
            Service(name="c", main=polite(1, log, "c"), needs=frozenset({"b"})),
            Service(name="other", main=polite()),
        ]
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await supervisor.wait_ready()
        await supervisor.stop("b")
        assert states(supervisor) == {"a": "ready", "b": "stopped", "c": "waiting", "other": "ready"}
        assert [name for name, _ in log] == ["c", "b"]
        supervisor.start("b")
        await supervisor.wait_ready()
        await supervisor.restart("a", "settings changed")
        await supervisor.wait_ready()
        assert [name for name, _ in log] == ["c", "b", "c", "b", "a"]
        assert walk(supervisor, "other") == ["waiting", "starting", "ready"]
        supervisor.close()


async def test_stop_while_starting_waiting_and_backing_off(autojump_clock: MockClock) -> None:
    async def never(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        await stopping.wait()  # polite, though it was never ready

    supervisor = Supervisor(
        [
            Service(name="starting", main=never),
            Service(name="waiting", main=polite(), needs=frozenset({"starting"})),
            Service(name="backoff", main=crashing(0, 0, 0)[0]),
        ]
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await trio.testing.wait_all_tasks_blocked()
        assert states(supervisor) == {"starting": "starting", "waiting": "waiting", "backoff": "backoff"}
        begin = trio.current_time()
        await supervisor.stop_all()
        assert trio.current_time() == begin
    assert set(states(supervisor).values()) == {"stopped"}
    assert {it.failures for it in supervisor.pictures()} == {0, 1}


async def test_a_bug_in_one_service_is_told_and_kept_from_the_others(autojump_clock: MockClock) -> None:
    faults: list[tuple[str, Exception]] = []

    async def buggy(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            await trio.sleep(0.5)
            raise AssertionError("a bug")

    supervisor = Supervisor(
        [Service(name="buggy", main=buggy), Service(name="fine", main=polite())],
        on_fault=lambda name, fault: faults.append((name, fault)),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await trio.sleep(0.7)
        assert supervisor.pictures()[0].reason == "AssertionError: a bug"
        assert walk(supervisor, "fine") == ["waiting", "starting", "ready"]
        assert [name for name, _ in faults] == ["buggy"]
        supervisor.close()


def test_needs_in_a_circle_are_refused() -> None:
    a = Service(name="a", main=deaf, needs=frozenset({"b"}))
    b = Service(name="b", main=deaf, needs=frozenset({"a"}))
    with pytest.raises(InputError, match="a -> b -> a"):
        Supervisor([a, b])


class _CancelAt(trio.abc.Instrument):
    """Cancels the scope before the n-th step of any task: the cut swept over every checkpoint."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self.left = step
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def _busy_hour(supervisor: Supervisor) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await supervisor.wait_ready()
        await trio.sleep(10)
        await supervisor.restart("a")
        await trio.sleep(10)
        await supervisor.stop_all()


async def test_cancelled_at_every_step_nothing_is_left(autojump_clock: MockClock) -> None:
    alive: set[str] = set()

    def counted(name: str, inner: Main) -> Main:
        async def main(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
            alive.add(name)
            try:
                await inner(stopping=stopping, task_status=task_status)
            finally:
                alive.discard(name)

        return main

    for number in range(1, 1000):
        crash, _ = crashing(2)
        supervisor = Supervisor(
            [
                Service(name="a", main=counted("a", crash)),
                Service(name="b", main=counted("b", polite(1)), needs=frozenset({"a"})),
                Service(name="c", main=counted("c", deaf), needs=frozenset({"b"}), stop_grace=1),
            ]
        )
        with trio.CancelScope() as scope:
            instrument = _CancelAt(number, scope)
            trio.lowlevel.add_instrument(instrument)
            await _busy_hour(supervisor)
        trio.lowlevel.remove_instrument(instrument)
        assert not alive
        live = {State.STARTING.value, State.READY.value, State.STOPPING.value}
        assert not live & set(states(supervisor).values())
        if not scope.cancel_called:
            break
    else:
        pytest.fail("the hour has more steps than the sweep")
    assert number > 50
