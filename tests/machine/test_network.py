"""The network of a machine of ours: real interfaces in a namespace, dnsmasq gives addresses, iproute2 judges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOUSE = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": ".", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def drive(work: Path, scene: str) -> dict[str, Any]:
    command = ["unshare", "-n", sys.executable, "-m", "tests.machine.network_drive", str(work), scene]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=HOUSE, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here")


def test_addresses_by_dhcp_come_back_after_the_cable_was_out(tmp_path: Path) -> None:
    said = drive(tmp_path, "dhcp")
    up = said["events"][0]
    assert up[:2] == ["cable", "up"]
    assert "192.0.2.1" in up[2]
    assert "192.0.2.9/24" in said["addresses"]["cable"]
    assert not [event for event in said["events"] if event[1] == "failed"], said["events"]


def test_a_lease_may_be_for_ever(tmp_path: Path) -> None:
    said = drive(tmp_path, "forever")
    assert said["addresses"]["cable"][0].startswith("192.0.2.1")
    assert [state for _, state, _ in said["events"]] == ["up"]
    assert said["valid"] == "forever"


def test_an_address_without_a_network_as_clouds_give_it(tmp_path: Path) -> None:
    said = drive(tmp_path, "cloud")
    assert said["addresses"]["cable"][0].endswith("/32")
    assert any(line.startswith("192.0.2.1 dev cable") for line in said["routes"]), said["routes"]


def test_what_is_taken_out_of_the_settings_goes(tmp_path: Path) -> None:
    said = drive(tmp_path, "changed")
    routes = [line for line in said["routes"] if " via " in line]
    assert [line.split(" dev ")[0] for line in sorted(routes)] == [
        "203.0.113.0/24 via 192.0.2.1", "default via 192.0.2.2",
    ]  # fmt: skip
    assert said["events"] == []


def test_what_the_settings_say(tmp_path: Path) -> None:
    said = drive(tmp_path, "static")
    assert said["addresses"]["cable"] == ["192.0.2.7/24", "2001:db8::7/64"]
    assert said["mtu"] == 1400
    assert any(line.startswith("default via 192.0.2.1 dev cable") for line in said["routes"]), said["routes"]
    assert any(line.startswith("198.51.100.0/24 via 192.0.2.1 dev cable") for line in said["routes"])
    assert said["resolv"] == "nameserver 192.0.2.53\nsearch example.org\n"
    missing = {who: reason for who, _, reason in said["events"]}  # kinds that this kernel does not know
    assert all(reason.endswith("Operation not supported") for reason in missing.values()), missing
    if "cable.5" not in missing:
        assert said["addresses"]["cable.5"] == ["10.5.0.1/24"]
        assert "vlan protocol 802.1Q id 5" in said["details"]
    if "br0" not in missing:
        assert said["addresses"]["br0"] == ["10.6.0.1/24"]
        assert "master br0" in said["details"]
    if "bond0" not in missing:
        assert "bond mode active-backup" in said["details"]
        assert said["details"].count("master bond0") == 2
