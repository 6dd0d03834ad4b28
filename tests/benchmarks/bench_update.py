"""Updates: what a small release costs to fetch, how fast a large payload is put in place, what a check costs.

Bytes are all that comes over the network: metadata, index, chunks. casync (Debian) and bsdiff4 (PyPI, in an environment
of its own) get the same two binaries. The payload of 500 MB is random: nothing of it can be compressed.

Two file systems, because it decides what "95 % are in the slot that runs" can come to: where blocks cannot be shared
between files (ext4), all 500 MB are written, synced and read back, whoever does it; "cp, sync, read back" is that and
nothing else. On xfs (made in a file, mounted by a loop device; only as root) what did not change is not written.

From loopback the other 95 % cost next to nothing either, so there both come down to what is done to every byte whatever
is here: hashed as it is taken, hashed as it is read back. The row with 1 Gbit/s is the same by a line of that speed.
"""

from __future__ import annotations

import os
import py_compile
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from appliance.host.slots import RealSlotCalls, architecture
from appliance.release import KeyRing, create, publish, stage_file
from appliance.update.slots import Slots
from tests.benchmarks import bench_check
from tests.benchmarks.row import Row
from tests.update.test_schedule import BUCKET, HOSTS, INTERVAL, simulate

HOUSE = Path(__file__).parents[2]
SIZE = int(os.environ.get("BENCH_UPDATE_MB", "500")) << 20
GIGABIT = 117e6  # what a line of 1 Gbit/s carries of a file
MODULE = "_internal/appliance/update/schedule.pyc"


