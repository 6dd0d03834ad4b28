"""What a review of updates with fresh eyes looked for: signals, guards, missing and damaged files, odd hosts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import zstandard

from tests.binary import fake
from tests.binary.fake import Host, alive
from tests.binary.test_slots import BLESSED, TRIAL
from tests.binary.test_update_e2e import Versions, node, server, shelf, versions  # noqa: F401
from tests.binary.update_node import Node, Shelf
from tests.update.conftest import Server

# ruff: noqa: F811 - fixtures
pytestmark = pytest.mark.binary


def blocked(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk")]
    return int(line.split()[1], 16)


def test_what_arrives_while_a_trial_starts_waits_for_python(host: Host) -> None:
    """The fake program never unblocks them, as a Python that is not up yet; the guard obeys whatever it inherits."""
    origin = host.file("1.0")
    host.record(host.slot("a", "1.0") + BLESSED, host.slot("b", "2.0", "stay") + TRIAL)
    deaf = "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); " \
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); os.execv(sys.argv[1], sys.argv[1:])"
    host.start(origin, "run", wrap=["/usr/bin/python3", "-c", deaf])
    (start,) = host.wait_for_starts(1)
    pid, guard = int(start["PID"]), int(start["APPLIANCE_GUARD"])
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
        assert blocked(pid) >> (number - 1) & 1
    assert alive(pid)
    assert blocked(guard) == 0
    os.kill(guard, signal.SIGTERM)
    fake.until(lambda: not alive(guard))


def test_a_stop_at_any_moment_of_a_trials_start_is_a_stop(
    node: Node, shelf: Shelf, versions: Versions, server: Server
) -> None:
    """No guard takes it for a crash; no try more than the one is spent; the update goes on at the next start."""
    settings = node.root / "etc/appliance/appliance.toml"
    settings.write_text(settings.read_text().replace("tries = 2", "tries = 9").replace('"500ms"', '"2s"'))
    shelf.publish(versions["2.0.0"])
    node.start({"APPLIANCE_FAILPOINT": "update.armed.enter"})
    node.wait_resting()
    node.cli("update", "apply", "--no-wait", check=False)
    node.wait_dead()
    for milliseconds in (20, 60, 120, 200, 300):
        node.start()
        daemon = node.started[-1]
        time.sleep(milliseconds / 1000)  # an instant, not a synchronisation: each must do
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
    time.sleep(1.5)  # a guard waits a second
    assert not node.pid(), node.said()
    assert node.record().b.tries >= 4
    node.start()
    node.wait(lambda it: it["version"] == "2.0.0" and it["state"] == "idle", "2.0.0")


def test_origin_is_removed_during_the_first_life(node: Node, shelf: Shelf, versions: Versions) -> None:
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    ticker = node.ticker()
    kept = node.origin.with_name("kept")
    kept.write_bytes(node.origin.read_bytes())
    kept.chmod(0o755)
    node.origin.unlink()
    node.origin = kept
    assert "1.0.0 -> 2.0.0: blessed" in node.cli("update", "apply").stdout
    assert node.ticker() == ticker


def test_a_rollback_to_a_damaged_slot_is_refused_at_once(node: Node, shelf: Shelf, versions: Versions) -> None:
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    node.cli("update", "apply")
    node.wait_resting()
    file = node.root / "var/lib/appliance/slots/a/appliance"
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    before = node.record()
    result = node.cli("update", "rollback", "--timeout", "20s", check=False)
    assert "cannot roll back" in result.stdout + result.stderr
    assert "damaged or gone" in result.stdout + result.stderr
    assert (node.record(), node.wait_resting()["version"]) == (before, "2.0.0")


def test_a_release_during_the_trial_of_another(
    node: Node, shelf: Shelf, versions: Versions, server: Server
) -> None:
    """It waits its turn; then its trial goes into the slot of the version before; the guard's death is no matter."""
    settings = node.root / "etc/appliance/appliance.toml"
    settings.write_text(settings.read_text().replace('"500ms"', '"3s"'))
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    ticker, pid = node.ticker(), node.pid()
    node.cli("update", "apply", "--no-wait")
    node.wait(lambda it: it["state"] == "trial", "the trial")
    (guard,) = [
        int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if is_guard_of(stat, pid)
    ]
    os.kill(guard, signal.SIGKILL)
    shelf.publish(versions["2.1.0"])
    refused = node.cli("update", "apply", check=False)
    assert "an update to 2.0.0 is at trial" in refused.stderr
    node.wait(lambda it: it["version"] == "2.0.0" and it["state"] == "idle", "2.0.0")
    assert "2.0.0 -> 2.1.0: blessed" in node.cli("update", "apply").stdout
    assert [entry[1] for entry in node.outcomes()] == ["blessed", "blessed"]
    assert (node.pid(), node.ticker(), node.record().a.version) == (pid, ticker, "2.1.0")


def is_guard_of(stat: Path, pid: int) -> bool:
    try:
        text = stat.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "(appliance-guard" in text and text.rpartition(")")[2].split()[1] == str(pid)


def plain(data: bytes) -> bytes:
    """A piece of a journal, packed or not."""
    if not data.startswith(b"\x28\xb5\x2f\xfd"):
        return data
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()


