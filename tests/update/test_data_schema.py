"""Schemas of our data: forward and back on copies, killed at every place, and who finds what."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import ConflictError, UnavailableError
from appliance.host.layout import Layout
from appliance.update import data_schema
from appliance.update.data_schema import go_back, settle
from appliance.update.migrations import Migration


def step(number: int) -> Migration:
    """Schema N has ``format`` N in its file, and a line for each way it went."""

    def change(word: str, schema: int) -> object:
        def act(directory: str) -> None:
            file = Path(directory) / "store/data"
            lines = file.read_text().splitlines()
            file.write_text("\n".join([f"format {schema}", *lines[1:], f"{word} {number}"]) + "\n")

        return act

    return Migration(number, change("forward", number), change("back", number - 1))  # type: ignore[arg-type]


STEPS = (step(2), step(3))


class Host:
    """``start`` is a start of a version of that schema: it reads what it finds, and adds a line."""

    def __init__(self, place: Path) -> None:
        self.layout = Layout(str(place))
        self.state = Path(self.layout.state)
        (self.state / "store").mkdir(parents=True)
        (self.state / "store/data").write_text("format 1\nold\n")
        self.said: list[str] = []

    def start(self, version: str, schema: int, line: str = "", *, trial: bool = False) -> list[str]:
        place = settle(
            self.layout, version=version, trial=trial, say=self.said.append, schema=schema, known=STEPS[: schema - 1]
        )
        file = Path(place) / "data"
        lines = file.read_text().splitlines()
        assert lines[0] == f"format {schema}"
        if line:
            with file.open("a") as out:
                out.write(line + "\n")
        return lines[1:]

    def leave(self, version: str, schema: int) -> None:
        (self.state / "going-back").write_text("")
        go_back(self.layout, version=version, say=self.said.append, schema=schema, known=STEPS[: schema - 1])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_trial_that_ends_badly_leaves_the_old_as_it_was(host: Host) -> None:
    assert host.start("1.0", 1, "one") == ["old"]
    assert host.start("2.0", 2, "in trial", trial=True) == ["old", "one", "forward 2"]
    assert host.start("2.0", 2, trial=True) == ["old", "one", "forward 2", "in trial"]  # a second try goes on
    assert host.start("1.0", 1, "two") == ["old", "one"]
    assert not (host.state / "data-2").exists()
    # The next attempt begins from what is there then, not from the trial's leftovers.
    assert host.start("2.1", 2, trial=True) == ["old", "one", "two", "forward 2"]


def test_the_old_copy_stays_until_the_next_update(host: Host) -> None:
    host.start("2.0", 2, "new", trial=True)
    assert host.start("2.0", 2) == ["old", "forward 2", "new"]
    assert (host.state / "store/data").read_text() == "format 1\nold\n"
    host.start("2.1", 2, trial=True)
    assert (host.state / "store").exists()
    host.start("2.1", 2)  # blessed: 2.0 is what can be gone back to now, and it has schema 2
    assert not (host.state / "store").exists()
    with pytest.raises(ConflictError, match="schema 2"):
        host.start("1.0", 1)


def test_back_by_hand_brings_along_what_came_since(host: Host) -> None:
    host.start("2.0", 2, trial=True)
    host.start("2.0", 2, "months of work")
    host.leave("2.0", 2)
    assert host.start("1.0", 1) == ["old", "forward 2", "months of work", "back 2"]
    assert not (host.state / "data-2").exists()


def test_two_schemas_at_once(host: Host) -> None:
    assert host.start("3.0", 3, trial=True) == ["old", "forward 2", "forward 3"]
    host.start("3.0", 3)
    host.leave("3.0", 3)
    assert host.start("1.0", 1) == ["old", "forward 2", "forward 3", "back 3", "back 2"]


def test_a_way_back_that_fails_leaves_both(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(directory: str) -> None:
        (Path(directory) / "store/data").write_text("half")
        raise UnavailableError("cannot migrate: no room")

    host.start("2.0", 2, "new", trial=True)
    (host.state / "going-back").write_text("")
    broken = (Migration(2, fail, fail),)
    go_back(host.layout, version="2.0", say=host.said.append, schema=2, known=broken)
    assert "no room" in host.said[-1]
    assert host.start("1.0", 1) == ["old"]
    assert "new" in (host.state / "data-2.kept/store/data").read_text()


def test_a_migration_that_fails_changes_nothing(host: Host) -> None:
    def fail(directory: str) -> None:
        (Path(directory) / "store/data").unlink()
        raise UnavailableError("cannot migrate: no room")

    with pytest.raises(UnavailableError):
        settle(
            host.layout, version="2.0", trial=True, say=host.said.append, schema=2, known=(Migration(2, fail, fail),)
        )
    assert host.start("1.0", 1) == ["old"]


@pytest.mark.parametrize("place", ["migrate.begin", "migrate.copied", "migrate.changed", "migrate.done"])
def test_killed_anywhere_it_begins_anew_or_is_done(host: Host, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(name: str) -> None:
        if name == place:
            raise Killed

    monkeypatch.setattr(data_schema, "reach", kill)
    with pytest.raises(Killed):
        host.start("2.0", 2, trial=True)
    monkeypatch.setattr(data_schema, "reach", lambda _: None)
    assert (host.state / "store/data").read_text() == "format 1\nold\n"
    assert host.start("2.0", 2, "new", trial=True) == ["old", "forward 2"]
    monkeypatch.setattr(data_schema, "reach", kill)
    with pytest.raises(Killed):
        host.leave("2.0", 2)
    monkeypatch.setattr(data_schema, "reach", lambda _: None)
    found = host.start("1.0", 1)
    assert found == (["old", "forward 2", "new", "back 2"] if place == "migrate.done" else ["old"])
