"""Bundles: a user's tree, switched beside us. Real trees, slots, repository and worker; units are scripted."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.errors import InputError, UntrustedError
from appliance.host import clock, trees
from appliance.host.bundle import Bundle
from appliance.host.layout import Layout
from appliance.host.slots import RealSlotCalls
from appliance.release import KeyRing, publish, stage_file
from appliance.update import Product, Task, Update, work
from appliance.update.bundle_slots import BundleSlots
from appliance.update.bundles import Bundles
from appliance.update.settings import BundleSettings, HealthSettings, UpdateSettings
from tests.update.conftest import Publisher

SHOP = Product("shop", "bundle")
US = Bundle(
    origin="/o", file="/o", payload_id="c" * 64, slot="a", trial=False, guard_pid=None, guard_fd=-1, directory="/d",
    spawn_program="/s", note="", version="1.0.0", frozen=True,
)  # fmt: skip


def make_tree(place: Path, version: str) -> Path:
    tree = place / f"shop-{version}"
    (tree / "bin").mkdir(parents=True)
    (tree / "static" / "deep").mkdir(parents=True)
    (tree / "bin/shop").write_text(f"#!/bin/sh\necho {version}\n")
    (tree / "bin/shop").chmod(0o755)
    (tree / "VERSION").write_text(version)
    (tree / "static/deep/data").write_bytes(random.Random(7).randbytes(3 << 20))
    (tree / "static/empty").mkdir()
    (tree / "static/link").symlink_to("../VERSION")
    (tree / ("long-" * 30)).write_text("a name past a hundred bytes")
    return tree


def publish_tree(publisher: Publisher, place: Path, version: str, **options: Any) -> None:
    archive = place / f"{version}.archive"
    trees.write_tree(str(make_tree(place, version)), str(archive))
    stage_file(
        str(publisher.directory), str(archive), channel="stable", architecture="any", version=version, product=SHOP,
        **options,
    )  # fmt: skip
    publish(str(publisher.directory), KeyRing(str(publisher.keys)))


class MemoryKeeper:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.values.get(key)

    async def put(self, key: str, value: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.values[key] = value


@dataclass
class ScriptedUnits:
    """The unit is well as long as ``current`` is not a sick version."""

    current: Path
    sick: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def version(self) -> str:
        return (self.current / "VERSION").read_text() if self.current.exists() else ""

    async def restart(self, name: str, *, wait: bool = True) -> None:
        self.asked.append(("restart", self.version()))

    async def stop(self, name: str, *, wait: bool = True) -> None:
        self.asked.append(("stop", self.version()))

    def health(self) -> Mapping[str, bool]:
        return {"shop": self.version() not in {*self.sick, ""}}


class Host:
    """One host with one bundle; ``life`` is one life of the daemon."""

    def __init__(self, layout: Layout, publisher: Publisher) -> None:
        self.layout = layout
        self.keeper = MemoryKeeper()
        self.place = Path(SHOP.slots(layout))
        self.units = ScriptedUnits(self.place / "current")
        self.settings = BundleSettings(
            name="shop", repository=str(publisher.directory), strategy="manual", units=("shop",),
            health=HealthSettings(settle=0.0, deadline=1.0, tries=2),
        )  # fmt: skip
        self.said = trio.Event()

    async def ask_worker(self, settings: UpdateSettings, verb: str, path: str) -> dict[str, Any]:
        task = Task(
            layout=self.layout, verb=verb, channel=settings.channel, path="" if verb == "refresh" else path,
            repository=settings.repository, product=SHOP,
        )  # fmt: skip
        answer = await trio.to_thread.run_sync(work, task)
        if answer["event"] == "error":
            raise UntrustedError(answer["message"])
        return answer

    def publish(self, *_: object, **__: object) -> None:
        self.said.set()
        self.said = trio.Event()

    async def life(self, *verbs: str) -> Update:
        bundles = Bundles(
            layout=self.layout, settings=lambda: (self.settings,), bundle=US, processes=None,  # type: ignore[arg-type]
            keeper=self.keeper, units=self.units, publish=self.publish,
            ask_worker=self.ask_worker,
        )  # fmt: skip
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: bundles.run(stopping=stopping, task_status=task_status))
            update = bundles.of("shop")
            with trio.fail_after(60):
                await update.wait_resting()
                for verb in verbs:
                    picture = await getattr(update, verb)()
                    while not any(entry.id == picture.request for entry in update.history()):
                        await self.said.wait()
                    await update.wait_resting()
            stopping.set()
        return update

    def slots(self) -> BundleSlots:
        return BundleSlots(RealSlotCalls(), str(self.place))


@pytest.fixture
def host(layout: Layout, publisher: Publisher) -> Host:
    return Host(layout, publisher)


async def test_first_second_sick_third_and_back_by_hand(host: Host, publisher: Publisher, tmp_path: Path) -> None:
    publish_tree(publisher, tmp_path, "1.0.0")
    update = await host.life("apply")
    assert (host.place / "current").readlink() == Path("a")
    assert host.units.asked == [("restart", "1.0.0")]
    assert [(one.from_version, one.to_version, one.outcome) for one in update.history()] == [("", "1.0.0", "blessed")]
    assert (host.place / "a/bin/shop").stat().st_mode & 0o777 == 0o755
    assert (host.place / "a/static/link").readlink() == Path("../VERSION")

    publish_tree(publisher, tmp_path, "2.0.0")
    update = await host.life("apply")
    assert host.units.version() == "2.0.0"
    assert update.picture().version == "2.0.0"
    assert update.history()[0].size > update.history()[0].fetched > 0

    # Sick: back by itself, denied, not tried again.
    publish_tree(publisher, tmp_path, "3.0.0")
    host.units.sick = {"3.0.0"}
    update = await host.life("apply", "apply")
    assert host.units.version() == "2.0.0"
    assert [one.outcome for one in update.history()[:2]] == ["nothing new", "rolled back"]
    assert "unit shop" in update.history()[1].reason
    assert update.picture().denied == ("3.0.0",)
    assert host.units.asked[-2:] == [("restart", "3.0.0"), ("restart", "2.0.0")]

    # The slot of 1.0.0 was taken for 3.0.0: nothing to go back to, and that is said.
    with pytest.raises(BaseExceptionGroup) as refused:
        await host.life("rollback")
    assert refused.value.subgroup(lambda one: "no blessed version" in str(one))
    publish_tree(publisher, tmp_path, "4.0.0")
    update = await host.life("apply", "rollback")
    assert host.units.version() == "2.0.0"
    assert (update.history()[0].to_version, update.history()[0].outcome) == ("2.0.0", "rolled back")
    assert set(update.picture().denied) == {"3.0.0", "4.0.0"}


async def test_a_sick_first_version_leaves_nothing_that_runs(host: Host, publisher: Publisher, tmp_path: Path) -> None:
    publish_tree(publisher, tmp_path, "1.0.0")
    host.units.sick = {"1.0.0"}
    update = await host.life("apply")
    assert update.history()[0].outcome == "rolled back"
    assert not (host.place / "current").is_symlink()
    assert host.units.asked == [("restart", "1.0.0"), ("stop", "")]


async def test_what_is_damaged_on_the_disk_is_not_switched_to(
    host: Host, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_tree(publisher, tmp_path, "1.0.0")
    await host.life("apply")
    publish_tree(publisher, tmp_path, "2.0.0")
    unpack = trees.unpack_tree

    def rotten(file: str, directory: str) -> None:
        unpack(file, directory)
        (Path(directory) / "VERSION").write_text("2.0.1")

    monkeypatch.setattr(trees, "unpack_tree", rotten)
    update = await host.life("apply")
    assert (update.history()[0].outcome, host.units.version()) == ("refused", "1.0.0")
    assert "read back" in update.history()[0].reason
    assert not list(host.place.glob("*.tmp"))
    monkeypatch.undo()
    await host.life("apply")
    assert host.units.version() == "2.0.0"
    # Back onto a tree that was changed since: refused.
    (host.place / "a/VERSION").write_text("1.0.1")
    update = await host.life("rollback")
    assert (update.history()[0].outcome, host.units.version()) == ("failed", "2.0.0")


def test_a_tree_is_always_the_same_file_and_comes_back_the_same(tmp_path: Path) -> None:
    one, two = make_tree(tmp_path / "x", "1"), make_tree(tmp_path / "y", "1")
    assert trees.measure_tree(str(one)) == trees.measure_tree(str(two))
    trees.write_tree(str(one), str(tmp_path / "file"))
    assert hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest() == trees.measure_tree(str(one))[0]
    trees.unpack_tree(str(tmp_path / "file"), str(tmp_path / "z"))
    assert trees.measure_tree(str(tmp_path / "z")) == trees.measure_tree(str(one))
    (two / "VERSION").chmod(0o600)
    assert trees.measure_tree(str(two)) != trees.measure_tree(str(one))
    os.mkfifo(one / "fifo")
    with pytest.raises(InputError, match="neither file"):
        trees.measure_tree(str(one))


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../out", "no/parent", "link/inside", ".."])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    import io
    import tarfile

    with tarfile.open(tmp_path / "bad", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "elsewhere")
        archive.addfile(link)
        bad = tarfile.TarInfo(name)
        bad.size = 4
        archive.addfile(bad, io.BytesIO(b"evil"))
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UntrustedError):
        trees.unpack_tree(str(tmp_path / "bad"), str(tmp_path / "into"))
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not (tmp_path / "out").exists()


async def test_two_products_in_one_channel_do_not_meet(host: Host, publisher: Publisher, tmp_path: Path) -> None:
    publish_tree(publisher, tmp_path, "2.0.0")
    publisher.release("9.0.0", channel="stable")
    publish_tree(publisher, tmp_path, "3.0.0")  # older than 9.0.0, which is another product
    update = await host.life("apply")
    assert update.picture().version == "3.0.0"
    from appliance.release import change, pause, yank

    keys = KeyRing(str(publisher.keys))
    change(str(publisher.directory), keys, yank("stable", "3.0.0", "it leaks", "shop"))
    change(str(publisher.directory), keys, pause("stable", "", "ours only"))
    publish_tree(publisher, tmp_path, "3.1.0")
    update = await host.life("apply")
    assert update.picture().version == "3.1.0"


def test_names_that_would_be_ours(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    for product in (Product("appliance", "bundle"), Product("shop", "binary"), Product("Up/../x", "bundle")):
        with pytest.raises(InputError, match="name"):
            stage_file(
                str(publisher.directory), str(tmp_path / "f"), channel="alpha", architecture="any", version="1.0.0",
                product=product,
            )  # fmt: skip


def test_add_by_command_takes_a_directory_only(publisher: Publisher, tmp_path: Path) -> None:
    from appliance.cli.release_verbs import do

    tree = make_tree(tmp_path, "1.0.0")
    args = argparse.Namespace(
        verb="add", directory=str(publisher.directory), file=str(tree), channel="stable", architecture="any",
        release_version="1.0.0", floor="", notes="", barrier=False, packed=False, wave=[], over=None, kind="bundle",
        product="shop", dry_run=False,
    )  # fmt: skip
    (staged,) = do(args)["staged"]
    assert (staged["sha256"], staged["length"]) == trees.measure_tree(str(tree))
    assert not list(publisher.directory.glob(".bundle*"))
    with pytest.raises(InputError, match="directory"):
        do(argparse.Namespace(**{**vars(args), "file": str(tree / "VERSION")}))


async def test_every_instant_of_a_bundles_update_may_be_the_last(
    host: Host, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each failpoint of the product, once: the next life goes on, and ends with the new version."""
    from appliance.update import bundle_slots, standing

    class Killed(BaseException):
        pass

    publish_tree(publisher, tmp_path, "1.0.0")
    await host.life("apply")
    reached: list[str] = []

    def note(name: str) -> None:
        if name.startswith("bundle."):
            reached.append(name)

    for module in (bundle_slots, standing):
        monkeypatch.setattr(module, "reach", note)
    publish_tree(publisher, tmp_path, "2.0.0")
    await host.life("apply")
    places = list(dict.fromkeys(reached))
    assert len(places) > 15
    for number, place in enumerate(places):
        version = f"3.{number}.0"
        publish_tree(publisher, tmp_path, version)
        armed = [place]

        def kill(name: str, armed: list[str] = armed) -> None:
            if armed and name == armed[0]:
                armed.clear()
                raise Killed(name)

        for module in (bundle_slots, standing):
            monkeypatch.setattr(module, "reach", kill)
        with contextlib.suppress(BaseExceptionGroup):
            await host.life("apply")
        assert not armed, place
        assert host.units.version() in (version, *(f"3.{number - 1}.0", "2.0.0")), place
        update = await host.life()
        if update.picture().version != version:  # killed before anything of the request was kept
            update = await host.life("apply")
        assert (host.units.version(), update.picture().version) == (version, version), place
        assert update.history()[0].outcome == "blessed", place
        record = host.slots().load()
        assert not record.denied
        assert not any(entry.on_trial for entry in (record.a, record.b)), place


@pytest.mark.parametrize(("cause", "outcome"), [("we died", "rolled back"), ("the machine went down", "blessed")])
async def test_trials_that_nobody_lived_through(
    host: Host, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str, outcome: str
) -> None:
    """As many as it has: our death may be the bundle's doing, a power cut is not."""
    from appliance.update import standing

    publish_tree(publisher, tmp_path, "1.0.0")
    await host.life("apply")
    publish_tree(publisher, tmp_path, "2.0.0")

    def kill(name: str) -> None:
        if name == "bundle.trial.enter":
            raise KeyboardInterrupt

    for number in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(standing, "reach", kill)
            patch.setattr(clock, "boot_id", lambda number=number: f"boot {number if 'machine' in cause else 0}")
            with pytest.raises(BaseExceptionGroup):
                await host.life(*(() if number else ("apply",)))
    monkeypatch.setattr(clock, "boot_id", lambda: "boot 2" if "machine" in cause else "boot 0")
    update = await host.life()
    assert update.history()[0].outcome == outcome
    assert host.units.version() == ("2.0.0" if outcome == "blessed" else "1.0.0")