class Files:
    """A static file server with ranges that counts what it sends; the kernel copies, as nginx lets it."""

    def __init__(self, directory: Path) -> None:
        files, self.sent = self, 0
        self.rate = 0.0  # bytes a second of all its answers; 0: as fast as it goes

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                file = directory / self.path.lstrip("/")
                if not file.is_file():
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                start, end = 0, file.stat().st_size
                if wanted := self.headers.get("Range"):
                    first, _, last = wanted.removeprefix("bytes=").partition("-")
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{last or end - 1}/{end}")
                    start, end = int(first), int(last) + 1 if last else end
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(end - start))
                self.end_headers()
                self.wfile.flush()
                files.sent += end - start
                with file.open("rb") as source:
                    begun, first_byte = time.perf_counter(), start
                    while start < end:
                        size = min(end - start, 1 << 20) if files.rate else end - start
                        start += os.sendfile(self.connection.fileno(), source.fileno(), start, size)
                        if files.rate:
                            time.sleep(max(0.0, (start - first_byte) / files.rate - (time.perf_counter() - begun)))
                return None

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class Site:
    """A publisher, its server, and one host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._repository, self._keys = str(directory / "repository"), str(directory / "keys")
        ring = KeyRing(self._keys)
        publish(self._repository, ring, fresh=create(self._repository, ring, root_keys=1, threshold=1))
        self.server = Files(directory / "repository")
        self.root = directory / "host"
        trust = self.root / "etc/appliance/trust/root.json"
        trust.parent.mkdir(parents=True)
        shutil.copy(directory / "repository/metadata/1.root.json", trust)
        self.slot = self.root / "var/lib/appliance/slots/a/appliance"
        self.slot.parent.mkdir(parents=True)
        self.downloads = self.root / "var/lib/appliance/update/download"

    def release(self, file: Path, version: str) -> None:
        stage_file(self._repository, str(file), channel="alpha", architecture=architecture(), version=version)
        publish(self._repository, KeyRing(self._keys))

    def fetch(self, version: str) -> tuple[int, float, int]:
        """The worker, as the daemon starts it: bytes sent by the server, seconds, peak memory in KiB."""
        self.server.sent = 0
        os.sync()
        started = time.perf_counter()
        argv = [sys.executable, "-m", "appliance", "--root", str(self.root), "update-worker", "download"]
        argv += ["--channel", "alpha", "--path", f"alpha/{version}/{architecture()}/appliance"]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HOUSE)
        assert child.stdin is not None
        child.stdin.write(self.server.url.encode())
        child.stdin.close()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.stdout is not None
        said = child.stdout.read().decode()
        child.stdout.close()
        assert child.returncode == 0, said
        return self.server.sent, seconds, usage.ru_maxrss

    def install(self, sha256: str, length: int) -> float:
        """The other slot, as the daemon fills it: linked, synced, read back from the disk."""
        slots = Slots(RealSlotCalls(), str(self.root / "var/lib/appliance/slots"), downloads=str(self.downloads))
        slot = slots.slot("b")
        started = time.perf_counter()
        slot.clear()
        slot.write(str(self.downloads / sha256))
        slot.verify(sha256=sha256, length=length)
        return time.perf_counter() - started


@contextmanager
def a_site(place: str = "/var/tmp") -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="bench-update-", dir=os.environ.get("BENCH_DIRECTORY", place)))
    site = Site(directory)
    try:
        yield site
    finally:
        site.server.close()
        shutil.rmtree(directory)


def run(binary: str) -> list[Row]:
    return [*small_release(), *large_payload("/var/tmp"), *on_xfs(), *bench_check.run(binary), *herd()]


def on_xfs() -> list[Row]:
    """The large payload where blocks can be shared; nothing where that cannot be had."""
    with tempfile.TemporaryDirectory(prefix="bench-xfs-", dir="/var/tmp") as scratch:
        image, place = Path(scratch, "image"), Path(scratch, "xfs")
        with image.open("wb") as file:
            file.truncate(SIZE * 5 + (400 << 20))
        place.mkdir()
        make, mount = ["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], ["mount", "-o", "loop", str(image), str(place)]
        for command in (make, mount):
            if shutil.which(command[0]) is None or subprocess.run(command, capture_output=True).returncode:
                print(f"# no xfs: {command[0]} does not work here", file=sys.stderr)
                return []
        try:
            return large_payload(str(place))
        finally:
            subprocess.run(["umount", place], check=True)


def herd() -> list[Row]:
    """Ten thousand hosts that start in one moment: the busiest ten seconds against the mean."""
    mean = HOSTS / INTERVAL * BUCKET
    rows = []
    for name, down in (("start at once", (0.0, 0.0)), ("meet an outage of 5 min", (3 * INTERVAL, 3 * INTERVAL + 300))):
        busiest = max(simulate(seconds=6 * INTERVAL, down=down).values())
        rows.append(Row(name=f"{HOSTS:,} hosts {name}, busiest 10 s", ours=busiest, unit="requests", peer="the mean",
                        theirs=mean, aim="<= 4 x"))  # fmt: skip
    return rows


def two_binaries(directory: Path) -> tuple[Path, Path]:
    """One release, and the next, in which one module is another."""
    source = (HOUSE / "appliance/update/schedule.py").read_text() + "\n\ndef added() -> int:\n    return 42\n"
    (directory / "schedule.py").write_text(source)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(directory / "schedule.py"), str(directory / "new.pyc"), "schedule.py", True, 2,
                       invalidation_mode=mode)  # fmt: skip
    old, new = directory / "old", directory / "new"
    pack = [sys.executable, str(HOUSE / "packaging/pack.py"), str(HOUSE / ".build/staged")]
    subprocess.run([*pack, str(old), "--version", "1.0.0"], check=True)
    subprocess.run(
        [*pack, str(new), "--version", "1.0.1", "--replace", f"{MODULE}={directory / 'new.pyc'}"], check=True
    )
    return old, new


def small_release() -> list[Row]:
    with a_site() as site:
        old, new = two_binaries(site.directory)
        shutil.copy(old, site.slot)
        site.release(old, "1.0.0")
        subprocess.run([sys.executable, "-m", "appliance", "--root", str(site.root), "update-worker", "refresh",
                        "--channel", "alpha"], input=site.server.url.encode(), check=True, capture_output=True,
                       cwd=HOUSE)  # fmt: skip
        site.release(new, "1.0.1")
        ours, _, _ = site.fetch("1.0.1")
        size = new.stat().st_size
        rows = [Row(name="one-module release, bytes fetched", ours=ours, unit="B", peer="the whole binary", theirs=size,
                    aim="<= 0.05 x")]  # fmt: skip
        for peer, measure in (("casync (Debian)", casync), ("bsdiff4 patch (PyPI)", bsdiff4)):
            found = measure(old, new, site.directory / "peer")
            if found is not None:
                aim = "<= 1 x" if peer.startswith("casync") else ""
                rows.append(Row(name="one-module release, bytes fetched", ours=ours, unit="B", peer=peer, theirs=found,
                                aim=aim))  # fmt: skip
        return rows


def casync(old: Path, new: Path, scratch: Path) -> int | None:
    """The index, and the chunks that are not in the old one's store."""
    if shutil.which("casync") is None:
        return None
    scratch.mkdir(exist_ok=True)
    stores = []
    for file in (old, new):
        store = scratch / f"{file.name}.castr"
        argv = ["casync", "make", f"--store={store}", str(scratch / f"{file.name}.caibx"), str(file)]
        subprocess.run(argv, check=True, capture_output=True)
        stores.append({chunk.name: chunk.stat().st_size for chunk in store.rglob("*.cacnk")})
    fetched = sum(size for name, size in stores[1].items() if name not in stores[0])
    return fetched + (scratch / f"{new.name}.caibx").stat().st_size


def bsdiff4(old: Path, new: Path, scratch: Path) -> int | None:
    """Its patch between these two, which a publisher would have to make for every pair."""
    scratch.mkdir(exist_ok=True)
    environment = scratch / "venv"
    made = subprocess.run([sys.executable, "-m", "venv", str(environment)], capture_output=True)
    pip = subprocess.run([str(environment / "bin/pip"), "install", "-q", "bsdiff4"], capture_output=True)
    if made.returncode or pip.returncode:
        return None
    patch = scratch / "patch"
    script = "import sys, bsdiff4; bsdiff4.file_diff(*sys.argv[1:])"
    subprocess.run([str(environment / "bin/python"), "-c", script, str(old), str(new), str(patch)], check=True)
    return patch.stat().st_size


