"""A unit as others see it: the next supervisor by the file in the run directory, people by its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.errors import ApplianceError
from appliance.host import clock, files
from appliance.units.last_lines import last_lines
from appliance.units.lifecycle import State
from appliance.units.pictures import ExitPicture, UnitPicture
from appliance.units.restarts import is_flapping, restarts_within
from appliance.units.run_state import RunState

if TYPE_CHECKING:
    from appliance.units.runner import Runner

_STATE_FILE = "state.json"
BACKOFF = "backoff"
# What the first version knew of; it takes a unit without its process as one that failed, and follows its policy.
_KNOWN_TO_ALL = {State.STOPPING: State.READY, State.RELOADING: State.READY, State.BACKOFF: State.READY}


def remember(runner: Runner) -> None:
    """Write the file. What cannot be written is said, and the unit runs on."""
    try:
        data = run_state_of(runner).encode()
        files.write_atomic(f"{runner.directory}/{_STATE_FILE}", data, mode=0o600, durable=False)
    except ApplianceError as exc:
        runner.ground.on_trouble(runner.name, f"{exc.message}; were we killed now, the unit would be started anew")


def forget(runner: Runner) -> None:
    """It is down, and the next supervisor need not know that it ever was up."""
    try:
        files.remove(f"{runner.directory}/{_STATE_FILE}")
    except ApplianceError as exc:
        runner.ground.on_trouble(runner.name, exc.message)


def run_state_of(runner: Runner) -> RunState:
    """All that ``resuming`` needs."""
    life = runner.life
    main = life.main if life is not None else None
    control = life.control if life is not None else None
    last = life.last if life is not None else runner.last
    waits = runner.state in (State.BACKOFF, State.WAITING)
    return RunState(
        name=runner.name,
        boot_id=runner.ground.boot_id,
        state=_KNOWN_TO_ALL.get(runner.state, runner.state).value,
        reason=runner.reason,
        pid=main.pid if main else 0,
        start_ticks=main.start_ticks if main else 0,
        invocation=life.invocation if life is not None else "",
        cgroup=(life.group.path or "") if life is not None and life.group is not None else "",
        since=runner.since,
        failures=runner.failures,
        restarts=runner.restarts,
        last_exit=life.last_exit if life is not None else runner.last_exit,
        status_text=runner.status_text,
        digest=runner.digest,
        file=runner.unit.file,
        text=runner.unit.whole_text,
        phase=life.phase.value if life is not None else BACKOFF if waits else "",
        step=life.step if life is not None else 0,
        control_pid=control.pid if control else 0,
        control_start_ticks=control.start_ticks if control else 0,
        result=(life.result if life is not None else runner.result).value,
        fault=life.fault if life is not None else "",
        asked=life is not None and life.asked,
        main_result=life.main_result.value if life is not None and life.main_result is not None else "",
        follows_group=life is not None and life.follows_group,
        exit_code=-1 if last.code is None else last.code,
        exit_signal=last.signal,
        exit_core=last.core,
        exit_oom=last.oom,
        up_since=-1.0 if runner.up_since is None else runner.up_since,
        due=runner.due,
        starts=tuple(runner.starts),
        restart_times=tuple(runner.restart_times),
        since_boot=runner.since_boot,
    )


def picture_of(runner: Runner) -> UnitPicture:
    """For whoever looks."""
    section, health, life, now = runner.unit.document.unit, "", runner.life, clock.monotonic_seconds()
    if runner.unit.document.health is not None:
        health = "unknown" if runner.health is None else "healthy" if runner.health else "unhealthy"
    flapping = is_flapping(runner.restart_times, now)
    last = life.last if life is not None and life.last_exit else runner.last
    result = life.result if life is not None and life.last_exit else runner.result
    return UnitPicture(
        name=runner.name,
        description=section.description,
        type=runner.unit.service.type if runner.unit.has_process else "target",
        state=runner.state.value,
        phase=life.phase.value if life is not None else "",
        reason=runner.reason,
        since=runner.since,
        seconds=max(0.0, clock.boot_seconds() - runner.since_boot),
        desired="up" if runner.standing.desired else "down",
        pid=runner.pid,
        control_pid=life.control.pid if life is not None and life.control is not None else None,
        restarts=runner.restarts,
        flapping=flapping,
        restarts_lately=restarts_within(runner.restart_times, now),
        last_exit=(life.last_exit if life is not None else "") or runner.last_exit,
        exit=ExitPicture(result=result.value, code=last.code, signal=last.signal, core=last.core, oom=last.oom),
        status_text=runner.status_text,
        error_number=runner.error_number,
        stored_descriptors=len(runner.fd_store),
        health=health,
        health_reason=runner.health_reason,
        tracking=life.group.kind if life is not None and life.group is not None else "",
        lasts=runner.standing.lasts,
        frozen=life is not None and life.frozen,
        file=runner.unit.file,
        changed=runner.state.is_active and runner.digest != runner.unit.digest,
        requires=section.requires,
        wants=section.wants,
        after=section.after,
        before=section.before,
        log_bytes_dropped=runner.journal.dropped,
        log_lines_dropped=runner.journal.dropped_lines,
        last_lines=last_lines(runner.journal) if flapping or runner.state is State.FAILED else (),
        history=tuple(runner.history),
        invocation=runner.invocation,
    )
