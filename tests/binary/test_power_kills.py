"""kill -9 of the real appliance at every step of an update; an init starts it again, and it ends by itself.

Whatever the step: the old or the new version runs, the update is gone on with, the unit is the same process and none of
its lines is missing, what the store acknowledged is there. Some at a time: mostly they wait.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.client import call
from appliance.errors import ApplianceError
from appliance.host.layout import Layout
from appliance.host.slots import RealSlotCalls
from appliance.update.record import other
from appliance.update.slots import Slots
from tests.binary.update_node import PATIENCE, Node, Shelf
from tests.update.conftest import Server, serve_directory

pytestmark = [pytest.mark.binary, pytest.mark.slow, pytest.mark.soak]

AT_A_TIME = 6
INIT_SECONDS = 0.3
SICK = """
[[update.health.check]]
command = ["/bin/sh", "-c", "! grep -aq 'slot . 4.0.0 .*blessed=0' {record} || {{ echo not well >&2; exit 1; }}"]
"""
RECORD = ["update.record.unsynced-0", "update.record.copy-0", "update.record.unsynced-1", "update.record.copy-1"]
LINK = ["update.current.made", "update.current.renamed"]
KEPT = ["keep.update/rollout.before", "keep.update/rollout.after"]
SAID = ["keep.update/history.before", "keep.update/history.after"]
LEAVING = ["update.switch.guarded", "update.switch.exec"]

# The version that runs, from the question to the exec of the launcher.
OLD = [
    "update.checking.enter", "update.fetch.metadata", "update.checking.leave", "update.available.enter",
    "update.available.leave", "update.downloading.enter", "update.fetch.index", "update.fetch.chunk",
    "update.fetch.chunk:40", "update.fetch.range", "update.fetch.piece", "update.fetch.unsynced",
    "update.fetch.synced", "update.fetch.whole-file", "update.fetch.renamed", "update.fetch.end",
    "update.downloading.leave", "update.downloaded.enter", "update.downloaded.leave", "update.clearing.enter",
    *RECORD, "update.clear.record", "update.clear.removed", "update.clearing.leave", "update.writing.enter",
    "update.write.piece", "update.writing.leave", "update.verifying.enter", "update.verify.read",
    "update.verify.renamed", *(f"{one}:2" for one in RECORD), "update.verifying.leave", "update.armed.enter",
    "update.armed.leave", "update.switching.enter", *LEAVING,
    *(f"{one}:{count}" for one in KEPT for count in (1, 4, 9, 10)),
    "store-before-write:4", "store-before-sync:4", "store-after-sync:4",
]  # fmt: skip
# The new one on trial; a guard is there too.
TRIAL = [
    "update.trial.enter", "update.trial.leave", *RECORD, *LINK, "update.bless.record", "update.blessed.enter",
    *SAID, *(f"{one}:{count}" for one in KEPT for count in (1, 2, 3)), "update.blessed.leave", "update.idle.enter",
]  # fmt: skip
# A version that never gets well condemns itself; the old one says so.
SICK_ONE = [
    "update.trial.leave", "update.rolling-back.enter", "update.condemn.before", *RECORD, *LINK,
    "keep.update/denied.before", "keep.update/denied.after", "update.condemn.after", *LEAVING,
]  # fmt: skip
AFTER_SICK = [*SAID, "update.rolling-back.leave", "update.idle.enter", "keep.update/rollout.before"]
# A version that cannot even import itself: the old one condemns it.
AFTER_BROKEN = [
    "update.rolling-back.enter", "update.condemn.before", *RECORD, "update.condemn.after", *SAID, "update.idle.enter",
]  # fmt: skip
BY_HAND = ["update.rolling-back.enter", "update.condemn.before", *RECORD, *LINK, "update.condemn.after", *LEAVING]
AFTER_HAND = [*SAID, "update.idle.enter"]
# A person has put another file there.
SEEDING = [
    *RECORD, "update.clear.record", "update.clear.removed", "update.write.piece", "update.write.piece:9",
    "update.verify.read", "update.verify.renamed", *(f"{one}:2" for one in RECORD), *LINK,
]  # fmt: skip
# The launcher itself, at its nth system call of that name, while it picks and starts 2.0.0.
LAUNCHER = ["flock:1", "flock:2", "pwrite64:1", "fdatasync:1", "pwrite64:2", "fdatasync:2", "execve:1", "execve:2"]


@dataclass(frozen=True)
class Case:
    """``chain``: which process is to die: this one, the one it becomes, or the one after that."""

    story: str
    point: str
    chain: str = ""
    version: str = "2.0.0"
    ends: str = "2.0.0"
    outcome: str = "blessed"

    def __str__(self) -> str:
        return f"{self.story}-{self.point}"


CASES = [
    *(Case("apply", point) for point in OLD),
    *(Case("trial", point, "next") for point in TRIAL),
    *(Case("sick", point, "next", "4.0.0", "1.0.0", "rolled back") for point in SICK_ONE),
    *(Case("after sick", point, "later", "4.0.0", "1.0.0", "rolled back") for point in AFTER_SICK),
    *(Case("after broken", point, "next", "3.0.0", "1.0.0", "rolled back") for point in AFTER_BROKEN),
    *(Case("by hand", point, "", "", "0.9.0", "rolled back") for point in BY_HAND),
    *(Case("after hand", point, "next", "", "0.9.0", "rolled back") for point in AFTER_HAND),
    *(Case("seeding", point, "", "", "2.0.0", "") for point in SEEDING),
    *(Case("launcher", point) for point in LAUNCHER),
]


class Template:
    """A host whose slots hold 0.9.0 and 1.0.0, stopped in order, and a repository; copied for each case."""

    def __init__(self, place: Path, make_variant: Any) -> None:
        self.place = place
        self.files = {
            version: make_variant(version, break_import=version == "3.0.0")
            for version in ("0.9.0", "1.0.0", "2.0.0", "3.0.0", "4.0.0")
        }
        self.shelf = Shelf(place, self.files["1.0.0"])
        for version in ("2.0.0", "3.0.0", "4.0.0"):
            self.shelf.publish(self.files[version])
        self.held = contextlib.ExitStack()
        self.server: Server = self.held.enter_context(serve_directory(self.shelf.directory))
        for file in self.files.values():
            self.keep_unpacked(file)
        node = Node(place, self.files["0.9.0"])
        try:
            node.settings("")
            for version in ("0.9.0", "1.0.0"):
                node.drop(self.files[version])
                node.start()
                node.wait_resting()
                os.kill(node.pid(), signal.SIGTERM)
                node.wait_dead()
        finally:
            node.clean_up()
        self.state = node.root / "var"
        shutil.rmtree(self.state / "lib/appliance/journal")

    def keep_unpacked(self, file: Path) -> None:
        """Who unpacks sweeps away all but three that nobody uses: these five would be unpacked all the time."""
        told = subprocess.run(
            [file], env={**os.environ, "APPLIANCE_LAUNCHER": "unpack"}, capture_output=True, check=True
        )
        fd = os.open(told.stdout.decode().strip(), os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_SH)
        self.held.callback(os.close, fd)

    def node(self, place: Path, case: Case) -> Node:
        place.mkdir()
        node = Node(place, self.files["1.0.0"], tick=0.4)
        subprocess.run(["cp", "-a", self.state, node.root], check=True)
        (node.root / "var/lib/appliance/update").mkdir(exist_ok=True)
        (node.root / "etc/appliance/trust/root.json").write_bytes(self.shelf.trust_root)
        record = node.root / "var/lib/appliance/slots/record"
        sick = case.version == "4.0.0"
        node.settings(
            self.server.url, deadline="1s" if sick else "40s", more=SICK.format(record=record) if sick else ""
        )
        return node


class Life:
    """One case, from the first start to the end of the update."""

    def __init__(self, node: Node, case: Case) -> None:
        self.node, self.case = node, case
        self.layout = Layout(str(node.root))
        self.died = node.root / "var/lib/appliance/update/died"  # the worker is fenced in: it can write there alone
        self.kept: list[bytes] = []
        self.asked = 0
        self.later: dict[str, str] = {}
        if case.story == "after broken":  # 3.0.0 dies before it gets there; guard or init may be the faster
            self.later = {"APPLIANCE_FAILPOINT": case.point, "APPLIANCE_FAILPOINT_ONCE": str(self.died)}

    def run(self) -> None:
        case, node = self.case, self.node
        if case.story == "seeding":
            node.start()
            self.until(lambda it: it["state"] == "idle" and it["slots"])
            ticker = node.ticker()
            self.acknowledge()
            os.kill(node.pid(), signal.SIGKILL)
            node.wait_dead()
        else:
            node.start(self.environment())
            self.until(lambda it: it["state"] == "idle" and it["slots"])
            ticker = node.ticker()
            self.acknowledge()
        self.act()
        self.until(self.is_over)
        self.acknowledge()
        assert self.died.exists(), f"it never came to {case.point}"
        assert node.ticker() == ticker
        for key in self.kept:
            found = call(self.layout, "POST", "/v1/store/range", {"key": base64.b64encode(key).decode()})
            assert found["kvs"], f"the store lost {key!r}"
        ticks = node.ticks()
        assert ticks == list(range(1, len(ticks) + 1))
        slots = Slots(RealSlotCalls(), str(node.root / "var/lib/appliance/slots"))
        assert slots.load() is not None
        assert slots.record is not None
        (running,) = [name for name in ("a", "b") if slots.record.entry(name).version == case.ends]  # type: ignore[arg-type]
        assert slots.record.entry(running).blessed  # type: ignore[arg-type]
        assert slots.holds(running)  # type: ignore[arg-type]
        beside = slots.record.entry(other(running))  # type: ignore[arg-type]
        assert slots.holds(other(running)) or not beside.blessed  # type: ignore[arg-type]

    def environment(self) -> dict[str, str]:
        name = {"": "APPLIANCE_FAILPOINT"}.get(self.case.chain, "APPLIANCE_FAILPOINT_NEXT")
        point = f"- {self.case.point}" if self.case.chain == "later" else self.case.point
        if self.case.story == "launcher":
            point = "update.armed.enter"
        return {name: point, "APPLIANCE_FAILPOINT_ONCE": str(self.died)}

    def act(self) -> None:
        node, case = self.node, self.case
        self.asked += 1
        if case.story == "seeding":
            node.drop(Path(TEMPLATES[0].files["2.0.0"]))
            node.start(self.environment())
            return
        verb, body = ("apply", {"version": case.version}) if case.version else ("rollback", {})
        with contextlib.suppress(ApplianceError):  # it may die before it answers
            call(self.layout, "POST", f"/v1/update/{verb}", body)
        if case.story == "launcher":
            node.wait_dead()
            self.died.unlink()
            name, _, number = case.point.partition(":")
            inject = f"inject={name}:signal=KILL:when={number}"
            wrap = ["strace", "-qq", "-o", str(node.place / "trace"), "-e", f"trace={name}", "-e", inject]
            node.start({"APPLIANCE_FAILPOINT_ONCE": str(self.died)}, wrap=wrap)
            node.started[-1].wait(PATIENCE)
            assert "killed by SIGKILL" in (node.place / "trace").read_text()
            self.died.touch()

    def acknowledge(self) -> None:
        key = f"acknowledged-{len(self.kept)}".encode()
        body = {"key": base64.b64encode(key).decode(), "value": ""}
        call(self.layout, "POST", "/v1/store/put", body)
        self.kept.append(key)

    def is_over(self, picture: Any) -> bool:
        if picture["state"] != "idle" or not picture["slots"] or not self.died.exists():
            return False
        outcomes = [(one["to_version"], one["outcome"]) for one in picture["recent"]]
        if self.case.story == "seeding":
            return bool(picture["version"] == self.case.ends and picture["slot"] != "none")
        if not outcomes:  # cut before anybody could know of it
            self.act()
            assert self.asked < 3
            return False
        wanted = (self.case.version or self.case.ends, self.case.outcome)
        assert outcomes == [wanted], (outcomes, wanted)
        return bool(picture["version"] == self.case.ends)

    def until(self, condition: Callable[[Any], bool]) -> None:
        """As an init: whenever nothing lives, it is started again."""
        deadline, lived, picture = time.monotonic() + 2 * PATIENCE, time.monotonic(), None
        while time.monotonic() < deadline:
            lived = time.monotonic() if self.node.pid() else lived
            if time.monotonic() > lived + INIT_SECONDS and self.ended():
                self.node.start(self.later)
                lived = time.monotonic()
            try:
                picture = call(self.layout, "GET", "/v1/update", timeout=10.0)
            except ApplianceError:
                picture = None
            if picture is not None and condition(picture):
                return
            time.sleep(0.1)
        raise AssertionError(f"no end: {picture}\n{self.node.said()}")

    def ended(self) -> bool:
        """Whether what was started last is over: it may be at its very beginning."""
        return not self.node.started or self.node.started[-1].poll() is not None


TEMPLATES: list[Template] = []


def live(place: Path, case: Case) -> None:
    node = TEMPLATES[0].node(place, case)
    try:
        Life(node, case).run()
        os.kill(node.pid(), signal.SIGTERM)
        node.wait_dead()
    except BaseException as exc:
        raise AssertionError(f"{case}: {exc!r}\n{node.said()}") from exc
    finally:
        node.clean_up()
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def lives(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_variant: Any
) -> Iterator[dict[str, Future[None]]]:
    """All that were asked for, begun; a test takes its own."""
    wanted = [item.callspec.params["case"] for item in request.session.items if item.module is request.module]  # type: ignore[attr-defined]
    place = tmp_path_factory.mktemp("kills")
    TEMPLATES.append(Template(place, make_variant))
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        begun = {str(case): pool.submit(live, place / f"{number}", case) for number, case in enumerate(wanted)}
        yield begun
        for one in begun.values():
            one.cancel()
    TEMPLATES.pop().held.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kill_9(case: Case, lives: dict[str, Future[None]]) -> None:
    lives[str(case)].result()
