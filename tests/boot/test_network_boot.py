"""The .efi of a version, fetched by the firmware: a machine whose own ESP is lost starts from the network, its root and
all it has stored come from its disk. By PXE (DHCP, TFTP) and by HTTP (docs/machine.md, "Network boot").
"""

from __future__ import annotations

import http.server
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.esp_image import find_esp
from tests.boot.firmware import GLOBAL, add_variables
from tests.boot.fleet import RangeHandler, copy_disk
from tests.boot.versions import BINARY, take_image
from tests.boot.vm import CODE, VARIABLES, VM

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64") or not CODE.exists(), reason="needs QEMU and OVMF"),
    pytest.mark.skipif(not BINARY.exists(), reason="needs dist/appliance: ./build.sh"),
]
LONG = 240.0
NAME = "appliance-1.0.0.efi"
RUNS = r"appliance: version 1\.0\.0, slot a"
OUR_HOST = "10.0.2.2"  # in QEMU's own network


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A directory with the file in it."""
    place = tmp_path / "served"
    place.mkdir()
    (place / NAME).write_bytes(take_image().parts.uki)
    return place


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Whose ESP nobody can read any more."""
    disk = copy_disk(take_image().disk, tmp_path / "lost.img")
    esp = find_esp(disk)
    with disk.open("r+b") as file:
        file.seek(esp.start)
        file.write(bytes(1 << 20))
    return disk


@pytest.fixture
def server(served: Path) -> Iterator[int]:
    """A web server of that directory: its port."""

    class Handler(RangeHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(served))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def start_by_network(vm: VM) -> None:
    try:
        vm.start()
        vm.wait(RUNS, LONG)
    finally:
        vm.put_away()


def test_by_pxe(disk: Path, served: Path, tmp_path: Path) -> None:
    start_by_network(VM(disk, tmp_path, network=f",tftp={served},bootfile={NAME}"))


def test_by_http(disk: Path, server: int, tmp_path: Path) -> None:
    """By an entry of the firmware's own that names the address of the file, as its setup screen makes one."""
    uri = f"http://{OUR_HOST}:{server}/{NAME}".encode()
    node = struct.pack("<BBH", 3, 24, 4 + len(uri)) + uri + struct.pack("<BBH", 0x7F, 0xFF, 4)
    option = struct.pack("<IH", 1, len(node)) + "by HTTP\0".encode("utf-16-le") + node
    lasting = 7  # kept, and seen by whoever runs
    wanted = [("Boot0000", GLOBAL, lasting, option), ("BootOrder", GLOBAL, lasting, struct.pack("<H", 0))]
    (tmp_path / "vm.vars").write_bytes(add_variables(VARIABLES.read_bytes(), wanted))
    start_by_network(VM(disk, tmp_path, network=""))
