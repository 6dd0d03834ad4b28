"""Services whose rooms are loaded late: nobody waits for them, and one that cannot be loaded takes nobody along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from appliance.errors import UnavailableError
from appliance.host import sockets
from appliance.late_rooms import OnUse, last, late
from appliance.supervisor import Main, Restart, Service, State, Supervisor


class Room:
    """Counts how often it was loaded and served; the first ``faults`` loads fail."""

    def __init__(self, faults: int = 0) -> None:
        self.faults, self.loaded, self.serving = faults, 0, trio.Event()

    def load(self) -> Main:
        self.loaded += 1
        if self.loaded <= self.faults:
            raise ModuleNotFoundError("No module named 'appliance.gone'")
        return self.serve

    async def serve(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        self.serving.set()
        task_status.started()
        await stopping.wait()


def supervised(main: Main) -> Supervisor:
    return Supervisor([Service(name="late", main=main, restart=Restart(first_delay=0.01, delay_max=0.02))])


def test_the_last_is_ready_before_it_is_loaded() -> None:
    async def main() -> None:
        room, told = Room(), trio.Event()
        supervisor = supervised(last(room.load, told.wait))
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            await supervisor.wait_ready()
            await trio.testing.wait_all_tasks_blocked()
            assert room.loaded == 0
            told.set()
            await room.serving.wait()
            assert supervisor.state("late") is State.READY
            await supervisor.stop_all()

    trio.run(main)


def test_the_last_stops_without_having_been_loaded() -> None:
    async def main() -> None:
        room = Room()
        supervisor = supervised(last(room.load, trio.Event().wait))
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            await supervisor.wait_ready()
            await supervisor.stop_all()
        assert room.loaded == 0
        assert supervisor.pictures()[0].failures == 0

    trio.run(main)


def test_one_that_cannot_be_loaded_is_tried_again_and_is_not_ready_until_it_is() -> None:
    async def main() -> None:
        room, told = Room(faults=2), trio.Event()
        supervisor = supervised(last(room.load, told.wait))
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            told.set()
            await room.serving.wait()
            await supervisor.wait_ready()
            said = [moment.reason for moment in supervisor.pictures()[0].history]
            assert [reason for reason in said if "appliance.gone" in reason] != []
            assert [moment.state for moment in supervisor.pictures()[0].history].count(
                "ready"
            ) == 2  # at first; at last
            await supervisor.stop_all()
        assert room.loaded == 3
        assert supervisor.gave_up is None

    trio.run(main)


def test_late_waits_so_long_and_no_longer() -> None:
    async def main() -> None:
        room = Room()
        begun = trio.current_time()
        supervisor = supervised(late(room.load, trio.Event().wait, 3.0))
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            await supervisor.wait_ready()
            assert trio.current_time() - begun >= 3.0
            assert room.loaded == 1
            await supervisor.stop_all()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_who_comes_before_it_is_loaded_waits_in_line(tmp_path: Path) -> None:
    path, told = str(tmp_path / "door"), trio.Event()
    served: list[sockets.Listener] = []

    async def serve(
        *, stopping: trio.Event, task_status: trio.TaskStatus[None], listeners: list[sockets.Listener]
    ) -> None:
        served.extend(listeners)
        task_status.started()
        async with await listeners[0].accept() as stream:
            await stream.send_all(b"at last")
        await stopping.wait()

    async def main() -> None:
        supervisor = supervised(late(lambda: serve, told.wait, 60.0, lambda: iter([sockets.listen_unix(path)])))
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            await trio.testing.wait_all_tasks_blocked()
            stream = await trio.open_unix_socket(path)
            assert not served
            told.set()
            assert await stream.receive_some() == b"at last"
            await stream.aclose()
            await supervisor.stop_all()

    trio.run(main)
    assert not Path(path).exists()


def test_doors_are_closed_when_what_is_behind_them_cannot_be_loaded(tmp_path: Path) -> None:
    path = str(tmp_path / "door")

    def load() -> Main:
        raise ModuleNotFoundError("No module named 'appliance.gone'")

    async def main() -> None:
        for doors, error in ((one, ModuleNotFoundError), (one_and_a_taken_one, UnavailableError)):
            run = late(load, trio.Event().wait, 0.0, doors)
            with pytest.raises(error):
                await run(stopping=trio.Event(), task_status=trio.TASK_STATUS_IGNORED)
            assert not await trio.Path(path).exists()

    def one() -> Iterator[sockets.Listener]:
        yield sockets.listen_unix(path)

    def one_and_a_taken_one() -> Iterator[sockets.Listener]:
        yield from one()
        raise UnavailableError("taken")

    trio.run(main)


def test_it_is_made_on_use_and_asked_anew_each_time() -> None:
    made: list[list[int]] = []

    def make() -> list[int]:
        made.append([1, 2, 3])
        return made[-1]

    it = OnUse(make)
    assert made == []
    assert it.count(2) == 1
    assert it.index(3) == 2
    assert len(made) == 2  # who makes it keeps it
