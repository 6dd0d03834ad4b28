"""Gates, bundles and schemas by the built file itself: real processes, a real repository, a real FleetLock server."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.binary.test_update_e2e import Versions, node, server, shelf, versions  # noqa: F401
from tests.binary.update_node import PATIENCE, Node, Shelf
from tests.update.conftest import Server
from tests.update.fleet_server import serve_fleet

# ruff: noqa: F811 - fixtures
pytestmark = [pytest.mark.binary, pytest.mark.slow]

HEALTH = '[update.health]\nsettle = "300ms"\ndeadline = "20s"\ntries = 2\n'


def write_settings(node: Node, update: str, rest: str = "") -> None:
    text = f'[status]\nlisten = "off"\n[update]\n{update}\n{HEALTH}{rest}'
    (node.root / "etc/appliance/appliance.toml").write_text(text)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def make_shop(place: Path, version: str, script: str) -> Path:
    tree = place / f"shop-{version}"
    (tree / "lib").mkdir(parents=True)
    (tree / "run").write_text(f"#!/bin/sh\n{script}\n")
    (tree / "run").chmod(0o755)
    (tree / "lib/VERSION").write_text(version)
    return tree


def publish_shop(shelf: Shelf, place: Path, version: str, script: str = "exec sleep 1000") -> None:
    tree = make_shop(place, version, script)
    shelf.run(
        "add", shelf.directory, "--channel", "alpha", "--kind", "bundle", "--product", "shop", "--architecture", "any",
        "--release-version", version, tree,
    )  # fmt: skip
    shelf.run("publish", shelf.directory, "--keys", shelf.keys)


def test_a_bundle_from_1_to_3(tmp_path: Path, node: Node, shelf: Shelf, server: Server) -> None:
    place = node.root / "var/lib/appliance/bundles/shop"
    (node.root / "etc/appliance/units/shop.toml").write_text(
        f'[service]\ncommand = ["{place}/current/run"]\n[restart]\ndelay = "200ms"\n'
    )
    write_settings(
        node, f'repository = "{server.url}"\nchannel = "alpha"\nstrategy = "manual"',
        f'[[update.bundle]]\nname = "shop"\nrepository = "{server.url}"\nchannel = "alpha"\nstrategy = "manual"\n'
        'units = ["shop"]\n[update.bundle.health]\nsettle = "300ms"\ndeadline = "5s"\ntries = 2\n',
    )  # fmt: skip
    publish_shop(shelf, tmp_path, "1.0.0")
    node.start()
    node.wait_resting()
    pid, ticker = node.pid(), node.ticker()
    shop = ("--product", "shop")
    assert "-> 1.0.0: blessed" in node.cli("update", "apply", *shop).stdout
    assert (place / "current").readlink() == Path("a")
    publish_shop(shelf, tmp_path, "2.0.0")
    assert node.cli("update", "apply", "--dry-run", *shop).stdout.startswith("1.0.0 -> 2.0.0\n")
    assert (place / "current/lib/VERSION").read_text() == "1.0.0"
    assert "1.0.0 -> 2.0.0: blessed" in node.cli("update", "apply", *shop).stdout
    assert (place / "current/lib/VERSION").read_text() == "2.0.0"

    publish_shop(shelf, tmp_path, "3.0.0", "echo it breaks; exit 1")
    result = node.cli("update", "apply", *shop, check=False)
    assert result.returncode == 1
    assert "2.0.0 -> 3.0.0: rolled back: not healthy within 5 s" in result.stdout
    assert (place / "current/lib/VERSION").read_text() == "2.0.0"
    wait_for(lambda: node.ask("unit", "status", "shop")["pid"], "the shop's old version")
    assert "3.0.0 is denied" in node.cli("update", "apply", *shop).stdout

    # Its own status, history, explain and holds; ours know nothing of it.
    picture = node.ask("update", "status", *shop)
    assert (picture["product"], picture["version"], picture["denied"]) == ("shop", "2.0.0", ["3.0.0"])
    history = node.ask("update", "history", *shop)
    assert [one["outcome"] for one in history] == ["nothing new", "rolled back", "blessed", "blessed"]
    assert all(one["size"] and one["seconds"] for one in history[1:])
    assert node.ask("update", "history") == []
    gates = {one["name"]: one for one in node.ask("update", "explain", *shop)}
    assert not gates["denied"]["open"]
    assert "shop" in node.cli("update", "history", "--product", "other", check=False).stderr
    # All of that in one process, and nobody else was touched.
    assert (node.pid(), node.ticker()) == (pid, ticker)


def test_holds_last_and_are_refused_with_6(node: Node, shelf: Shelf, server: Server, versions: Versions) -> None:
    shelf.publish(versions["2.0.0"])
    node.start()
    node.wait_resting()
    node.cli("update", "hold", "--for", "2h", "--why", "the fair is on", "--name", "anna")
    os.kill(node.pid(), signal.SIGKILL)
    node.wait_dead()
    node.start()
    node.wait_resting()
    result = node.cli("update", "apply", check=False)
    assert result.returncode == 6, (result.stdout, result.stderr)
    assert "anna: the fair is on" in result.stdout
    result = node.cli("update", "apply", "--dry-run", check=False)
    assert result.returncode == 6
    assert "shut: hold" in result.stdout
    assert "held      anna: the fair is on" in node.cli("update", "status").stdout
    assert node.cli("update", "unhold", "bert", check=False).returncode == 4
    node.cli("update", "unhold", "anna")
    hold = node.root / "run/appliance/update-hold.d"
    hold.mkdir()
    (hold / "backup").write_text("the backup runs\n")
    assert "the backup runs" in node.cli("update", "apply", check=False).stdout
    assert "1.0.0 -> 2.0.0: blessed" in node.cli("update", "apply", "--now").stdout


@pytest.mark.parametrize("failpoint", ["update.clearing.enter", "update.armed.enter", "update.switching.enter"])
def test_a_lock_is_given_back_though_we_were_killed_with_it(
    failpoint: str, node: Node, shelf: Shelf, server: Server, versions: Versions
) -> None:
    with serve_fleet() as fleet:
        write_settings(
            node,
            f'repository = "{server.url}"\nchannel = "alpha"\nstrategy = "lock"\ninterval = "1s"\n'
            f'lock = {{url = "{fleet.url}", id = "me"}}',
        )
        shelf.publish(versions["2.0.0"])
        fleet.holders["default"] = {"other"}
        node.start()
        picture = node.wait(lambda it: it["waiting"], "the lock")
        assert picture["waiting"].startswith("lock: ")
        assert (picture["state"], picture["version"]) == ("downloaded", "1.0.0")
        os.kill(node.pid(), signal.SIGKILL)
        node.wait_dead()
        fleet.holders["default"].clear()
        node.start({"APPLIANCE_FAILPOINT": failpoint})
        wait_for(lambda: fleet.held() == {"me"}, "the lock to be taken")
        node.wait_dead()
        assert fleet.held() == {"me"}
        node.start()
        node.wait(lambda it: it["version"] == "2.0.0" and it["state"] == "idle", "2.0.0")
        wait_for(lambda: not fleet.held(), "the lock to be given back")
        assert node.outcomes() == [("2.0.0", "blessed")]


SCHEMA_2 = {
    "appliance.version": None,
    "appliance.update.migrations": """
