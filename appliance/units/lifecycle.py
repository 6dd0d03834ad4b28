"""The life of one unit, as a table. Pure: nothing else may decide a state."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """Where a unit is."""

    WAITING = "waiting"  # for what it is ordered after
    STARTING = "starting"  # its process runs, or is about to; not ready yet
    READY = "ready"
    RELOADING = "reloading"  # ready, and reading its configuration again
    EXITED = "exited"  # ended well and stays so: a oneshot that is done counts as ready
    STOPPING = "stopping"  # going down, for whatever reason, until nothing of it is left
    BACKOFF = "backoff"  # failed; a restart is due
    STOPPED = "stopped"  # not wanted, or what it requires is not there
    FAILED = "failed"  # given up

    @property
    def is_active(self) -> bool:
        """Whether processes of it may exist."""
        return self in (State.STARTING, State.READY, State.RELOADING, State.STOPPING)

    @property
    def is_up(self) -> bool:
        """Whether those that require it may start."""
        return self in (State.READY, State.RELOADING, State.EXITED)


class Event(enum.Enum):
    """What happened to it."""

    WANTED = "wanted"
    NEEDS_MET = "needs met"
    CAME_UP = "came up"
    REMAINS = "remains"  # its process is over, and it stays up without (remain_after_exit)
    RELOADS = "reloads"
    RELOADED = "reloaded"  # well or not: it goes on
    ENDING = "ending"  # its main process ended, or a stop was asked, or it was found unwell
    GONE = "gone"  # nothing of it is left, and it is not to come back by itself
    GONE_WELL = "gone well"
    GONE_BADLY = "gone badly"  # and a restart is due
    GAVE_UP = "gave up"
    RESTART_DUE = "restart due"
    DROPPED = "dropped"  # not wanted any more, while it had no process


class IllegalTransition(AssertionError):
    """Our own bug, never a fault of the outside world."""


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.WAITING: {Event.NEEDS_MET: State.STARTING, Event.DROPPED: State.STOPPED},
    State.STARTING: {Event.CAME_UP: State.READY, Event.REMAINS: State.EXITED, Event.ENDING: State.STOPPING},
    State.READY: {Event.RELOADS: State.RELOADING, Event.REMAINS: State.EXITED, Event.ENDING: State.STOPPING},
    State.RELOADING: {Event.RELOADED: State.READY, Event.REMAINS: State.EXITED, Event.ENDING: State.STOPPING},
    State.EXITED: {Event.RELOADS: State.RELOADING, Event.ENDING: State.STOPPING, Event.DROPPED: State.STOPPED},
    State.STOPPING: {
        Event.GONE: State.STOPPED,
        Event.GONE_WELL: State.EXITED,
        Event.GONE_BADLY: State.BACKOFF,
        Event.GAVE_UP: State.FAILED,
    },
    State.BACKOFF: {Event.RESTART_DUE: State.WAITING, Event.DROPPED: State.STOPPED},
    State.STOPPED: {Event.WANTED: State.WAITING},
    State.FAILED: {Event.DROPPED: State.STOPPED},
}


def step(state: State, event: Event) -> State:
    """The next state. Raises IllegalTransition and changes nothing."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"{event.value!r} while {state.value!r}") from None
