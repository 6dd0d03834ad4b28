"""One start of a unit, step by step, as a table: what systemd calls sub-states. Pure.

``lifecycle`` says what others see of a unit; here is what is done meanwhile.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from appliance.units.lifecycle import Event, IllegalTransition, State


class Phase(enum.Enum):
    """What is being done. The value is kept on disk over the death of the appliance."""

    CLEAR = "clear"  # what an earlier life left behind is killed
    CONDITION = "condition"
    PRE_START = "pre-start"
    START = "start"  # its main process runs, or is about to; not ready yet
    POST_START = "post-start"
    PROVE = "prove"  # it waits for its first good health check
    RUN = "run"
    REMAIN = "remain"  # up, though its main process ended well
    RELOAD = "reload"
    STOP = "stop"  # its own stop commands
    TERM = "term"  # kill_signal was sent
    ABORT = "abort"  # the watchdog's signal was sent
    KILL = "kill"  # SIGKILL was sent
    POST_STOP = "post-stop"
    FINAL_TERM = "final-term"  # what post_stop left behind
    FINAL_KILL = "final-kill"
    END = "end"  # nothing is left


class Turn(enum.Enum):
    """What happened in a phase."""

    DONE = "done"  # its commands went well; or all that was signalled is gone
    BAD = "bad"  # a command failed
    LATE = "late"  # its timeout is over
    REST = "rest"  # the main process is gone, and the rest may be killed at once (kill_mode = "mixed")
    STOP = "stop"  # somebody asked
    MAIN_WELL = "main ended well"
    MAIN_BADLY = "main ended badly"
    SILENT = "silent"  # the watchdog was not heard
    RELOAD = "reload"
    LEAVES = "leaves"  # it says that it ends by itself (STOPPING=1)


_EARLY = {Turn.BAD: Phase.TERM, Turn.LATE: Phase.TERM, Turn.STOP: Phase.TERM}
_DYING = {Turn.DONE: Phase.POST_STOP, Turn.LATE: Phase.KILL, Turn.REST: Phase.KILL}
PHASES: Mapping[Phase, Mapping[Turn, Phase]] = {
    Phase.CLEAR: {Turn.DONE: Phase.CONDITION, Turn.BAD: Phase.FINAL_TERM, Turn.STOP: Phase.FINAL_TERM},
    Phase.CONDITION: {Turn.DONE: Phase.PRE_START, **_EARLY},
    Phase.PRE_START: {Turn.DONE: Phase.START, **_EARLY},
    Phase.START: {
        Turn.DONE: Phase.POST_START, Turn.MAIN_WELL: Phase.TERM, Turn.MAIN_BADLY: Phase.TERM,
        **_EARLY,
    },
    Phase.POST_START: {Turn.DONE: Phase.PROVE, **_EARLY},
    Phase.PROVE: {Turn.DONE: Phase.RUN, Turn.MAIN_WELL: Phase.STOP, Turn.MAIN_BADLY: Phase.TERM, **_EARLY},
    Phase.RUN: {
        Turn.MAIN_WELL: Phase.STOP, Turn.MAIN_BADLY: Phase.TERM, Turn.STOP: Phase.STOP, Turn.SILENT: Phase.ABORT,
        Turn.RELOAD: Phase.RELOAD, Turn.DONE: Phase.REMAIN, Turn.LEAVES: Phase.TERM,
    },
    Phase.REMAIN: {Turn.STOP: Phase.STOP, Turn.RELOAD: Phase.RELOAD},
    Phase.RELOAD: {
        Turn.DONE: Phase.RUN, Turn.BAD: Phase.RUN, Turn.LATE: Phase.RUN,
        Turn.STOP: Phase.TERM, Turn.SILENT: Phase.ABORT, Turn.LEAVES: Phase.TERM,
    },
    Phase.STOP: {Turn.DONE: Phase.TERM, Turn.BAD: Phase.TERM, Turn.LATE: Phase.TERM},
    Phase.TERM: _DYING,
    Phase.ABORT: _DYING,
    Phase.KILL: {Turn.DONE: Phase.POST_STOP, Turn.LATE: Phase.POST_STOP},
    Phase.POST_STOP: {Turn.DONE: Phase.FINAL_TERM, Turn.BAD: Phase.FINAL_TERM, Turn.LATE: Phase.FINAL_TERM},
    Phase.FINAL_TERM: {Turn.DONE: Phase.END, Turn.LATE: Phase.FINAL_KILL, Turn.REST: Phase.FINAL_KILL},
    Phase.FINAL_KILL: {Turn.DONE: Phase.END, Turn.LATE: Phase.END},
    Phase.END: {},
}  # fmt: skip
COMMANDS: Mapping[Phase, str] = {  # the key in [service] whose commands make up that phase
    Phase.CONDITION: "condition", Phase.PRE_START: "pre_start", Phase.POST_START: "post_start",
    Phase.RELOAD: "reload", Phase.STOP: "stop", Phase.POST_STOP: "post_stop",
}  # fmt: skip
_STATES: Mapping[State, tuple[Phase, ...]] = {
    State.STARTING: (
        Phase.CLEAR, Phase.CONDITION, Phase.PRE_START, Phase.START, Phase.POST_START, Phase.PROVE,
    ),
    State.READY: (Phase.RUN,),
    State.EXITED: (Phase.REMAIN,),
    State.RELOADING: (Phase.RELOAD,),
    State.STOPPING: (
        Phase.STOP, Phase.TERM, Phase.ABORT, Phase.KILL, Phase.POST_STOP, Phase.FINAL_TERM, Phase.FINAL_KILL, Phase.END,
    ),
}  # fmt: skip
STATE_OF: Mapping[Phase, State] = {phase: state for state, phases in _STATES.items() for phase in phases}
BEFORE_MAIN = (Phase.CLEAR, Phase.CONDITION, Phase.PRE_START)
DYING = (Phase.TERM, Phase.ABORT, Phase.KILL, Phase.FINAL_TERM, Phase.FINAL_KILL)
# The end of the main process waits until this is over: it is looked at again then.
WAITS_FOR_COMMANDS = (Phase.POST_START, Phase.RELOAD, Phase.STOP, Phase.POST_STOP)


def next_phase(phase: Phase, turn: Turn, is_idle: Callable[[Phase], bool]) -> Phase:
    """The phase that follows; those in which there is nothing to do are passed. Raises IllegalTransition."""
    try:
        after = PHASES[phase][turn]
        while is_idle(after) and Turn.DONE in PHASES[after]:
            after = PHASES[after][Turn.DONE]
    except KeyError:
        raise IllegalTransition(f"{turn.value!r} in phase {phase.value!r}") from None
    return after


def event_between(before: State, after: State) -> Event | None:
    """What to feed the life cycle when a phase of that state follows one of this; None: they are the same."""
    if before is after:
        return None
    match after:
        case State.READY:
            return Event.RELOADED if before is State.RELOADING else Event.CAME_UP
        case State.EXITED:
            return Event.REMAINS
        case State.RELOADING:
            return Event.RELOADS
        case _:
            return Event.ENDING


def takes(phase: Phase, turn: Turn) -> bool:
    """Whether that means anything in this phase."""
    return turn in PHASES[phase]
