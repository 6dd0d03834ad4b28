"""Updates with real files, real processes, a real repository over HTTP."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.release import Expiry, KeyRing, publish
from tests.binary.update_node import Node, Shelf
from tests.update.conftest import Publisher, Server, serve_directory
from tests.update.test_trust import forge

pytestmark = [pytest.mark.binary, pytest.mark.slow]

SICK = """
[[update.health.check]]
command = ["/bin/sh", "-c", "! grep -aq 'slot . 4.0.0 .*blessed=0' {record} || {{ echo not well >&2; exit 1; }}"]
"""


class Versions:
    """Built once for all tests here."""

    def __init__(self, make_variant: object) -> None:
        self._make = make_variant
        self._made: dict[str, Path] = {}

    def __getitem__(self, version: str) -> Path:
        if version not in self._made:
            self._made[version] = self._make(version, break_import=version == "3.0.0")  # type: ignore[operator]
        return self._made[version]


@pytest.fixture(scope="module")
def versions(make_variant: object) -> Versions:
    return Versions(make_variant)


@pytest.fixture
def shelf(tmp_path: Path, versions: Versions) -> Shelf:
    return Shelf(tmp_path, versions["1.0.0"])


@pytest.fixture
def server(shelf: Shelf) -> Iterator[Server]:
    with serve_directory(shelf.directory) as server:
        yield server


@pytest.fixture
def node(tmp_path: Path, versions: Versions, shelf: Shelf, server: Server) -> Iterator[Node]:
    node = Node(tmp_path, versions["1.0.0"])
    (node.root / "etc/appliance/trust/root.json").write_bytes(shelf.trust_root)
    node.settings(server.url)
    try:
        yield node
    finally:
        node.clean_up()


def test_updates_from_1_to_6(tmp_path: Path, versions: Versions, shelf: Shelf, server: Server, node: Node) -> None:
    node.start()
    node.wait_resting()
    ticker, pid = node.ticker(), node.pid()

    # 2.0 is good: blessed, in the same process id.
    shelf.publish(versions["2.0.0"])
    assert "2.0.0" in node.cli("update", "check").stdout
    assert "1.0.0 -> 2.0.0: blessed" in node.cli("update", "apply").stdout
    picture = node.wait_resting()
    assert (picture["version"], picture["slot"]) == ("2.0.0", "b")
    assert (node.pid(), node.ticker()) == (pid, ticker)
    assert (node.root / "var/lib/appliance/slots/current").readlink() == Path("b")

    # 3.0 cannot even import: back on 2.0 by itself.
    shelf.publish(versions["3.0.0"])
    result = node.cli("update", "apply", check=False)
    assert result.returncode == 1
    assert "2.0.0 -> 3.0.0: rolled back: 3.0.0 used up its 2 starts" in result.stdout
    assert node.wait_resting()["version"] == "2.0.0"
    assert node.ticker() == ticker

    # 4.0 starts, but a declared check never succeeds: back on 2.0 by itself, with the reason.
    record = node.root / "var/lib/appliance/slots/record"
    node.settings(server.url, deadline="3s", more=SICK.format(record=record))
    os.kill(node.pid(), signal.SIGHUP)
    shelf.publish(versions["4.0.0"])
    result = node.cli("update", "apply", check=False)
    assert result.returncode == 1
    assert "2.0.0 -> 4.0.0: rolled back: not healthy within 3 s: check command" in result.stdout
    assert "not well" in result.stdout
    picture = node.wait_resting()
    assert (picture["version"], picture["denied"]) == ("2.0.0", ["3.0.0", "4.0.0"])
    assert node.ticker() == ticker
    result = node.cli("update", "apply")
    assert "4.0.0 is denied" in result.stdout
    before = node.record()

    def refused(reason: str, *, code: int = 5, words: tuple[str, ...] = ("apply",)) -> None:
        result = node.cli("update", *words, check=False)
        assert result.returncode == code, (result.stdout, result.stderr)
        assert reason in result.stdout + result.stderr
        assert node.record() == before
        assert (node.wait_resting()["version"], node.ticker()) == ("2.0.0", ticker)

    # 5.0 is signed by a wrong key. Our publisher will not do that, so the repository is forged by hand.
    honest = tmp_path / "honest"
    shutil.copytree(shelf.directory, honest)
    wrong = KeyRing(str(tmp_path / "wrong"))
    wrong.make("alpha")
    shelf.run("add", shelf.directory, "--channel", "alpha", versions["5.0.0"])
    forge(Publisher(shelf.directory, shelf.keys, tmp_path), wrong)
    refused("alpha was signed by 0/1 keys")
    server.directory = honest
    refused("rollback")  # the forged timestamp was well signed: whoever has that key can stop us, not feed us

    # 6.0 has a flipped byte.
    server.directory = shelf.directory
    shutil.rmtree(shelf.directory / "targets/alpha/5.0.0")
    for name in ("metadata", "targets"):
        shutil.copytree(honest / name, shelf.directory / name, dirs_exist_ok=True)
    catch_up(shelf)
    shelf.publish(versions["6.0.0"])
    server.lies[".appliance"] = lambda data: bytes(byte ^ 4 for byte in data)  # a host reads only what it lacks
    refused("damaged or tampered with")
    assert list((node.root / "var/lib/appliance/update/download").iterdir()) == []
    server.lies.clear()

    # An expired timestamp: the server is frozen at yesterday's state.
    publish(str(shelf.directory), KeyRing(str(shelf.keys)), expiry=Expiry(timestamp=60), now=1e9)
    refused("timestamp.json is expired")
    publish(str(shelf.directory), KeyRing(str(shelf.keys)))

    # An older version is offered.
    shelf.publish(versions["1.5.0"], channel="beta")
    node.settings(server.url, channel="beta")
    os.kill(node.pid(), signal.SIGHUP)
    node.wait(lambda it: it["channel"] == "beta", "the new channel")
    refused("older than the running 2.0.0")
    refused("older than the running 2.0.0", words=("apply", "1.5.0"))

    # Denied is denied until a person says so; and 6.0 as it is signed is fine.
    node.settings(server.url)
    os.kill(node.pid(), signal.SIGHUP)
    node.wait(lambda it: it["channel"] == "alpha", "the old channel")
    refused("4.0.0: it is denied", words=("apply", "4.0.0"))
    node.cli("update", "apply")
    assert node.wait_resting()["version"] == "6.0.0"
    result = node.cli("update", "rollback")
    assert "6.0.0 -> 2.0.0: rolled back" in result.stdout
    assert node.wait_resting()["version"] == "2.0.0"

    # Through all of it the unit was one process, and none of its lines is missing.
    assert node.ticker() == ticker
    ticks = node.ticks()
    assert ticks == list(range(1, len(ticks) + 1))
    assert len(ticks) > 50
    os.kill(node.pid(), signal.SIGTERM)
    node.wait_dead()


def catch_up(shelf: Shelf) -> None:
    """The hosts have seen newer versions than the honest copy has: publish until they are passed."""
    for _ in range(3):
        publish(str(shelf.directory), KeyRing(str(shelf.keys)))


def test_a_version_that_dies_in_each_of_its_trials(node: Node, shelf: Shelf, versions: Versions) -> None:
    """Nobody but the guard starts it again; where else it may be killed is in test_power_kills."""
    shelf.publish(versions["2.0.0"])
    node.start({"APPLIANCE_FAILPOINT": "update.armed.enter"})
    node.wait_resting()
    ticker = node.ticker()
    node.cli("update", "apply", "--no-wait", check=False)
    node.wait_dead()
    node.start({"APPLIANCE_FAILPOINT": "update.trial.enter"})
    picture = node.wait(lambda it: it["version"] == "1.0.0" and it["state"] == "idle" and it["recent"], "a verdict")
    assert [(entry["to_version"], entry["outcome"]) for entry in picture["recent"]] == [("2.0.0", "rolled back")]
    assert node.ticker() == ticker
    assert node.ticks() == list(range(1, len(node.ticks()) + 1))


def test_kill_9_in_the_middle_of_a_trial_is_one_try_and_not_the_verdict(
    node: Node, shelf: Shelf, versions: Versions, server: Server
) -> None:
    """A power cut or a stray kill during the trial: the guard starts the new version again, and it is blessed."""
    node.settings(server.url)
    text = (node.root / "etc/appliance/appliance.toml").read_text().replace('"500ms"', '"4s"')
    (node.root / "etc/appliance/appliance.toml").write_text(text)
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    ticker = node.ticker()
    node.cli("update", "apply", "--no-wait")
    node.wait(lambda it: it["state"] == "trial", "the trial")
    killed = node.pid()
    os.kill(killed, signal.SIGKILL)
    picture = node.wait(lambda it: it["state"] == "idle" and it["recent"], "a verdict")
    assert node.pid() != killed
    assert (picture["version"], picture["recent"][0]["outcome"]) == ("2.0.0", "blessed")
    assert node.ticker() == ticker


def test_power_cuts_in_a_trial_deny_nobody(node: Node, shelf: Shelf, versions: Versions) -> None:
    """As many as it has tries; each boot has another name. In the end it is started again, and blessed."""
    (node.root / "etc/appliance/units/ticker.toml").unlink()  # its pid is of the boot before
    shelf.publish(versions["2.0.0"])

    def boot(number: int, failpoint: str = "") -> None:
        name = node.place / f"boot-{number}"
        name.write_text(f"{number:08}-0000-4000-8000-000000000000\n")
        kernel = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
        node.start({"APPLIANCE_FAILPOINT": failpoint}, wrap=["unshare", "-m", "sh", "-c", kernel, str(name)])

    boot(1, "update.armed.enter")
    node.wait_resting()
    node.cli("update", "apply", "--no-wait", check=False)
    node.wait_dead()
    for number in (2, 3):
        boot(number, "update.trial.enter=hang")
        node.wait_said("update trial:", number - 1)
        os.killpg(node.started[-1].pid, signal.SIGKILL)  # the guard, too
        node.wait_dead()
    assert node.record().b.tries == 0
    boot(4)
    picture = node.wait(lambda it: it["state"] == "idle" and it["recent"], "a verdict")
    assert [(entry["to_version"], entry["outcome"]) for entry in picture["recent"]] == [("2.0.0", "blessed")]
    assert (picture["version"], picture["denied"]) == ("2.0.0", [])
    assert "the machine went down in its trial; it is tried once more, 1 of 3 times" in node.said()


def test_both_copies_of_the_record_broken(node: Node, shelf: Shelf, versions: Versions) -> None:
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    node.cli("update", "apply")
    os.kill(node.pid(), signal.SIGKILL)
    node.wait_dead()
    (node.root / "var/lib/appliance/slots/record").write_bytes(b"rubbish" * 2000)
    node.start()
    picture = node.wait_resting()
    assert (picture["version"], picture["slot"]) == ("2.0.0", "b")
    assert node.record().b.blessed
    assert "neither copy is whole" in node.said()


def test_a_person_drops_another_file(node: Node, shelf: Shelf, versions: Versions) -> None:
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    ticker = node.ticker()
    node.cli("update", "apply")
    node.drop(versions["6.0.0"])
    os.kill(node.pid(), signal.SIGKILL)
    node.wait_dead()
    node.start()
    picture = node.wait_resting()
    assert picture["version"] == "6.0.0"
    assert {slot["version"] for slot in picture["slots"]} == {"2.0.0", "6.0.0"}
    assert node.ticker() == ticker
