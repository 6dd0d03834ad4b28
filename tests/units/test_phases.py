"""The table of what is done during one start of a unit, by its laws; and what its ends mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.host.processes import Exit
from appliance.units.command_lines import CommandTable, as_lines, expand_words
from appliance.units.lifecycle import TRANSITIONS, IllegalTransition, State, step
from appliance.units.phases import COMMANDS, DYING, PHASES, STATE_OF, Phase, Turn, event_between, next_phase, takes
from appliance.units.results import LastExit, Result, last_exit_of, result_of, variables_of
from appliance.units.service_section import ServiceSection
from appliance.units.signal_names import holds, signal_of, signal_word


@given(
    st.lists(st.sampled_from(Turn), max_size=40),
    st.frozensets(st.sampled_from([*COMMANDS, Phase.PROVE, Phase.TERM, Phase.FINAL_TERM])),
)
def test_whatever_happens_phases_and_states_agree(turns: list[Turn], idle: frozenset[Phase]) -> None:
    phase, state = Phase.CLEAR, State.STARTING
    seen = [phase]
    for turn in turns:
        if not takes(phase, turn):
            with pytest.raises(IllegalTransition):
                next_phase(phase, turn, idle.__contains__)
            continue
        phase = next_phase(phase, turn, idle.__contains__)
        event = event_between(state, STATE_OF[phase])
        state = step(state, event) if event else state  # raises when the two tables do not fit
        assert state is STATE_OF[phase]
        assert phase not in idle
        seen.append(phase)
    places = [one for one in seen if STATE_OF[one] is State.STOPPING]
    order = list(Phase)
    assert [order.index(one) for one in places] == sorted(order.index(one) for one in places), "dying never goes back"
    assert seen[len(seen) - len(places) :] == places, "what is dying never comes up"


@given(st.data())
def test_from_everywhere_patience_leads_to_the_end(data: st.DataObject) -> None:
    """Once a stop is asked, nothing but timeouts is needed."""
    phase = data.draw(st.sampled_from([one for one in Phase if takes(one, Turn.STOP)]))
    phase = next_phase(phase, Turn.STOP, lambda one: False)
    for _ in Phase:
        if phase is Phase.END:
            break
        phase = next_phase(phase, Turn.LATE, lambda one: False)
    assert phase is Phase.END


def test_post_stop_is_run_however_it_ended() -> None:
    """systemd: ExecStopPost= also when the start failed."""
    todo, seen = [one for one in Phase if STATE_OF[one] is State.STARTING and one is not Phase.CLEAR], set()
    while todo:
        phase = todo.pop()
        if phase in seen or phase is Phase.POST_STOP:
            continue
        seen.add(phase)
        todo += PHASES[phase].values()
    assert Phase.END not in seen
    assert set(DYING) >= {Phase.TERM, Phase.KILL}


def test_every_phase_has_a_state_that_the_life_cycle_knows() -> None:
    assert set(STATE_OF) == set(Phase)
    assert set(STATE_OF.values()) <= set(TRANSITIONS)


@pytest.mark.parametrize(
    ("ended", "keys", "oom", "result"),
    [
        (Exit(code=0), {}, False, "success"),
        (Exit(code=3), {}, False, "exit-code"),
        (Exit(code=3), {"success_exit_codes": (3,)}, False, "success"),
        (Exit(code=75), {"success_exit_codes": ("TEMPFAIL",)}, False, "success"),
        (Exit(signal=15), {}, False, "success"),
        (Exit(signal=1), {}, False, "success"),
        (Exit(signal=15), {"type": "oneshot"}, False, "signal"),
        (Exit(signal=9), {}, False, "signal"),
        (Exit(signal=9), {"success_exit_codes": ("SIGKILL",)}, False, "success"),
        (Exit(signal=9), {}, True, "oom-kill"),
        (Exit(code=1), {}, True, "exit-code"),
        (Exit(signal=11, core=True), {}, False, "core-dump"),
        (Exit(signal=6), {}, False, "signal"),
        (Exit(), {}, False, "exit-code"),
    ],
)
def test_what_an_end_means(ended: Exit, keys: dict[str, object], oom: bool, result: str) -> None:
    service = ServiceSection(command=("x",), **keys)  # type: ignore[arg-type]
    assert result_of(ended, service, oom=oom).value == result


def test_what_the_last_commands_are_told() -> None:
    told = variables_of(Result.CORE_DUMP, last_exit_of(Exit(signal=11, core=True), oom=False))
    assert told == {"SERVICE_RESULT": "core-dump", "EXIT_CODE": "dumped", "EXIT_STATUS": "SEGV"}
    told = variables_of(Result.EXIT_CODE, last_exit_of(Exit(code=7), oom=False))
    assert told == {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "7"}
    assert variables_of(Result.TIMEOUT, LastExit()) == {"SERVICE_RESULT": "timeout"}


def test_signals_by_name() -> None:
    words = ("SIGTERM", "TERM", "15", "SIGRTMIN+3", "RTMAX-1", "SIGX", "RTMIN+90", "0")
    assert [signal_of(word) for word in words] == [
        15, 15, 15, 37, 63, None, None, None,
    ]  # fmt: skip
    assert [signal_word(number) for number in (15, 6, 37)] == ["TERM", "ABRT", "RTMIN+3"]
    assert holds((1, "SIGUSR1"), code=None, signal=10)
    assert not holds((10,), code=None, signal=10)


def test_commands_in_their_shapes() -> None:
    table = CommandTable(command=("a", "b"), ignore_failure=True)
    assert as_lines(("a", "b")) == (CommandTable(command=("a", "b")),)
    assert as_lines((("a", "b"), table)) == (CommandTable(command=("a", "b")), table)
    assert as_lines(table) == (table,)
    assert as_lines(()) == ()


def test_variables_in_commands() -> None:
    words = ("kill", "-HUP", "$MAINPID", "x${MAINPID}y", "$HOME", "$$", "$MAINPIDS")
    environment = {"MAINPID": "7", "HOME": "/h a", "EMPTY": ""}
    plain = expand_words(CommandTable(command=words), environment)
    assert plain == ("kill", "-HUP", "7", "x7y", "$HOME", "$$", "$MAINPIDS")
    as_systemd = expand_words(CommandTable(command=(*words, "${HOME}", "$EMPTY"), expand=True), environment)
    assert as_systemd == ("kill", "-HUP", "7", "x7y", "/h", "a", "$", "/h a")


@given(st.lists(st.text(max_size=10), min_size=1, max_size=5), st.booleans())
def test_any_words_expand(words: list[str], expand: bool) -> None:
    assert expand_words(CommandTable(command=tuple(words), expand=expand), {"A": "1"})
