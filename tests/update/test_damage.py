"""Every small file below the state's update/ may be empty, torn, full of rubbish, or a newer version's.

None of that needs a person. What guards against a rollback goes on guarding; what was only remembered is forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import UntrustedError
from appliance.host.layout import Layout
from appliance.update.lot import host_lot
from appliance.update.memory import Memory
from appliance.update.mirrors import read_rests
from appliance.update.progress import read_progress
from appliance.update.rollout import Rollout
from appliance.update.switched import SETTINGS
from tests.update.conftest import Publisher
from tests.update.test_trust import ask, old_copy, path_of, versions

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "torn": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "rubbish": lambda data: b"\xff\x00\x17{" * 40,
    "another shape": lambda data: b"[1, 2]",
    "wrong within": lambda data: b'{"keys": 7, "versions": {"root": "x"}, "time": "never", "wait": [], "step": 1}',
    "a newer version's": lambda data: b'{"format": 2, "seen": {"root": {"version": 3}}}',
    "one bit": lambda data: data[:20] + bytes(byte ^ 1 for byte in data[20:21]) + data[21:],
}
SEEN = ("seen.json", "seen-copy.json")


@pytest.fixture
def old(publisher: Publisher, layout: Layout, tmp_path: Path) -> str:
    """A repository as it once was; the host has seen a newer one."""
    publisher.release("1.0.0")
    copy = old_copy(publisher, tmp_path)
    publisher.release("2.0.0")
    versions(layout, str(publisher.directory))
    return str(copy)


def metadata(layout: Layout, name: str) -> Path:
    return Path(layout.update, "metadata", name)


def damage(file: Path, how: str) -> None:
    file.write_bytes(DAMAGE[how](file.read_bytes()))


def lose_cache(layout: Layout) -> None:
    for file in Path(layout.update, "metadata").rglob("*.json"):
        if file.name not in SEEN:
            file.unlink()


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", SEEN)
def test_one_copy_of_what_was_seen_is_enough(
    name: str, how: str, publisher: Publisher, layout: Layout, old: str
) -> None:
    before = metadata(layout, name).read_bytes()
    damage(metadata(layout, name), how)
    lose_cache(layout)
    with pytest.raises(UntrustedError, match="rollback"):
        ask(layout, old)
    answer = ask(layout, str(publisher.directory))
    assert name in answer["repaired"]
    assert "mended from the other copy" in answer["repaired"]
    healed = json.loads(metadata(layout, name).read_bytes())
    assert healed["versions"] == json.loads(before)["versions"]
    assert ask(layout, str(publisher.directory))["repaired"] == ""


@pytest.mark.parametrize("how", DAMAGE)
def test_without_either_the_signed_cache_still_knows(how: str, publisher: Publisher, layout: Layout, old: str) -> None:
    for name in SEEN:
        damage(metadata(layout, name), how)
    with pytest.raises(UntrustedError, match="rollback"):
        ask(layout, old)
    answer = ask(layout, str(publisher.directory))
    assert "lost" in answer["repaired"]
    lose_cache(layout)
    with pytest.raises(UntrustedError, match="rollback"):
        ask(layout, old)


@pytest.mark.parametrize("how", DAMAGE)
def test_all_is_lost(how: str, publisher: Publisher, layout: Layout, old: str) -> None:
    """As on a host that is new: the trust root decides. It is said, and nobody has to come."""
    for file in Path(layout.update, "metadata").rglob("*.json"):
        damage(file, how)
    assert [offer["version"] for offer in ask(layout, str(publisher.directory))["offers"]] == ["2.0.0", "1.0.0"]
    with pytest.raises(UntrustedError, match="rollback"):
        ask(layout, old)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json", "alpha.json", "root_history/*"])
def test_a_cache_is_fetched_again(name: str, how: str, publisher: Publisher, layout: Layout, old: str) -> None:
    for file in Path(layout.update, "metadata").glob(name):
        damage(file, how)
    with pytest.raises(UntrustedError):
        ask(layout, old)
    assert versions(layout, str(publisher.directory)) == ["2.0.0", "1.0.0"]


def test_the_copy_is_not_written_at_each_check(publisher: Publisher, layout: Layout, old: str) -> None:
    before = [metadata(layout, name).read_bytes() for name in SEEN]
    ask(layout, str(publisher.directory))
    assert metadata(layout, SEEN[0]).read_bytes() != before[0]  # the last time known
    assert metadata(layout, SEEN[1]).read_bytes() == before[1]


def test_what_a_version_before_the_checksum_wrote_counts(publisher: Publisher, layout: Layout, old: str) -> None:
    kept = json.loads(metadata(layout, SEEN[0]).read_bytes())
    del kept["check"]
    metadata(layout, SEEN[0]).write_text(json.dumps(kept))
    metadata(layout, SEEN[1]).unlink()
    lose_cache(layout)
    with pytest.raises(UntrustedError, match="rollback"):
        ask(layout, old)
    assert ask(layout, str(publisher.directory))["repaired"] == ""
    assert metadata(layout, SEEN[1]).exists()


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("ending", ["", ".partial", ".index"])
def test_what_was_fetched_is_believed_only_as_far_as_it_is_right(
    how: str, ending: str, publisher: Publisher, layout: Layout
) -> None:
    data = publisher.release("1.0.0")
    repository = str(publisher.directory)
    file = Path(ask(layout, repository, "download", path=path_of("1.0.0"))["file"])
    whole = file.read_bytes()
    file.unlink()
    Path(f"{file}{ending}").write_bytes(DAMAGE[how](whole))
    assert Path(ask(layout, repository, "download", path=path_of("1.0.0"))["file"]).read_bytes() == data


@pytest.mark.parametrize("how", DAMAGE)
def test_small_memories(how: str, publisher: Publisher, layout: Layout) -> None:
    """Mirrors, the worker's lock, the progress shown: as if there were none."""
    publisher.release("1.0.0")
    versions(layout, str(publisher.directory))
    mirrors, lock, progress = Path(layout.update, "mirrors.json"), Path(layout.update, "lock"), layout.run + "/progress"
    mirrors.write_text('{"http://x": {"failures": 1, "wait": 5.0, "until": 9e9, "why": "no"}}')
    Path(layout.run).mkdir(parents=True, exist_ok=True)
    Path(progress).write_text('{"step": "downloading", "total_bytes": 3}')
    for file in (mirrors, lock, Path(progress)):
        damage(file, how)
    read_rests(str(mirrors))
    assert isinstance(read_progress(progress), dict)
    assert versions(layout, str(publisher.directory)) == ["1.0.0"]


