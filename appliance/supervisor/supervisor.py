"""Keeps services up. Each has one task here that walks it through ``lifecycle``; ``order`` decides who goes when.

Facts are fed without an await between the look and the move, and waiting is always on the present state (``_until``),
never on an event that a later life replaces. A fault in one service goes no further than its own life: those that need
it are asked to stop, wait, and start again when it is back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio

from appliance.errors import ApplianceError, CorruptError
from appliance.host import clock
from appliance.supervisor import order
from appliance.supervisor.bus import Value
from appliance.supervisor.lifecycle import LIVE, Event, State, step
from appliance.supervisor.service import Moment, Service, ServicePicture

HISTORY_MAX = 32


class Publish(Protocol):
    """``EventBus.publish``."""

    def __call__(self, kind: str, subject: str, **data: Value) -> None:
        """Tell it."""


@dataclass(frozen=True)
class GaveUp:
    """The essential service whose end is the end of the process."""

    name: str
    reason: str


@dataclass(eq=False)
class _Life:
    """One run of a main: asked by ``stopping``; the scope's deadline first times the start, then the grace."""

    stopping: trio.Event
    scope: trio.CancelScope


@dataclass(eq=False)
class _Record:
    service: Service
    state: State = State.WAITING
    wanted: bool = True
    failures: int = 0
    corrupt: bool = False  # what it went down for is wrong for good: nobody retries
    ready_at: float = math.inf  # trio's clock; inf: not in this life
    life: _Life | None = None
    history: deque[Moment] = field(default_factory=lambda: deque(maxlen=HISTORY_MAX))


