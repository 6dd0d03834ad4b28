"""The life of one service, as a table. No I/O, no clock, no trio.

Rule: every state, event and move is in this file; nothing else may decide one. What is asked of a service (``wanted``)
is not a state: a dependant whose need is lost goes down to STOPPED like any other, and START_ASKED brings it back.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """Where a service is in its life."""

    WAITING = "waiting"  # for what it needs
    STARTING = "starting"  # running, not yet ready
    READY = "ready"
    STOPPING = "stopping"  # asked to end, not down yet
    BACKOFF = "backoff"  # failed, a restart is due
    STOPPED = "stopped"
    FAILED = "failed"  # given up


class Event(enum.Enum):
    """What can happen to it."""

    NEEDS_MET = "needs met"
    CAME_UP = "came up"
    WENT_DOWN = "went down"
    STOP_ASKED = "stop asked"
    NEED_LOST = "need lost"
    RESTART_DUE = "restart due"
    GAVE_UP = "gave up"
    START_ASKED = "start asked"


class IllegalTransition(AssertionError):
    """Our own bug, never a fault of the outside world."""


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.WAITING: {
        Event.NEEDS_MET: State.STARTING,
        Event.STOP_ASKED: State.STOPPED,
    },
    State.STARTING: {
        Event.CAME_UP: State.READY,
        Event.WENT_DOWN: State.BACKOFF,
        Event.STOP_ASKED: State.STOPPING,
        Event.NEED_LOST: State.STOPPING,
    },
    State.READY: {
        Event.WENT_DOWN: State.BACKOFF,
        Event.STOP_ASKED: State.STOPPING,
        Event.NEED_LOST: State.STOPPING,
    },
    State.STOPPING: {Event.WENT_DOWN: State.STOPPED},
    State.BACKOFF: {
        Event.RESTART_DUE: State.WAITING,
        Event.GAVE_UP: State.FAILED,
        Event.STOP_ASKED: State.STOPPED,
    },
    State.STOPPED: {Event.START_ASKED: State.WAITING},
    State.FAILED: {Event.START_ASKED: State.WAITING},
}

LIVE = frozenset({State.STARTING, State.READY, State.STOPPING})  # its code runs


def step(state: State, event: Event) -> State:
    """The next state. Raises IllegalTransition, and then nothing has changed."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"{event.value!r} while {state.value!r}") from None
