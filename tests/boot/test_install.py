"""appliance install --to, from a machine that runs our own OS onto its second disk, and that disk started by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.guest import make_disk, start, unit
from tests.boot.versions import take_image

pytestmark = pytest.mark.qemu
HELLO = "[service]\ntype = 'oneshot'\ncommand = ['/usr/bin/appliance', 'version']\n"
INSTALL = """\
exec > /dev/console 2>&1
/usr/bin/appliance install --to /dev/vda --erase; echo TOLD own disk $?
/usr/bin/appliance install --to /dev/vdb --provision /var/lib/test/provision; echo TOLD other $?
"""


def test_installed_disk_starts_with_its_own_settings(tmp_path: Path) -> None:
    image = take_image()
    files = {
        "/etc/appliance/units/install.toml": unit(INSTALL),
        "/var/lib/test/provision/appliance.toml": "[node]\nname = 'newbox'\n",
        "/var/lib/test/provision/units/hello.toml": HELLO,
    }
    first, second = make_disk(image, tmp_path / "first.img", files), tmp_path / "second.img"
    with second.open("wb") as file:
        file.truncate(700 << 20)
    drive = ["-drive", f"if=none,id=d1,format=raw,file={second}", "-device", "virtio-blk-pci,drive=d1"]
    vm = start(image, first, tmp_path, extra=drive)
    try:
        assert vm.wait("TOLD own disk", 240).endswith(" 7"), vm.last()
        assert "in use" in "".join(vm.lines)
        assert vm.wait("TOLD other", 240).endswith(" 0"), vm.last()
    finally:
        vm.put_away()
    vm = start(image, second, tmp_path, loader=True)
    try:
        vm.wait("provisioned by the installer: appliance.toml, units/hello.toml", 240)
        vm.wait_all("Appliance 1.0.0 on newbox", "unit hello: exited", timeout=240)
    finally:
        vm.put_away()
    with second.open("rb") as file:
        assert not any(file.read(1 << 20)[64 << 10 :]), "what was provisioned may be a secret: wiped"
