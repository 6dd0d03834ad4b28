"""Which version the launcher starts: slot record, tries, the guard. The real launcher before a fake program."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.binary import fake
from tests.binary.fake import Host, alive, tries_left, until
from tests.launcher.conftest import COPY

pytestmark = pytest.mark.binary
EMPTY = "- - priority=0 tries=0 blessed=0"
BLESSED = " priority=2 tries=0 blessed=1"
TRIAL = " priority=3 tries=3 blessed=0"


@pytest.fixture
def origin(host: Host) -> Path:
    return host.file("1.0")


def picture(start: fake.Start) -> tuple[str, str, str]:
    return start["VERSION"], start["APPLIANCE_SLOT"], start.get("APPLIANCE_TRIAL", "0")


def test_without_a_record_it_runs_itself(host: Host, origin: Path) -> None:
    start = host.run(origin, "run")
    assert picture(start) == ("1.0", "none", "0")
    assert start["APPLIANCE_ORIGIN"] == start["APPLIANCE_SELF"] == str(origin)
    assert start["APPLIANCE_PAYLOAD"] == fake.payload_id(origin)
    assert start["APPLIANCE_BUNDLE"] == f"{host.cache}/{fake.payload_id(origin)}"


def test_the_program_is_told_nothing_but_this(host: Host, origin: Path) -> None:
    start = host.run(
        origin, "run", LD_LIBRARY_PATH="/x", LD_PRELOAD="", _PYI_APPLICATION_HOME_DIR="/y", APPLIANCE_GUARD="1",
        APPLIANCE_TRIAL="1", APPLIANCE_ORIGIN="/z", APPLIANCE_LOCK_FD="7", APPLIANCE_START_FD="1", HOME="/h",
    )  # fmt: skip
    assert sorted(fake.names(start)) == [
        "APPLIANCE_BUNDLE", "APPLIANCE_CACHE", "APPLIANCE_LOCK_FD", "APPLIANCE_ORIGIN", "APPLIANCE_PAYLOAD",
        "APPLIANCE_SELF", "APPLIANCE_SLOT", "_PYI_ARCHIVE_FILE", "_PYI_LINUX_PROCESS_NAME", "_PYI_PARENT_PROCESS_LEVEL",
    ]  # fmt: skip
    assert start["HOME"] == "/h"
    assert start["ARGUMENTS"].endswith(f"--root {host.root} run")


def test_a_blessed_slot_is_started_for_every_verb(host: Host, origin: Path) -> None:
    host.record(EMPTY, host.slot("b", "2.0") + BLESSED)
    for verb in ("run", "status"):
        start = host.run(origin, verb)
        assert picture(start) == ("2.0", "b", "0")
        assert start["APPLIANCE_ORIGIN"] == str(origin)
        assert start["APPLIANCE_SELF"] == str(host.slots / "b/appliance")
        assert "APPLIANCE_GUARD" not in start


@pytest.mark.parametrize("place", ["option", "option=", "environment", "after the verb"])
def test_the_root_is_found_wherever_it_is_said(host: Host, origin: Path, place: str) -> None:
    host.record(EMPTY, host.slot("b", "2.0") + BLESSED)
    root = str(host.root)
    arguments, environment = {
        "option": (["--config", "run", "--root", root, "status"], {}),
        "option=": ([f"--root={root}", "status"], {"APPLIANCE_ROOT": "/nowhere"}),
        "environment": (["status", "--", "--root", "/nowhere"], {"APPLIANCE_ROOT": root}),
        "after the verb": (["unit", "status", "--root", root], {}),
    }[place]
    subprocess.run([origin, *arguments], env=host.environment(**environment), check=True)
    assert picture(host.starts()[-1]) == ("2.0", "b", "0")


def test_a_try_is_spent_before_the_start_until_none_is_left(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.0") + BLESSED, host.slot("b", "2.0", "stay") + TRIAL)
    for left in (2, 1, 0):
        assert picture(host.try_once(origin)) == ("2.0", "b", "1")
        assert tries_left(host) == left
    assert picture(host.run(origin, "run")) == ("1.0", "a", "0")


@pytest.mark.parametrize("arguments", [["status"], ["unit", "run"], ["-o", "json", "status"], ["--", "run"], []])
def test_other_verbs_spend_nothing(host: Host, origin: Path, arguments: list[str]) -> None:
    host.record(host.slot("a", "1.0") + BLESSED, host.slot("b", "2.0") + TRIAL)
    assert picture(host.run(origin, *arguments)) == ("1.0", "a", "0")
    assert tries_left(host) == 3


def test_a_second_run_beside_a_daemon_spends_nothing(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.0") + BLESSED, host.slot("b", "2.0") + TRIAL)
    lock = host.root / "run/appliance/lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert picture(host.run(origin, "run")) == ("1.0", "a", "0")
    assert tries_left(host) == 3


def test_a_file_that_a_person_dropped_runs_itself(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.0") + BLESSED, host.slot("b", "2.0") + TRIAL)
    dropped = host.file("9.0")
    for verb in ("run", "status"):
        assert picture(host.run(dropped, verb)) == ("9.0", "none", "0")
    assert tries_left(host) == 3


def test_a_slots_own_file_is_no_dropped_one(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "2.0") + BLESSED, EMPTY)
    assert picture(host.run(host.slots / "a/appliance", "run")) == ("2.0", "a", "0")


def test_starts_at_the_same_time_spend_one_try(host: Host, origin: Path) -> None:
    """A guard and an init, say, or a person beside them: one is the daemon, the others find that out."""
    host.record(host.slot("a", "1.5") + BLESSED, host.slot("b", "2.0", "daemon") + TRIAL)
    started = [host.start(origin, "run") for _ in range(4)]
    pictures = sorted(picture(start) for start in host.wait_for_starts(4))
    assert pictures == [("1.5", "a", "0")] * 3 + [("2.0", "b", "1")]
    assert tries_left(host) == 2
    (daemon,) = [start for start in host.starts() if start["VERSION"] == "2.0"]
    (waited, *_) = [one for one in started if str(one.pid) != daemon["PID"]]
    assert "is being started already" in waited.communicate(timeout=fake.PATIENCE_SECONDS)[1]


def test_a_start_that_dies_gives_its_turn_away(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.5") + BLESSED, host.slot("b", "2.0", "daemon") + TRIAL)
    first = host.start(origin, "run")
    guard = int(host.wait_for_starts(1)[0]["APPLIANCE_GUARD"])
    second = host.start(origin, "run")
    first.kill()
    start = host.wait_for_starts(2)[1]
    assert (picture(start), int(start["PID"])) == (("2.0", "b", "1"), second.pid)
    until(lambda: not alive(guard))  # it saw that somebody was faster
    assert (len(host.starts()), tries_left(host)) == (2, 1)


def test_a_turn_that_never_ends_is_waited_for_no_longer_than_a_trial_may_take(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.5") + BLESSED, host.slot("b", "2.0", "stay") + TRIAL, deadline=1)
    with (host.slots / "starting").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert picture(host.try_once(origin)) == ("2.0", "b", "1")


@pytest.mark.parametrize("damage", ["missing", "not executable", "no program", "cut short", "flipped byte"])
def test_a_slot_that_cannot_start_is_left_for_the_next(host: Host, origin: Path, damage: str) -> None:
    host.record(host.slot("a", "1.5") + BLESSED, host.slot("b", "2.0") + TRIAL)
    file = host.slots / "b/appliance"
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "not executable":
        file.chmod(0o644)
    elif damage == "no program":
        file.write_bytes(b"\x7fELF and no more")
    elif damage == "cut short":
        file.write_bytes(data[:-100])
    else:
        file.write_bytes(data[:-500] + bytes([data[-500] ^ 1]) + data[-499:])
    start = host.run(origin, "run")
    assert picture(start) == ("1.5", "a", "0")
    if damage not in ("missing", "not executable"):
        assert "slot b cannot be started" in start["APPLIANCE_NOTE"]
    assert "APPLIANCE_GUARD" not in start


def test_with_no_slot_that_can_start_it_runs_itself(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.5") + BLESSED, EMPTY)
    data = (host.slots / "a/appliance").read_bytes()
    (host.slots / "a/appliance").write_bytes(data[:-100])
    start = host.run(origin, "run")
    assert picture(start) == ("1.0", "none", "0")
    assert "slot a cannot be started" in start["APPLIANCE_NOTE"]


@pytest.mark.parametrize("damaged", [0, 1])
def test_one_corrupt_copy_is_no_matter(host: Host, origin: Path, damaged: int) -> None:
    host.record(host.slot("a", "1.0") + BLESSED, host.slot("b", "2.0", "stay") + TRIAL)
    data = bytearray((host.slots / "record").read_bytes())
    data[damaged * COPY + 40] ^= 1
    (host.slots / "record").write_bytes(data)
    start = host.try_once(origin)
    assert picture(start) == ("2.0", "b", "1")
    assert "APPLIANCE_NOTE" not in start
    assert tries_left(host) == 2  # and both are whole again


@pytest.mark.parametrize("content", [b"", b"\0" * 2 * COPY, b"appliance-slots 1\n", b"x" * 3 * COPY])
def test_both_copies_corrupt(host: Host, origin: Path, content: bytes) -> None:
    host.slot("a", "1.5")
    host.slot("b", "2.0")
    (host.slots / "record").write_bytes(content)
    start = host.run(origin, "run")
    assert picture(start) == ("1.0", "none", "0")
    assert "both copies" in start["APPLIANCE_NOTE"]
    (host.slots / "current").symlink_to("b")
    start = host.run(origin, "run")
    assert picture(start) == ("2.0", "b", "0")
    assert "started the slot blessed last" in start["APPLIANCE_NOTE"]


def test_on_a_read_only_state_a_new_version_is_not_tried(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.5") + BLESSED, host.slot("b", "2.0") + TRIAL)
    read_only = f"mount --bind {host.root} {host.root} && mount -o remount,bind,ro {host.root} && exec \"$@\""
    start = host.run(origin, "run", wrap=["unshare", "-m", "sh", "-c", read_only, "sh"])
    assert picture(start) == ("1.5", "a", "0")
    assert "2.0 in slot b is not tried" in start["APPLIANCE_NOTE"]
    assert "Read-only file system" in start["APPLIANCE_NOTE"]
    assert tries_left(host) == 3


@pytest.mark.parametrize("what", ["", "record", "b", "b/appliance"])
def test_what_others_may_write_is_not_started(host: Host, origin: Path, what: str) -> None:
    host.record(EMPTY, host.slot("b", "2.0") + BLESSED)
    (host.slots / what).chmod(0o777)
    assert picture(host.run(origin, "run")) == ("1.0", "none", "0")


def test_when_a_trial_dies_the_origin_starts_again(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.5", "stay") + BLESSED, host.slot("b", "2.0", "die") + TRIAL.replace("3 b", "1 b"))
    daemon = host.start(origin, "run", "--flag")
    assert daemon.wait(fake.PATIENCE_SECONDS) == -signal.SIGKILL
    first, second = host.wait_for_starts(2)
    assert (picture(first), picture(second)) == (("2.0", "b", "1"), ("1.5", "a", "0"))
    assert second["PID"] == first["APPLIANCE_GUARD"]
    assert second["ARGUMENTS"].endswith(f"--root {host.root} run --flag")
    assert second["APPLIANCE_NOTE"] == "2.0 in slot b died"
    assert alive(int(second["PID"]))


def test_each_try_is_tried(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.5", "stay") + BLESSED, host.slot("b", "2.0", "die") + TRIAL)
    host.start(origin, "run")
    assert [picture(start) for start in host.wait_for_starts(4)] == [("2.0", "b", "1")] * 3 + [("1.5", "a", "0")]


def test_a_trial_that_is_not_blessed_in_time_is_killed(host: Host, origin: Path) -> None:
    trial = TRIAL.replace("3 b", "1 b")
    host.record(host.slot("a", "1.5", "stay") + BLESSED, host.slot("b", "2.0", "stay") + trial, deadline=1)
    daemon = host.start(origin, "run")
    first, second = host.wait_for_starts(2)
    assert daemon.wait(fake.PATIENCE_SECONDS) == -signal.SIGKILL
    assert (picture(first), picture(second)) == (("2.0", "b", "1"), ("1.5", "a", "0"))
    assert second["APPLIANCE_NOTE"] == "2.0 in slot b was not blessed in time"


def test_a_blessed_version_may_die_without_the_guard(host: Host, origin: Path) -> None:
    a, b = host.slot("a", "1.5", "stay") + BLESSED, host.slot("b", "2.0", "stay")
    host.record(a, b + TRIAL)
    daemon = host.start(origin, "run")
    start = host.wait_for_starts(1)[0]
    host.record(a, b + " priority=3 tries=2 blessed=1")
    daemon.kill()
    daemon.wait(fake.PATIENCE_SECONDS)
    until(lambda: not alive(int(start["APPLIANCE_GUARD"])))
    assert len(host.starts()) == 1


def test_a_dismissed_guard_starts_nothing(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.5", "stay") + BLESSED, host.slot("b", "2.0", "stay") + TRIAL)
    daemon = host.start(origin, "run")
    start = host.wait_for_starts(1)[0]
    guard = int(start["APPLIANCE_GUARD"])
    os.kill(guard, signal.SIGINT)  # as Ctrl-C would: only the daemon stops by it, and then tells the guard
    os.kill(guard, signal.SIGTERM)
    until(lambda: not alive(guard))
    daemon.kill()
    daemon.wait(fake.PATIENCE_SECONDS)
    assert len(host.starts()) == 1


def test_the_guard_starts_the_version_that_origin_is_when_origin_was_removed(host: Host, origin: Path) -> None:
    trial = TRIAL.replace("3 b", "1 b")
    host.record(host.slot("a", "1.5", "stay") + BLESSED, host.slot("b", "2.0", "stay") + trial)
    daemon = host.start(origin, "run")
    host.wait_for_starts(1)
    origin.unlink()
    daemon.kill()
    assert picture(host.wait_for_starts(2)[1]) == ("1.5", "a", "0")


def test_as_the_first_process_a_trial_has_no_guard(host: Host, origin: Path) -> None:
    host.record(host.slot("a", "1.5") + BLESSED, host.slot("b", "2.0") + TRIAL)
    start = host.run(origin, "run", wrap=["unshare", "--pid", "--fork", "--mount-proc"])
    assert picture(start) == ("2.0", "b", "1")
    assert start["PID"] == "1"
    assert "APPLIANCE_GUARD" not in start