def test_no_line_of_a_chatty_unit_is_lost_over_a_switch(node: Node, shelf: Shelf, versions: Versions) -> None:
    lines = 60_000
    loop = f"while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i of a unit that talks a lot; done"
    script = f"while [ ! -e go ]; do sleep 0.1; done; i=0; {loop}; sleep 1000"
    (node.root / "etc/appliance/units/chatty.toml").write_text(
        f'[service]\ncommand = ["/bin/sh", "-c", {json.dumps(script)}]\n'
        f'working_directory = "{node.root}"\n[logs]\nlimit = "64M"\n'
    )
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    node.cli("update", "download")
    (node.root / "go").touch()
    assert "blessed" in node.cli("update", "apply").stdout
    journal = node.root / "var/lib/appliance/journal"

    def found() -> list[int]:
        files = sorted(file for file in journal.rglob("*") if file.is_file() and "chatty" in str(file))
        text = b"".join(plain(file.read_bytes()) for file in files)
        return [int(number) for number in re.findall(rb"line (\d+) of a unit that talks a lot\n", text)]

    fake.until(lambda: lines in found())
    assert sorted(found()) == list(range(1, lines + 1))


def test_an_armed_version_waits_while_the_state_is_read_only(
    node: Node, shelf: Shelf, versions: Versions
) -> None:
    """The launcher cannot spend a try, the daemon cannot count its switches: it does not ask again and again."""
    shelf.publish(versions["2.0.0"])
    node.start({"APPLIANCE_FAILPOINT": "update.armed.enter"})
    node.wait_resting()
    node.cli("update", "apply", "--no-wait", check=False)
    node.wait_dead()
    state = node.root / "var"
    read_only = f"mount --bind {state} {state} && mount -o remount,bind,ro {state} && exec \"$@\""
    node.start(wrap=["unshare", "-m", "sh", "-c", read_only, "sh"])
    picture = node.wait(lambda it: "waits for the next start" in it["reason"], "a reason")
    assert picture["version"] == "1.0.0"
    assert "switch:" not in node.said()
    os.kill(node.pid(), signal.SIGTERM)
    node.wait_dead()
    node.start()
    node.wait(lambda it: it["version"] == "2.0.0" and it["state"] == "idle", "2.0.0")


def test_as_pid_1(node: Node, shelf: Shelf, versions: Versions) -> None:
    shelf.publish(versions["2.0.0"])
    node.start(wrap=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
    node.wait(lambda it: it["state"] == "idle" and it["slot"] != "none", "rest")
    assert "1.0.0 -> 2.0.0: blessed" in node.cli("update", "apply").stdout
    assert node.picture()["version"] == "2.0.0"
    assert (node.root / "run/appliance/lock").read_text() == "1\n"
    assert "1.0.0" in node.cli("update", "rollback").stdout
    node.wait(lambda it: it["version"] == "1.0.0" and it["state"] == "idle", "1.0.0")
    unshare = node.started[-1]
    first = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text()
    os.kill(int(first), signal.SIGTERM)
    assert unshare.wait(60) == 0


def test_as_another_user(node: Node, shelf: Shelf, versions: Versions) -> None:
    shelf.publish(versions["2.0.0"])
    subprocess.run(["chown", "-R", "12345:12345", node.place], check=True)
    for path in node.place.parents:
        if path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o005 != 0o005:
            path.chmod(path.stat().st_mode | 0o055)
    cache = node.place / "cache"
    cache.mkdir()
    os.chown(cache, 12345, 12345)
    user = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    node.start({"APPLIANCE_CACHE": str(cache)}, wrap=user)
    node.wait_resting()
    assert "1.0.0 -> 2.0.0: blessed" in node.cli("update", "apply").stdout
    assert os.stat(node.root / "var/lib/appliance/slots/b/appliance").st_uid == 12345


def test_the_guard_and_two_starts_by_hand_make_one_daemon(
    node: Node, shelf: Shelf, versions: Versions, server: Server
) -> None:
    settings = node.root / "etc/appliance/appliance.toml"
    settings.write_text(settings.read_text().replace("tries = 2", "tries = 9").replace('"500ms"', '"3s"'))
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    ticker = node.ticker()
    node.cli("update", "apply", "--no-wait")
    node.wait(lambda it: it["state"] == "trial", "the trial")
    killed = node.pid()
    os.kill(killed, signal.SIGKILL)
    node.wait_dead()
    time.sleep(0.9)  # about when the guard looks: an instant, not a synchronisation
    node.start()
    node.start()
    picture = node.wait(lambda it: it["state"] == "idle" and it["recent"], "a verdict")
    assert (picture["version"], picture["recent"][0]["outcome"]) == ("2.0.0", "blessed")
    assert node.ticker() == ticker
    fake.until(lambda: [one.poll() is None for one in node.started[1:]].count(True) <= 1)
    assert "Traceback" not in node.said()


def test_a_disk_that_fills_up_before_the_trial(node: Node, shelf: Shelf, versions: Versions) -> None:
    """Nothing can be kept, so nothing is proved: it is gone back by the record alone, and all is well with room."""
    state = node.root / "var"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400M,mode=755", "none", state], check=True)
    try:
        shelf.publish(versions["2.0.0"])
        node.start({"APPLIANCE_FAILPOINT": "update.armed.enter"})
        node.wait_resting()
        ticker = node.ticker()
        node.cli("update", "apply", "--no-wait", check=False)
        node.wait_dead()
        with (state / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"\0" * 65536)
        node.start()
        first = node.wait(lambda it: it["state"] in ("trial", "idle"), "life")
        (state / "filler").unlink()
        picture = node.wait(lambda it: it["state"] == "idle" and it["recent"], "a verdict")
        assert (first["slot"] in "ab", picture["recent"][0]["outcome"]) in ((True, "blessed"), (True, "rolled back"))
        assert picture["version"] == {"blessed": "2.0.0", "rolled back": "1.0.0"}[picture["recent"][0]["outcome"]]
        assert node.ticker() == ticker
    finally:
        node.clean_up()
        subprocess.run(["umount", "-l", state], check=True)
