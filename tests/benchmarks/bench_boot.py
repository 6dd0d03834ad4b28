"""Power-on to /readyz of our own OS in QEMU, by phase, and how large it is.

Wall seconds depend on what else the host does; CPU seconds of QEMU (which emulates: no KVM) hardly do. The appliance's
share is what passes from /usr/bin/appliance being started to the line that says that it is ready.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from bisect import bisect_left
from itertools import pairwise
from pathlib import Path
from statistics import median

from tests.benchmarks.row import Row
from tests.boot.fleet import power_on
from tests.boot.guest import build_image, make_disk, unit

_STEPS = ("firmware", "loader, stub, kernel unpacked", "kernel", "initramfs", "appliance to /readyz")
_FACTS = """\
exec > /dev/console 2>&1
B=/var/lib/test/busybox
say() { echo "FACT $*"; }
$B sleep 20
say memory $($B grep -E '^Mem(Total|Available)' /proc/meminfo)
say own $($B grep VmRSS /proc/1/status)
"""


class _Meter:
    """QEMU's CPU seconds over time."""

    def __init__(self, cpu_seconds: object) -> None:
        self._read, self._ended = cpu_seconds, threading.Event()
        self.times: list[float] = []
        self.used: list[float] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.times.append(time.monotonic())
            self.used.append(self._read())  # type: ignore[operator]

    def at(self, when: float) -> float:
        """As measured nearest after ``when``."""
        return self.used[min(bisect_left(self.times, when), len(self.used) - 1)]

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def _boot(disk: Path, work: Path) -> tuple[list[float], list[float], dict[str, float]]:
    """Wall and CPU seconds by phase; facts of the guest."""
    begun = time.monotonic()
    vm = power_on(disk, work)
    meter = _Meter(vm.cpu_seconds)

    try:
        marked = ("BdsDxe: starting", "machine made ready, seconds since", " ready; status page")
        lines = vm.wait_all(*marked, timeout=300)
        loader, made_ready, ready = (vm.times[vm.lines.index(one)] for one in lines)
        seconds = {name: float(value) for name, value in re.findall(r"(\w+) ([\d.]+)(?:,|$)", lines[1])}
        said = vm.wait_all("FACT memory", "FACT own", timeout=120)
        memory, own = ([int(number) for number in re.findall(r"\d+", one)] for one in said)
    finally:
        meter.end()
        vm.put_away()
    kernel = made_ready - seconds["identity"]
    marks = [begun, loader, kernel, kernel + seconds["kernel"], kernel + seconds["verity"], ready]
    used = [0.0, *map(meter.at, marks[1:])]
    facts = {"rss": own[0] / 1e3, "taken": (vm.memory * 1024 - memory[1]) / 1e3}
    return _steps(marks), _steps(used), facts


def _steps(marks: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(marks)]


def run(binary: str) -> list[Row]:
    count = 3 if "APPLIANCE_BENCH_LONG" in os.environ else 1
    with tempfile.TemporaryDirectory(prefix="bench-boot-") as place:
        work = Path(place)
        begun = time.monotonic()
        image = build_image(work)
        built = time.monotonic() - begun
        plain = make_disk(image, work / "plain.img", {"/etc/appliance/units/facts.toml": unit(_FACTS)})
        boots = [_boot(plain, work) for _ in range(count)]
        root, size = image.parts.root.file.stat().st_size, image.disk.stat().st_blocks * 512
    rows = []
    for number, name in enumerate(_STEPS):
        for what, place_of in (("wall", 0), ("CPU", 1)):
            figure = median(one[place_of][number] for one in boots)  # type: ignore[index]
            aim = "< 3 s" if (what, name) == ("CPU", _STEPS[-1]) else ""
            rows.append(Row(name=f"power-on: {name}, {what}", ours=figure, unit="s", aim=aim))
    total = median(sum(one[0]) for one in boots), median(sum(one[1]) for one in boots)
    facts = {name: median(one[2][name] for one in boots) for name in boots[0][2]}
    rows += [
        Row(name="power-on to /readyz, wall", ours=total[0], unit="s"),
        Row(name="power-on to /readyz, CPU", ours=total[1], unit="s"),
        Row(name="memory taken in the guest, idle, kernel and all", ours=facts["taken"], unit="MB", aim="< 150 MB"),
        Row(name="first process, resident", ours=facts["rss"], unit="MB"),
        Row(name="image on disk", ours=size / 1e6, unit="MB", aim="< 120 MB"),
        Row(name="root with its tree", ours=root / 1e6, unit="MB", aim="< 70 MB"),
        Row(name="image built in", ours=built, unit="s", aim="< 30 s"),
    ]
    return rows
