"""A machine whose clock starts in 1970: a time server puts it right and it updates; without one it comes up, too."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from appliance.machine.sntp import PACKET, PORT, encode_time
from tests.boot.fleet import BINARY, UPDATES, Fleet
from tests.boot.guest import SETTINGS, make_disk
from tests.boot.versions import Image
from tests.boot.vm import CODE, VM

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64") or not CODE.exists(), reason="needs QEMU and OVMF"),
    pytest.mark.skipif(not BINARY.exists(), reason="needs dist/appliance: ./build.sh"),
]
AHEAD = 3600.0  # of the host, so that nobody else can have told the guest this time
LONG = 120.0
DEAD = ["-rtc", "base=1970-01-01T00:00:00"]


class TimeServer:
    """Where QEMU's user network looks for 10.0.2.2:123."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", PORT))
        self.asked = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data, whose = self._socket.recvfrom(512)
            except OSError:
                return
            self.asked += 1
            now = encode_time(time.time() + AHEAD)
            self._socket.sendto(PACKET.pack(0x24, 2, 0, -20, 0, 0, 0, bytes(8), data[40:48], now, now), whose)

    def end(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dead-battery-") as place:
        yield Path(place)


def told(line: str) -> float:
    """What the machine thinks the time is when it writes this line."""
    found = re.search(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line)
    assert found, line
    return datetime.fromisoformat(found[0]).timestamp()


def test_it_is_put_right_and_updates_and_comes_up_without_a_server(work: Path) -> None:
    try:
        server = TimeServer()
    except OSError as exc:
        pytest.skip(f"UDP port {PORT} of 127.0.0.1 is not to be had: {exc.strerror}")
    fleet = Fleet(work).begin()
    parts = fleet.build("1.0.0")
    fleet.parts["2.0.0"] = replace(parts, version="2.0.0")  # it is only offered here
    fleet.publish("2.0.0")
    fleet.plain_disk(work / "1.0.0.img", "1.0.0")
    settings = UPDATES.format(status=SETTINGS, port=fleet.port) + '[machine]\nntp = ["10.0.2.2"]\n'
    files = {
        "/etc/appliance/appliance.toml": settings,
        "/etc/appliance/trust/root.json": (fleet.repository / "metadata/1.root.json").read_text(),
    }
    image = Image(work / "1.0.0.img", parts.kernel, work / "1.0.0.img", parts.command_line, parts)
    vm = VM(make_disk(image, work / "machine.img", files), work, extra=DEAD)
    begun = time.time()
    try:
        vm.start()
        vm.wait("the machine's clock said .*: set to the day that this version was made", LONG)
        before = vm.wait("machine made ready", LONG)
        assert told(before) < begun, "at best our own build date was known"
        vm.wait(r"clock: set \(by \+[\d.]+ s, as 10\.0\.2\.2 says\)", LONG)
        offered = vm.wait(r"update available: version=2\.0\.0", LONG)
        assert begun + AHEAD - 60 < told(offered) < time.time() + AHEAD + 60
        vm.cut_power()
        server.end()
        vm.start()
        vm.wait("the machine's clock said .*: set to the time of the last run", LONG)
        again = vm.wait("machine made ready", LONG)
        assert told(again) > told(before), "what was known last has outlived the power cut"
        vm.wait_all(" ready; status page", r"clock: failed \(10\.0\.2\.2: cannot ask for the time", timeout=LONG)
    finally:
        vm.put_away()
        server.end()
        fleet.end()
