"""One suite for the simulated disk and the real one: what the store relies on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from sim.disk import SimDisk

from appliance.errors import InputError, NotFoundError, UnavailableError
from appliance.host.disk import Disk, FileDisk, NoRoomError


@pytest.fixture(params=["sim", "real"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return SimDisk(1) if request.param == "sim" else FileDisk(str(tmp_path / "store"))


def test_a_new_disk_is_empty(disk: Disk) -> None:
    assert disk.names() == []


def test_what_is_written_is_read_at_any_offset(disk: Disk) -> None:
    file = disk.create("a")
    file.write(b"hello", 0)
    file.write(b"far", 100)
    assert file.read(5, 0) == b"hello"
    assert file.read(10, 95) == bytes(5) + b"far"
    assert file.read(10, 103) == b""
    assert file.size() == 103
    file.write(b"J", 0)
    assert file.read(5, 0) == b"Jello"
    file.sync()


def test_truncate_cuts_and_extends_with_zeros(disk: Disk) -> None:
    file = disk.create("a")
    file.write(b"hello", 0)
    file.truncate(2)
    file.truncate(4)
    assert file.read(10, 0) == b"he\0\0"
    assert file.size() == 4


def test_create_empties_what_was_there_for_those_who_open_it_later(disk: Disk) -> None:
    disk.create("a").write(b"old", 0)
    disk.create("a")
    assert disk.open("a").size() == 0


def test_rename_replaces_and_the_handle_follows(disk: Disk) -> None:
    first = disk.create("a")
    first.write(b"1", 0)
    disk.create("b").write(b"22", 0)
    disk.rename("a", "b")
    assert disk.names() == ["b"]
    assert disk.open("b").read(9, 0) == b"1"
    first.write(b"3", 0)
    assert disk.open("b").read(9, 0) == b"3"
    disk.sync_names()


def test_a_removed_file_is_read_by_those_who_have_it_open(disk: Disk) -> None:
    file = disk.create("a")
    file.write(b"1", 0)
    disk.remove("a")
    disk.remove("a")
    assert disk.names() == []
    assert file.read(1, 0) == b"1"
    with pytest.raises(NotFoundError, match=r"cannot open .*a"):
        disk.open("a")


def test_a_closed_file_answers_with_an_error_of_ours(disk: Disk) -> None:
    file = disk.create("a")
    file.close()
    file.close()
    with pytest.raises(UnavailableError):
        file.read(1, 0)


def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    sim = SimDisk(1, room=10).create("a")
    with pytest.raises(NoRoomError, match="No space left"):
        sim.write(bytes(11), 0)
    if os.path.exists("/dev/full"):
        (tmp_path / "full").symlink_to("/dev/full")
        with pytest.raises(NoRoomError, match="No space left"):
            FileDisk(str(tmp_path)).open("full").write(b"x", 0)


def test_the_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    disk = FileDisk(str(tmp_path / "deep" / "store"))
    assert disk.names() == []
    disk.create("a")
    assert (tmp_path / "deep" / "store").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep" / "store" / "a").stat().st_mode & 0o777 == 0o600


def test_a_file_in_place_of_the_directory_is_the_persons_mistake(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises((InputError, UnavailableError), match="cannot list"):
        FileDisk(str(tmp_path / "store")).names()


def test_only_what_was_synced_is_sure_to_outlive_a_power_cut() -> None:
    lost = 0
    for seed in range(40):
        disk = SimDisk(seed)
        file = disk.create("a")
        file.write(b"1" * 600, 0)
        file.sync()
        disk.sync_names()
        file.write(b"2" * 600, 600)
        disk.create("b").sync()
        disk.cut()
        after = disk.rebooted()
        assert after.open("a").read(600, 0) == b"1" * 600
        lost += after.open("a").read(600, 600) != b"2" * 600
    assert 0 < lost < 40


def test_a_failed_sync_loses_the_pages_that_it_calls_clean() -> None:
    disk = SimDisk(1)
    file = disk.create("a")
    file.sync()
    disk.sync_names()
    file.write(b"1", 0)
    disk.faults[disk.operations + 1] = errno.EIO
    with pytest.raises(UnavailableError, match="cannot sync"):
        file.sync()
    file.sync()
    assert file.read(1, 0) == b"1"
    disk.cut()
    assert disk.rebooted().open("a").read(1, 0) == b""
