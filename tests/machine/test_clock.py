"""SNTP against a server on loopback that is right, wrong, evil or silent; the time that outlives a dead battery."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.host import clock
from appliance.machine import BootFacts, Started, TimeKeeper, starting
from appliance.machine.sntp import PACKET, Refused, encode_time, read_answer, request
from appliance.machine.timekeeping import remember_time, remembered_time

NONCE = b"12345678"
Answer = Callable[[bytes, float], bytes]


def packet(nonce: bytes, there: float, back: float, *, first: int = 0x24, stratum: int = 2, code: int = 0) -> bytes:
    return PACKET.pack(
        first, stratum, 0, -20, 0, 0, code, bytes(8), nonce, encode_time(there), encode_time(back)
    )  # fmt: skip


def test_offset_and_delay() -> None:
    sample = read_answer(packet(NONCE, 1_800_000_005.1, 1_800_000_005.2), NONCE, 1_800_000_000.0, 1_800_000_000.3)
    assert sample.offset == pytest.approx(5.0, abs=1e-3)
    assert sample.delay == pytest.approx(0.2, abs=1e-3)


def test_after_2036_too() -> None:
    now = 2_085_978_496.0 + 1000  # the 32 bits have turned over
    sample = read_answer(packet(NONCE, now, now), NONCE, now - 7, now - 6.9)
    assert sample.offset == pytest.approx(6.95, abs=1e-3)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"short", "has 5 bytes"),
        (packet(b"87654321", 1.8e9, 1.8e9), "another question"),
        (packet(NONCE, 1.8e9, 1.8e9, first=0x23), "no server"),
        (packet(NONCE, 1.8e9, 1.8e9, first=0xE4), "does not know it itself"),
        (packet(NONCE, 1.8e9, 1.8e9, stratum=16), "does not know it itself"),
        (packet(NONCE, 1.8e9 + 1, 1.8e9), "before the question"),
    ],
)
def test_what_is_of_no_use(data: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_answer(data, NONCE, 1.8e9, 1.8e9 + 0.1)


def test_a_kiss_of_death_is_obeyed() -> None:
    with pytest.raises(Refused, match="DENY"):
        read_answer(packet(NONCE, 1.8e9, 1.8e9, stratum=0, code=int.from_bytes(b"DENY")), NONCE, 1.8e9, 1.8e9)


def test_who_is_asked_too_often_is_asked_again_later() -> None:
    answers = [b"RATE", b""]

    def answer(nonce: bytes, now: float) -> bytes:
        code = answers.pop(0)
        return packet(nonce, now + 9, now + 9, stratum=0 if code else 2, code=int.from_bytes(code))

    async def main() -> tuple[bool, float]:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(serve, answer)
            keeper = TimeKeeper(lambda: ("127.0.0.1",), publish=lambda *_, **data: None, port=port)
            first, second = await keeper.ask_all(), await keeper.ask_all()
            nursery.cancel_scope.cancel()
        assert second is not None
        return first is None, second.offset

    first, offset = trio.run(main)
    assert first
    assert offset == pytest.approx(9, abs=5)


@given(st.binary(max_size=100))
def test_anything_else_is_an_error_of_ours(data: bytes) -> None:
    try:
        read_answer(data, NONCE, 1.8e9, 1.8e9 + 1)
    except InputError:
        return
    assert data[24:32] == NONCE


async def serve(answer: Answer, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))
        task_status.started(server.getsockname()[1])
        while True:
            data, whose = await server.recvfrom(512)
            await server.sendto(answer(data[40:48], clock.wall_seconds()), whose)


def ask(answer: Answer, servers: tuple[str, ...] = ("127.0.0.1",)) -> tuple[float | None, list[dict[str, object]]]:
    events: list[dict[str, object]] = []

    async def main() -> float | None:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(serve, answer)
            keeper = TimeKeeper(lambda: servers, publish=lambda *_, **data: events.append(data), port=port)
            sample = await keeper.ask_all()
            nursery.cancel_scope.cancel()
        return sample.offset if sample is not None else None

    return trio.run(main), events


def test_a_server_that_is_ahead() -> None:
    offset, events = ask(lambda nonce, now: packet(nonce, now + 100, now + 100))
    assert offset == pytest.approx(100, abs=5)
    assert events == []


def test_a_forged_answer_is_passed_over_and_no_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.machine.timekeeping._ANSWER_SECONDS", 0.3)
    offset, events = ask(lambda nonce, now: packet(b"xxxxxxxx", now + 100, now + 100))
    assert offset is None
    assert "no answer" in str(events)


def test_request_tells_nobody_our_time() -> None:
    assert struct.unpack("!B39x8s", request(NONCE)) == (0x23, NONCE)


def test_the_time_that_was_known_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.machine.timekeeping.CLOCK_FILE", str(tmp_path / "clock"))
    assert remembered_time() == 0.0
    remember_time()
    assert remembered_time() == pytest.approx(clock.wall_seconds(), abs=30)
    for nonsense in ("nonsense", "inf", "nan", "-1", "1e300", "9" * 5000, ""):
        (tmp_path / "clock").write_text(nonsense)
        assert remembered_time() == 0.0


DAY = 86400.0
BUILT = 1_800_000_000.0


@pytest.mark.parametrize(
    ("now", "remembered", "believed"),
    [
        (BUILT + DAY, 0.0, BUILT + DAY),
        (BUILT + DAY, BUILT, BUILT + DAY),
        (0.0, 0.0, BUILT),
        (0.0, BUILT + DAY, BUILT + DAY),
        (BUILT + DAY, BUILT + 2 * DAY, BUILT + 2 * DAY),
        (3_155_760_014.0, 0.0, BUILT),  # a battery that is dead, and a firmware that reads the year 70 as 2070
        (3_155_760_014.0, 3_155_760_000.0, BUILT),
        (BUILT + DAY, 3_155_760_000.0, BUILT + DAY),
    ],
)
def test_a_clock_that_cannot_be_right_is_not_believed(
    now: float, remembered: float, believed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, clocks = list[str](), [now]
    monkeypatch.setattr(starting, "remembered_time", lambda: remembered)
    monkeypatch.setattr(starting.clock, "wall_seconds", lambda: clocks[-1])
    monkeypatch.setattr(starting.machine_state, "set_clock", clocks.append)
    started = Started(BootFacts())
    starting._believe_clock(BUILT, started, said.append)
    assert clocks[-1] == believed
    assert started.notes == said
    assert bool(said) is (now != believed)
