"""How often the place in the kernel's log is kept: at once, but in a flood once a second."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.host import files
from appliance.host.kmsg import KernelMessage
from appliance.units.alarms import Alarms
from appliance.units.journal import Journal
from appliance.units.kernel_log import KernelRecorder
from appliance.units.log_following import read_journal


class NoDevice:
    """A poller for which there is nothing to read: the test speaks as the kernel."""

    def add(self, *args: Any, **options: Any) -> None:
        raise PermissionError


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    sequences: list[int] = []
    really = files.write_atomic

    def write(path: str, data: bytes, **options: Any) -> None:
        sequences.append(json.loads(data)["sequence"])
        really(path, data, **options)

    monkeypatch.setattr(files, "write_atomic", write)
    return sequences


def recorder_of(tmp_path: Path, alarms: Alarms) -> KernelRecorder:
    recorder = KernelRecorder(Journal(str(tmp_path), limit=16 << 20), "this boot")
    recorder.begin(NoDevice(), alarms)  # type: ignore[arg-type]
    return recorder


def say(recorder: KernelRecorder, *sequences: int) -> None:
    messages = [KernelMessage(one, 6, 1_790_000_000.0 + one, b"message %d" % one) for one in sequences]
    recorder._take(messages, 0)


async def test_a_message_now_and_then_is_kept_at_once_and_a_flood_once_a_second(
    tmp_path: Path, kept: list[int], autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    alarms = Alarms()
    nursery.start_soon(alarms.run)
    recorder = recorder_of(tmp_path, alarms)
    say(recorder, 1, 2)
    assert kept == [2]
    await trio.sleep(5)
    say(recorder, 3)
    assert kept == [2, 3]
    await trio.sleep(5)
    for sequence in range(4, 1004):
        say(recorder, sequence)
        await trio.sleep(0.01)
    assert len(kept) <= 14
    await trio.sleep(2)
    assert kept[-1] == 1003
    before = len(kept)
    await trio.sleep(3600)
    assert len(kept) == before  # nothing new, nothing done
    assert len([line async for line in read_journal(recorder.journal)]) == 1003
    nursery.cancel_scope.cancel()


async def test_a_polite_end_keeps_the_last_and_a_rude_one_loses_none(
    tmp_path: Path, kept: list[int], autojump_clock: MockClock
) -> None:
    alarms = Alarms()
    polite = recorder_of(tmp_path, alarms)
    say(polite, 1)
    say(polite, 2)
    assert kept == [1]
    polite.end()
    polite.end()
    assert kept == [1, 2]
    rude = recorder_of(tmp_path, alarms)
    assert rude._last() == 2
    say(rude, 3)
    say(rude, 4)  # and then kill -9
    assert recorder_of(tmp_path, alarms)._last() == 3  # line 4 comes again: twice, and never not at all