@pytest.mark.parametrize("how", ["empty", "zeros", "rubbish"])
def test_a_lot_that_was_torn_is_drawn_again(how: str, layout: Layout) -> None:
    lot = host_lot(layout.wave_lot)
    damage(Path(layout.wave_lot), how)
    fresh = host_lot(layout.wave_lot)
    assert len(fresh) == len(lot)
    assert fresh != lot
    assert host_lot(layout.wave_lot) == fresh


class Kept:
    """The store holds the same bytes, whatever is asked for."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    async def get(self, key: str) -> bytes | None:
        return self.value

    async def put(self, key: str, value: bytes) -> None:
        self.value = value


@pytest.mark.parametrize("how", DAMAGE)
async def test_what_the_store_holds_of_a_newer_version(how: str) -> None:
    memory = Memory(Kept(DAMAGE[how](b'{"phase": "writing", "goal": {"id": "x"}, "slot": "a", "offer": null}')))
    assert await memory.load() == Rollout()  # the slot record still says what runs, and what is on trial
    assert memory.loaded
    assert memory.entries == ()
    assert memory.switched == SETTINGS
    assert await memory.denied() == ()
    assert isinstance(await memory.read_value("holds"), dict)


async def test_one_entry_of_the_history_that_cannot_be_read_loses_no_other() -> None:
    good = {
        "id": "1", "time": "", "from_version": "1", "to_version": "2", "outcome": "blessed", "reason": "", "kind": "",
        "of_a_newer_version": 3,
    }  # fmt: skip
    memory = Memory(Kept(json.dumps([7, good, {"id": "2"}, None]).encode()))
    await memory.load()
    assert [entry.id for entry in memory.entries] == ["1"]
