"""The demo, walked as the README tells it, on the built file: `./build.sh run` with a root and ports of its own."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from app.daemon import HOUSE, PATIENCE, Daemon, wait_until

pytestmark = pytest.mark.binary

TOUR = (Path(HOUSE) / "README.md").read_text().partition("## Five minutes")[2].partition("\n## ")[0]
PORTS = ("7780", "7781", "7782")


def free_port() -> str:
    with socket.socket() as raw:
        raw.bind(("127.0.0.1", 0))
        return str(raw.getsockname()[1])


class Demo:
    """What build.sh does, but for the ports and the directory that web serves: others may have those."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary = binary
        self.root = directory / "root"
        self.changed = {port: free_port() for port in PORTS} | {"/tmp/appliance-demo": str(directory / "served")}
        etc = self.root / "etc/appliance"
        (etc / "units").mkdir(parents=True)
        files = {etc / "appliance.toml": HOUSE / "configs/demo.toml"}
        files |= {etc / "units" / one.name: one for one in (HOUSE / "configs/demo").glob("*.toml")}
        for to, source in files.items():
            to.write_text(self.here(source.read_text()))
        self.daemon = Daemon([str(binary)], self.root)

    def here(self, text: str) -> str:
        for old, new in self.changed.items():
            text = text.replace(old, new)
        return text

    def appliance(self, *words: str) -> str:
        return self.run(*words).stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [str(self.binary), "--root", str(self.root), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)

    def units(self) -> dict[str, tuple[str, int]]:
        listed = json.loads(self.appliance("unit", "list", "-o", "json"))["units"]
        return {one["name"]: (one["state"], one["pid"]) for one in listed}


@pytest.fixture
def demo(binary: Path, tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(binary, tmp_path)
    try:
        demo.daemon.expect_ready()
        yield demo
    finally:
        demo.daemon.clean_up()


def shown() -> dict[str, tuple[str, str]]:
    """State and note of each unit, as the README has them."""
    table = TOUR.partition("UNIT     STATE")[2].partition("```")[0].splitlines()[1:]
    rows = [re.split(r"  +", line.strip()) for line in table if line.strip()]
    return {row[0]: (row[1], row[-1]) for row in rows}


def test_the_tour_is_what_one_sees(demo: Demo) -> None:
    wanted = {name: state for name, (state, _) in shown().items()}
    assert set(wanted) == {one.stem for one in (HOUSE / "configs/demo").glob("*.toml")}
    wait_until(lambda: {name: state for name, (state, _) in demo.units().items()} == wanted, "the states of the README")
    screen = demo.appliance("status")
    services = re.search(r"services  .*", TOUR)
    assert services is not None
    assert services[0] in screen
    for name, (_, note) in shown().items():
        assert re.search(rf"^{name} .*{re.escape(demo.here(note))}$", screen, re.MULTILINE), name
    assert b"crasher" in urllib.request.urlopen(demo.here("http://127.0.0.1:7780/"), timeout=PATIENCE).read()
    assert b"Hello from" in urllib.request.urlopen(demo.here("http://127.0.0.1:7781/"), timeout=PATIENCE).read()
    with socket.create_connection(("127.0.0.1", int(demo.here("7782"))), timeout=PATIENCE) as call:
        assert re.search(rb"\d\d:\d\d:\d\d", call.recv(100))

    assert re.fullmatch(r"web: ready \(started, pid \d+\)\n", demo.appliance("unit", "restart", "web"))
    wait_until(lambda: len(demo.appliance("unit", "logs", "-n", "2", "web").splitlines()) == 2, "two lines of web")
    broken = demo.root / "etc/appliance/units/broken.toml"
    broken.write_text('[service]\ncomand = ["sleep", "1h"]\n')
    verified = demo.run("unit", "verify")
    assert verified.returncode == 2
    told = verified.stdout + verified.stderr
    lines = re.findall(r"broken\.toml:\d.*?(?=\(allowed|\n)", TOUR)
    assert len(lines) == 2
    for line in lines:
        assert line.strip() in told
    assert f"{len(wanted) + 1} unit files, 2 errors" in told
    broken.unlink()
    story = re.findall(r"^\$ appliance (store .*)\n((?:[^$`].*\n)*)", TOUR, re.MULTILINE)
    assert len(story) == 3
    for words, answer in story:
        assert demo.appliance(*words.split()) == answer, words


def test_the_units_have_not_noticed(demo: Demo) -> None:
    up = [name for name, (state, _) in shown().items() if state == "ready" and name != "crasher"]
    before = wait_until(
        lambda: (found := demo.units()) and all(found[one][0] == "ready" for one in up) and found, "all up"
    )
    demo.daemon.send(signal.SIGKILL)
    demo.daemon.wait()
    demo.daemon = Daemon([str(demo.binary)], demo.root)
    demo.daemon.expect_ready()
    after = demo.units()
    assert {one: after[one] for one in up} == {one: before[one] for one in up}