class Supervisor:
    """Runs all its services until ``close`` was called and all are down."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        publish: Publish | None = None,
        on_fault: Callable[[str, Exception], None] | None = None,
    ) -> None:
        """Raises InputError when the needs have a cycle or name nobody."""
        self._needs = {service.name: service.needs for service in services}
        assert len(self._needs) == len(services), "two services of one name"
        order.start_order(self._needs)
        self._all = {service.name: _Record(service) for service in services}
        self._publish = publish
        self._on_fault = on_fault
        self._changed = trio.lowlevel.ParkingLot()
        self._closing = False
        self.gave_up: GaveUp | None = None
        for it in self._all.values():
            it.history.append(Moment(clock.wall_seconds(), it.state.value, ""))

    # What is so.

    def state(self, name: str) -> State:
        """The state of one service."""
        return self._all[name].state

    def pictures(self) -> tuple[ServicePicture, ...]:
        """All services, as declared."""
        return tuple(_picture(it) for it in self._all.values())

    def essential_ready(self) -> tuple[bool, tuple[str, ...]]:
        """Whether every essential service is ready, and of each that is not, why."""
        reasons = tuple(
            f"{name} is {it.state.value}" + (f": {it.history[-1].reason}" if it.history[-1].reason else "")
            for name, it in self._all.items()
            if it.service.essential and it.state is not State.READY
        )
        return not reasons, reasons

    async def wait_ready(self) -> None:
        """Until every essential service is ready."""
        await self._until(lambda: self.essential_ready()[0])

    async def wait_settled(self) -> None:
        """Until every essential service is ready, or has failed once, or needs one that has: the first outcome."""
        await self._until(
            lambda: self._closing or all(self._settled(it) for it in self._all.values() if it.service.essential)
        )

    async def wait_outcome(self, name: str) -> None:
        """The same for one service: until it is ready, or it is clear that it is not now."""
        await self._until(lambda: self._closing or self._settled(self._all[name]))

    def _settled(self, it: _Record) -> bool:
        return (
            it.state in (State.READY, State.STOPPED, State.FAILED)
            or it.failures > 0
            or any(self._all[need].failures > 0 for need in it.service.needs)
        )

    # What is asked.

    def close(self, reason: str = "the process ends") -> None:
        """Ask all to stop, dependants first; ``run`` returns when they are down."""
        self._closing = True
        for it in self._all.values():
            self._unwant(it, reason)
        self._settle(reason)
        self._changed.unpark_all()

    async def stop_all(self, reason: str = "the process ends") -> None:
        """``close``, and wait until all are down."""
        self.close(reason)
        await self._until(lambda: all(it.state not in LIVE for it in self._all.values()))

    async def stop(self, name: str, reason: str = "stop asked") -> None:
        """Stop one, those that need it first; they wait for it. Returns when it is down."""
        it = self._all[name]
        self._unwant(it, reason)
        self._settle(reason)
        await self._until(lambda: it.state not in LIVE)

    def start(self, name: str, reason: str = "start asked") -> None:
        """Want it again; also after it was given up."""
        it = self._all[name]
        it.wanted = True
        if it.state in (State.STOPPED, State.FAILED) and not self._closing:
            it.failures = 0
            self._feed(it, Event.START_ASKED, reason)

    async def restart(self, name: str, reason: str = "restart asked") -> None:
        """Stop it, and want it again."""
        await self.stop(name, reason)
        self.start(name, reason)

    def _unwant(self, it: _Record, reason: str) -> None:
        it.wanted = False
        if it.state in (State.WAITING, State.BACKOFF):
            self._feed(it, Event.STOP_ASKED, reason)

    # What is done.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until ``close``, or until an essential service is given up (then ``gave_up`` says which)."""
        async with trio.open_nursery() as nursery:
            for it in self._all.values():
                nursery.start_soon(self._supervise, it, name=f"service {it.service.name}")
            task_status.started()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.park()

    def _states(self) -> dict[str, State]:
        return {name: it.state for name, it in self._all.items()}

    def _unwanted(self) -> set[str]:
        return {name for name, it in self._all.items() if not it.wanted}

    def _feed(self, it: _Record, event: Event, reason: str) -> None:
        it.state = step(it.state, event)
        it.history.append(Moment(clock.wall_seconds(), it.state.value, reason))
        if self._publish is not None:
            self._publish("service", it.service.name, state=it.state.value, reason=reason)
        self._settle(reason)
        self._changed.unpark_all()

    def _settle(self, reason: str) -> None:
        """Ask whoever must stop now. Asking makes nobody else due, for one who stops still holds what it needs."""
        for name in order.decide_stops(self._needs, self._states(), self._unwanted()):
            it = self._all[name]
            if it.state is State.STOPPING:
                continue  # telling of the one before has come here already
            assert it.life is not None, f"{name} is live without a life"
            it.life.stopping.set()
            it.life.scope.deadline = trio.current_time() + it.service.stop_grace
            if it.wanted:
                self._feed(it, Event.NEED_LOST, self._missing(it) or reason)
            else:
                self._feed(it, Event.STOP_ASKED, reason)

    async def _supervise(self, it: _Record) -> None:
        while not (self._closing and it.state in (State.STOPPED, State.FAILED)):
            match it.state:
                case State.WAITING:
                    await self._until(lambda: it.state is not State.WAITING or self._may_start(it))
                    if it.state is State.WAITING:
                        await self._live(it)
                case State.BACKOFF:
                    await self._back_off(it)
                case State.STOPPED:
                    await self._until(lambda: it.state is not State.STOPPED or it.wanted or self._closing)
                    if it.state is State.STOPPED and it.wanted and not self._closing:
                        self._feed(it, Event.START_ASKED, self._missing(it))
                case State.FAILED:
                    await self._until(lambda: it.state is not State.FAILED or self._closing)
                case State.STARTING | State.READY | State.STOPPING:
                    raise AssertionError(f"{it.service.name} is {it.state.value} outside its life")

    def _missing(self, it: _Record) -> str:
        gone = [name for name in sorted(it.service.needs) if self._all[name].state is not State.READY]
        return f"needs {', '.join(gone)}" if gone else ""

    def _may_start(self, it: _Record) -> bool:
        return order.may_start(it.service.name, self._needs, self._states(), self._unwanted())

    async def _live(self, it: _Record) -> None:
        life = _Life(trio.Event(), trio.CancelScope(deadline=trio.current_time() + it.service.start_timeout))
        it.life, it.ready_at = life, math.inf
        self._feed(it, Event.NEEDS_MET, "")
        fault: Exception | None = None
        try:
            with life.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(partial(it.service.main, stopping=life.stopping), name=it.service.name)
                    if it.state is State.STARTING:
                        life.scope.deadline = math.inf
                        it.ready_at = trio.current_time()
                        self._feed(it, Event.CAME_UP, "")
        except Exception as exc:  # noqa: BLE001 - here and in containing.py, nowhere else
            fault = exc
        except BaseException:  # cancelled with the whole supervisor; the picture must still be true
            if it.state is not State.STOPPING:
                self._feed(it, Event.STOP_ASKED, "cancelled")
            self._feed(it, Event.WENT_DOWN, "cancelled")
            raise
        finally:
            it.life = None
        self._went_down(it, life, fault)

    def _went_down(self, it: _Record, life: _Life, fault: Exception | None) -> None:
        asked = it.state is State.STOPPING
        if life.scope.cancelled_caught:
            seconds = it.service.stop_grace if asked else it.service.start_timeout
            reason = f"did not stop in {seconds:g} s: cancelled" if asked else f"not ready in {seconds:g} s"
        elif fault is None or (asked and it.ready_at == math.inf and _never_started(fault)):
            reason, fault = ("" if asked else "returned by itself"), None
        else:
            reason = describe(fault)
        if not asked:
            ready_seconds = max(0.0, trio.current_time() - it.ready_at)
            it.failures = it.service.restart.failures_after(it.failures, ready_seconds)
        it.corrupt = fault is not None and _is_corrupt(fault)
        self._feed(it, Event.WENT_DOWN, reason)
        if fault is not None and self._on_fault is not None:
            self._on_fault(it.service.name, fault)

    async def _back_off(self, it: _Record) -> None:
        if it.corrupt:  # the others go on: a node whose store is damaged still keeps its units up
            self._feed(it, Event.GAVE_UP, it.history[-1].reason)
            return
        delay = it.service.restart.delay(it.failures)
        if delay is None:
            reason = f"given up after {it.failures} failures: {it.history[-1].reason}"
            self._feed(it, Event.GAVE_UP, reason)
            if it.service.essential and not self._closing:
                self.gave_up = GaveUp(it.service.name, reason)
                self.close(f"{it.service.name} was given up")
            return
        with trio.move_on_after(delay):
            await self._until(lambda: it.state is not State.BACKOFF)
        if it.state is State.BACKOFF:
            self._feed(it, Event.RESTART_DUE, "")


def _never_started(fault: Exception) -> bool:
    """Trio's own complaint about a task that returned before started(), which a polite early stop does."""
    if isinstance(fault, ExceptionGroup):
        return len(fault.exceptions) == 1 and _never_started(fault.exceptions[0])
    return isinstance(fault, RuntimeError) and "task_status.started()" in str(fault)


def _is_corrupt(fault: Exception) -> bool:
    if isinstance(fault, ExceptionGroup):
        return any(_is_corrupt(member) for member in fault.exceptions)
    return isinstance(fault, CorruptError)


def describe(fault: BaseException) -> str:
    """One line for people: our own errors as they are, others with their type, a group as its members."""
    if isinstance(fault, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(describe(member) for member in fault.exceptions))
    if isinstance(fault, ApplianceError):
        return str(fault)
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__


def _picture(it: _Record) -> ServicePicture:
    now = it.history[-1]
    quiet = it.state is State.READY and trio.current_time() - it.ready_at >= it.service.restart.quiet
    return ServicePicture(
        name=it.service.name,
        state=it.state.value,
        since=now.time,
        failures=0 if quiet else it.failures,
        reason=now.reason,
        essential=it.service.essential,
        needs=tuple(sorted(it.service.needs)),
        history=tuple(it.history),
    )
