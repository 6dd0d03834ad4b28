"""Updates on ext4 and xfs in QEMU, every write of the disks logged; then the disks that a power cut may leave.

Each of them is mounted, as a machine that starts again would; the launcher's own C code picks a slot, the store is
opened, what was acknowledged must be there, another update goes through, and the file system's checker finds nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from appliance.host.disk import FileDisk
from appliance.host.slots import RealSlotCalls
from appliance.store import Store
from appliance.update.record import SLOTS, other
from appliance.update.rollout import decode
from appliance.update.slots import Slots
from tests.boot.guest_power import program
from tests.boot.test_fences import files_of_python
from tests.boot.vm import VM
from tests.boot.write_log import State, read_log, states
from tests.sim.c_launcher import CRecord

HOUSE = Path(__file__).parents[2]
sys.path.insert(0, str(HOUSE / "packaging/image"))

pytestmark = [pytest.mark.qemu, pytest.mark.slow]

SIZE = 64 << 20
MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "--unsupported", "-l", "size=8m"],
}
CHECK = {"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"]}
SUBSETS, MOST = 2, 120
PATIENCE = 60.0
CHECKED_EACH, UPDATED_EACH = 6, 6  # of so many states one is checked whole, and updated again
INIT = """#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod $module; done
export PATH=/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
{python} -B /guest.py {words} > /dev/ttyS0 2>&1
/bin/busybox sync
/bin/busybox poweroff -f
"""
_LIST = """
import sys
sys.path.insert(0, "tests/boot")
import encodings.ascii, encodings.latin_1, encodings.idna, multiprocessing.resource_tracker
import concurrent.futures.thread, trio._core._run, guest_power
print(*{one.__file__ for one in list(sys.modules.values()) if getattr(one, "__file__", None)}, sep="\\n")
"""


def initrd(words: str) -> bytes:
    from cpio import Cpio  # type: ignore[import-not-found]
    from kernel import fetch_kernel, load_order  # type: ignore[import-not-found]

    archive, real = Cpio(), Path(sys.executable).resolve()
    for name in ("proc", "sys", "dev", "tmp", "run", "etc", "d"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    for number, (name, module) in enumerate(load_order(fetch_kernel(HOUSE / ".build/kernel"), ["virtio_blk", "xfs"])):
        archive.file(f"modules/{number:02}-{name}.ko", module)
    for path in files_of_python(sys.executable, _LIST):
        archive.file(str(path), path.read_bytes(), 0o755)
        cached = path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc"
        if path.suffix == ".py" and cached.exists():
            archive.file(str(cached), cached.read_bytes())
    archive.file(str(real), real.read_bytes(), 0o755)
    for name in ("bin/busybox", "bin/sh"):
        archive.file(name, Path("/bin/busybox").read_bytes(), 0o755)
    paths = ":".join(dict.fromkeys([str(HOUSE), *(one for one in sys.path if "site-packages" in one)]))
    archive.file("guest.py", (Path(__file__).parent / "guest_power.py").read_bytes())
    archive.file("init", INIT.format(python=f"PYTHONPATH={paths} {real}", words=words).encode(), 0o755)
    return bytes(archive.finish())


class Recorded:
    """The disks as they were at the beginning, and their logs."""

    def __init__(self, work: Path) -> None:
        from kernel import fetch_kernel

        self.work = work
        extra, words = [], []
        for number, (kind, command) in enumerate(MAKE.items()):
            image, log = work / f"{kind}.img", work / f"{kind}.log"
            with image.open("wb") as file:
                file.truncate(SIZE)
            subprocess.run([*command, image], check=True, capture_output=True)
            with image.open("r+b") as file:
                file.truncate(SIZE + 4096)
            subprocess.run(["fallocate", "-d", image], check=True)
            shutil.copyfile(image, work / f"{kind}.before")
            subprocess.run(["fallocate", "-d", work / f"{kind}.before"], check=True)
            with log.open("wb") as file:
                file.truncate(256 << 20)
            extra += ["-blockdev", f"driver=file,node-name=f{number},filename={image}"]
            extra += ["-blockdev", f"driver=file,node-name=l{number},filename={log}"]
            name = f"driver=blklogwrites,node-name=d{number},file=f{number},log=l{number},log-sector-size=512"
            extra += ["-blockdev", name, "-device", f"virtio-blk-pci,drive=d{number},write-cache=on"]
            words.append(f"/dev/vd{'ab'[number]},{kind},{SIZE}")
        (work / "initrd").write_bytes(initrd(" ".join(words)))
        machine = VM(None, work, memory=512, extra=extra)
        try:
            image = fetch_kernel(HOUSE / ".build/kernel").image
            machine.start(kernel=image, initrd=work / "initrd", append="console=ttyS0 panic=-1 quiet")
            for kind in MAKE:
                machine.wait(f"DONE {kind}", 240)
            machine.wait_off()
        finally:
            if machine.is_on:
                machine.cut_power()
            machine.log.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("no qemu-system-x86_64")
    return Recorded(tmp_path_factory.mktemp("power"))


@contextmanager
def mounted(image: Path, place: Path, kind: str) -> Iterator[Path]:
    """As it would be at the next start: the journal is replayed."""
    options = "loop,nouuid" if kind == "xfs" else "loop"
    command: list[str | Path] = ["mount", "-t", kind, "-o", options, image, place]
    told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert told.returncode == 0, f"it cannot be mounted: {told.stderr}"
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, timeout=PATIENCE)


def can_mount(work: Path, kind: str) -> str:
    """Empty, or why not."""
    place = work / "try"
    place.mkdir(exist_ok=True)
    shutil.copyfile(work / f"{kind}.before", work / "try.img")
    try:
        with mounted(work / "try.img", place, kind):
            return ""
    except AssertionError as exc:
        return str(exc)


class Disks:
    """Makes one after the other: what is there for good is written once."""

    def __init__(self, work: Path, kind: str) -> None:
        self.kind = kind
        self.entries = read_log(work / f"{kind}.log")
        self._durable, self._image, self._done = work / f"{kind}.durable", work / f"{kind}.state", 0
        self._made = 0
        shutil.copyfile(work / f"{kind}.before", self._durable)
        subprocess.run(["fallocate", "-d", self._durable], check=True)

    def make(self, state: State) -> Path:
        with self._durable.open("r+b") as file:
            for entry in self.entries[self._done : state.durable]:
                file.seek(entry.at)
                file.write(entry.data)
        self._done = state.durable
        self._image.unlink(missing_ok=True)
        self._made += 1  # a new file: mount(8) would take a loop device that still has the last one, and what it read
        self._image = self._image.with_suffix(f".state-{self._made}")
        subprocess.run(["cp", "--sparse=auto", self._durable, self._image], check=True)
        with self._image.open("r+b") as file:
            for at, data in state.more:
                file.seek(at)
                file.write(data)
        return self._image


@pytest.mark.parametrize("kind", MAKE)
def test_what_a_power_cut_may_leave(
    kind: str, recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if why := can_mount(recorded.work, kind):
        pytest.skip(f"this host cannot mount {kind} from a file: {why}")
    disks, counts = Disks(recorded.work, kind), Counter[str]()
    place = tmp_path / "mounted"
    place.mkdir()
    flushes = sum(entry.flush for entry in disks.entries)
    for number, state in enumerate(states(disks.entries, SIZE, seed=1, subsets=SUBSETS, most=MOST)):
        image = disks.make(state)
        try:
            with mounted(image, place, kind):
                counts[look(place, json.loads(state.said))] += 1
                if number % UPDATED_EACH == 0:
                    update_again(place)
            if number % CHECKED_EACH == 0:
                subprocess.run([*CHECK[kind], image], check=True, capture_output=True, timeout=PATIENCE)
        except (AssertionError, OSError, ExceptionGroup, subprocess.SubprocessError) as exc:
            raise AssertionError(f"{kind}, {state.name}: {exc}") from exc
        counts["disks"] += 1
    with capsys.disabled():
        print(f"\n{kind}: {len(disks.entries)} requests, {flushes} flushes, {dict(counts)}, 0 bad")
    assert counts["disks"] > 200
    assert {"starts 1.0", "starts 2.0", "starts 3.0", "starts 4.0"} <= counts.keys()


def look(place: Path, said: dict[str, object]) -> str:
    """Which version is started."""
    record = CRecord((place / "slots/record").read_bytes())
    assert record.newest >= 0, "neither copy of the record is whole"
    assert record.sequence >= int(str(said["sequence"])), "a record that was acknowledged is lost"
    slots = Slots(RealSlotCalls(), str(place / "slots"))
    known = slots.load()
    assert known is not None
    exists = {name: os.access(slots.file(name), os.X_OK) for name in SLOTS}
    picked = record.pick(exists, may_try=True)
    assert picked is not None, "neither old nor new"
    version = known.entry(picked).version
    data = Path(slots.file(picked)).read_bytes()
    assert data == program(version), f"slot {picked} is not {version}"
    back = other(picked)
    assert not known.entry(back).blessed or slots.holds(back), "the way back is damaged"
    if revision := said.get("revision"):
        trio.run(open_store, place, int(str(revision)))
    return f"starts {version}"


async def open_store(place: Path, revision: int) -> None:
    store, stopping = Store(FileDisk(str(place / "store"))), trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: store.run(stopping=stopping, task_status=task_status))
        found = store.range(b"update/rollout")
        assert found.revision >= revision, f"the store lost {revision - found.revision} acknowledged revisions"
        decode(found.kvs[0].value)
        stopping.set()


def update_again(place: Path) -> None:
    """Whatever is left over, the next one goes through."""
    slots = Slots(RealSlotCalls(), str(place / "slots"))
    record = slots.load()
    assert record is not None
    name = other(max(SLOTS, key=lambda one: (record.entry(one).blessed, record.entry(one).priority)))
    source, data = place / "again", program("5.0")
    source.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    slot = slots.slot(name)
    slot.clear()
    slot.write(str(source))
    slot.verify(sha256=sha256, length=len(data))
    slot.arm(version="5.0", sha256=sha256, tries=2, deadline=60)
    slot.bless()
    assert slots.record is not None
    assert slots.record == replace(slots.record, sequence=slots.record.sequence)
    assert slots.holds(name)
    assert CRecord((place / "slots/record").read_bytes()).pick({"a": True, "b": True}, may_try=False) == name