def large_payload(place: str) -> list[Row]:
    with a_site(place) as site:
        file = site.directory / "payload"
        with file.open("wb") as out:
            for _ in range(SIZE >> 20):
                out.write(os.urandom(1 << 20))
        site.release(file, "2.0.0")
        peak = 0

        def whole(called: str = "whole") -> None:
            nonlocal peak
            clear(site)
            spent.begin()
            peak = max(peak, site.fetch("2.0.0")[2])
            site.install(*about(site))
            spent.end(called)

        def resumed() -> None:
            """All but a twentieth was here already."""
            clear(site, keep=True)
            (done,) = (path for path in site.downloads.iterdir() if path.suffix == "")
            damage(done)
            done.rename(f"{done}.partial")
            spent.begin()
            site.fetch("2.0.0")
            site.install(*about(site))
            spent.end("resumed")

        def seeded(called: str = "seeded") -> None:
            """All but a twentieth is in the slot that runs."""
            nonlocal peak
            clear(site)
            shutil.copy(file, site.slot)
            damage(site.slot)
            spent.begin()
            peak = max(peak, site.fetch("2.0.0")[2])
            site.install(*about(site))
            spent.end(called)
            site.slot.unlink()

        def shell(name: str, script: str) -> None:
            target = site.directory / "slot"
            target.unlink(missing_ok=True)
            spent.begin()
            script = script.format(file=file, target=target, directory=site.directory)
            subprocess.run(script, shell=True, check=True, capture_output=True)
            spent.end(name)

        spent = Spent()
        for _ in range(3):  # in turn, so that what else this machine does touches all of them
            whole()
            shell("cat", "cat {file} | tee {target} | sha256sum; sync {target} {directory}")
            resumed()
            seeded()
            shell("floor", "cp --reflink=auto {file} {target}; sync {target} {directory}; "
                  "dd if={target} iflag=nocache count=0 2>/dev/null; sha256sum {target}")  # fmt: skip
        site.server.rate = GIGABIT
        for _ in range(2):
            whole("whole, 1 Gbit/s")
            seeded("seeded, 1 Gbit/s")
        mb = SIZE >> 20
        name = f"apply {mb} MB from loopback" + (", xfs" if "xfs" in place else "")
        rows = [
            spent.row(name, "whole", "cat", "cat | sha256sum > slot", ">= 0.5 x"),
            Row(name=f"{name}, peak memory", ours=peak / 1024, unit="MiB", peer="the bound", theirs=64.0, aim="<= 1 x"),
            spent.row(f"{name}, 95 % here already", "resumed", "whole", "whole", ">= 3 x"),
            spent.row(f"{name}, 95 % in the slot that runs", "seeded", "whole", "whole", ">= 3 x"),
            spent.row(f"{name}, 95 % in the slot that runs", "seeded", "floor", "cp, sync, read back", ""),
            spent.row(
                f"{name.replace('loopback', '1 Gbit/s')}, 95 % in the slot that runs", "seeded, 1 Gbit/s",
                "whole, 1 Gbit/s", "whole", ">= 3 x",
            ),
        ]
        for one in ("whole", "resumed", "seeded"):
            rows.append(Row(name=f"{name}, {one}, CPU", ours=spent.processor(one), unit="s", peer="cat | sha256sum",
                            theirs=spent.processor("cat")))  # fmt: skip
        return rows


class Spent:
    """Seconds, by the clock and of the processors (ours and our children's), of what is done several times."""

    def __init__(self) -> None:
        self._all: dict[str, list[tuple[float, float]]] = {}

    def begin(self) -> None:
        os.sync()
        self._clock, self._processor = time.perf_counter(), _processor()

    def end(self, name: str) -> None:
        now = (time.perf_counter() - self._clock, _processor() - self._processor)
        self._all.setdefault(name, []).append(now)

    def seconds(self, name: str) -> float:
        return statistics.median(one for one, _ in self._all[name])

    def processor(self, name: str) -> float:
        return statistics.median(one for _, one in self._all[name])

    def row(self, name: str, ours: str, theirs: str, peer: str, aim: str) -> Row:
        mb = SIZE >> 20
        return Row(name=name, ours=mb / self.seconds(ours), unit="MB/s", peer=peer, theirs=mb / self.seconds(theirs),
                   aim=aim)  # fmt: skip


def _processor() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def about(site: Site) -> tuple[str, int]:
    (done,) = (path for path in site.downloads.iterdir() if path.suffix == "")
    return done.name, done.stat().st_size


def clear(site: Site, *, keep: bool = False) -> None:
    shutil.rmtree(site.slot.parents[1] / "b", ignore_errors=True)
    if not keep:
        shutil.rmtree(site.downloads, ignore_errors=True)


def damage(file: Path) -> None:
    """A twentieth of it, in a dozen places."""
    with file.open("r+b") as out:
        piece = SIZE // 240
        for number in range(12):
            out.seek(number * (SIZE // 12))
            out.write(os.urandom(piece))