from collections.abc import Callable
from dataclasses import dataclass

@dataclass(frozen=True)
class Migration:
    schema: int
    forward: Callable[[str], None]
    back: Callable[[str], None]

def _mark(word):
    def act(directory):
        with open(directory + "/store/way", "a") as file:
            file.write(word)
    return act

MIGRATIONS = (Migration(2, _mark("forward "), _mark("back ")),)
""",
}


def test_two_schemas_there_and_back(
    tmp_path: Path, node: Node, shelf: Shelf, server: Server, versions: Versions, make_variant: Callable[..., Path]
) -> None:
    import appliance.version

    source = Path(appliance.version.__file__).read_text().replace("SCHEMA = 1", "SCHEMA = 2")
    code = {**SCHEMA_2, "appliance.version": source}
    sick, good = make_variant("2.0.0", code=code), make_variant("3.0.0", code=code)
    state = node.root / "var/lib/appliance"
    record = state / "slots/record"
    check = f"! grep -aq 'slot . 2.0.0 .*blessed=0' {record}"
    write_settings(
        node, f'repository = "{server.url}"\nchannel = "alpha"\nstrategy = "manual"',
        f"[[update.health.check]]\ncommand = {json.dumps(['/bin/sh', '-c', check])}\n",
    )  # fmt: skip
    text = (node.root / "etc/appliance/appliance.toml").read_text().replace('"20s"', '"3s"')
    (node.root / "etc/appliance/appliance.toml").write_text(text)
    node.start()
    node.wait_resting()
    node.cli("store", "put", "one", "1")

    def get(key: str) -> str:
        return node.cli("store", "get", key, check=False).stdout.strip()

    shelf.publish(sick)
    assert "2.0.0: rolled back" in node.cli("update", "apply", check=False).stdout
    assert node.wait_resting()["version"] == "1.0.0"
    assert "1" in get("one")
    assert not (state / "data-2").exists()
    assert not (state / "store/way").exists()

    shelf.publish(good)
    assert "1.0.0 -> 3.0.0: blessed" in node.cli("update", "apply").stdout
    assert "1" in get("one")
    node.cli("store", "put", "two", "2")
    assert (state / "data-2/store/way").read_text() == "forward "
    assert (state / "store").exists()

    # Back by hand: what was written since comes along.
    assert "3.0.0 -> 1.0.0: rolled back" in node.cli("update", "rollback").stdout
    assert node.wait_resting()["version"] == "1.0.0"
    assert "2" in get("two")
    assert (state / "store/way").read_text() == "forward back "
    assert node.ask("update", "history")[0]["outcome"] == "rolled back"
