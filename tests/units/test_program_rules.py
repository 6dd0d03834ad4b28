# ruff: noqa: E501, PT018 (tables, one line each)
"""Programs of cgroups, as they are written down: rules, addresses, what is wrong, which of them a unit has."""

from __future__ import annotations

import ipaddress
import itertools
import random

import pytest

from appliance.errors import UnavailableError
from appliance.schema import Source
from appliance.units.cgroup_programs import CgroupPrograms
from appliance.units.device_program import Rule, rules_of
from appliance.units.packet_program import segments
from appliance.units.systemd_files import parse_systemd_unit
from appliance.units.unit_file import parse_unit
from units.fence import document

PROGRAMS = CgroupPrograms(lambda: "")


def test_rules_of_devices() -> None:
    nodes = {"/dev/sda": ("block", 8, 0)}
    drivers = [("char", "ttyS", 4), ("char", "pts", 136), ("block", "sd", 8), ("block", "sd", 65), ("char", "tty", 4)]
    entries = (
        "/dev/sda rw", "/dev/gone", "char-tty* r", "block-sd m", "block-*", "char-1 w", "/dev/char/10:200", "char-nix",
    )  # fmt: skip
    assert list(rules_of(entries, nodes, drivers)) == [
        Rule("block", 8, 0, 6), Rule("char", 4, None, 2), Rule("block", 8, None, 1), Rule("block", 65, None, 1),
        Rule("block", None, None, 7), Rule("char", 1, None, 4), Rule("char", 10, 200, 7),
    ]  # fmt: skip


def test_which_addresses_are_denied() -> None:
    """By brute force, at all edges: allowed before denied, whatever the lengths."""
    chance = random.Random(4)
    for version, bits in ((4, 32), (6, 128)):
        for _ in range(40):
            lists = [
                [
                    str(
                        ipaddress.ip_network(
                            (chance.getrandbits(bits), chance.choice((0, 1, 2, 7, 31, bits))), strict=False
                        )
                    )
                    if version == 4
                    else str(
                        ipaddress.IPv6Network(
                            (chance.getrandbits(bits), chance.choice((0, 1, 3, 64, 128))), strict=False
                        )
                    )
                    for _ in range(chance.randrange(6))
                ]
                for _ in range(2)
            ]
            allow, deny = ([ipaddress.ip_network(word) for word in one] for one in lists)
            found = segments(*lists, version)
            assert found[0][0] == 0 and all(before[1] is not after[1] for before, after in itertools.pairwise(found))
            edges = {int(one.network_address) for one in (*allow, *deny)} | {
                int(one.broadcast_address) for one in (*allow, *deny)
            }
            for edge in {0, *edges, *(edge + 1 for edge in edges)} - {1 << bits}:
                address = ipaddress.ip_address(edge.to_bytes(bits // 8, "big"))
                wanted = any(address in one for one in deny) and not any(address in one for one in allow)
                assert [denied for start, denied in found if start <= edge][-1] is wanted, (lists, address)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("device_policy = 'open'", "device_policy"),
        ("device_allow = ['sda']", 'found "sda", expected "/dev/NAME" or "char-DRIVER"'),
        ("device_allow = ['/dev/sda rx']", 'found "/dev/sda rx"'),
        ("ip_address_deny = ['10.0.0.0/33']", 'found "10.0.0.0/33", expected an address such as 10.0.0.0/8'),
        ("ip_address_allow = ['all']", 'found "all", expected an address'),
        ("socket_bind_deny = ['ipv5:80']", 'found "ipv5:80", expected "any"'),
        ("socket_bind_allow = ['tcp:90-80']", "expected ports from 1 to 65535"),
        ("socket_bind_allow = ['']", 'found ""'),
        ("restrict_network_interfaces = ['a/b']", 'found "a/b", expected names of network interfaces'),
        (f"ip_address_deny = {[f'10.0.{n >> 8}.{n & 255}' for n in range(1001)]}", "found 1001 addresses in both lists"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(text: str, finding: str) -> None:
    parsed = parse_unit(f"[service]\ncommand = ['/bin/true']\n[resources]\n{text}\n", "web.toml")
    assert parsed.unit is None and finding in "\n".join(map(str, parsed.findings))


def test_files_of_systemd_say_the_same() -> None:
    text = (
        "[Service]\nExecStart=/bin/true\nDevicePolicy=closed\nDeviceAllow=/dev/sda  rw\nDeviceAllow=char-pts\n"
        "IPAddressDeny=any\nIPAddressAllow=localhost 10.0.0.0/8\nIPAccounting=yes\nRestrictNetworkInterfaces=~eth0 eth1\n"
        "SocketBindAllow=tcp:80\nSocketBindDeny=any\nDeviceAllow=\nDeviceAllow=/dev/net/tun\n"
    )
    parsed = parse_systemd_unit([Source("/u/web.service", text)])
    assert parsed.unit is not None and parsed.findings == ()
    found = parsed.unit.document.resources
    assert (found.device_policy, found.device_allow) == ("closed", ("/dev/net/tun",))
    assert (found.ip_address_allow, found.ip_address_deny) == (("localhost", "10.0.0.0/8"), ("any",))
    assert (found.ip_accounting, found.restrict_network_interfaces) == (True, ("~eth0", "eth1"))
    assert (found.socket_bind_allow, found.socket_bind_deny) == (("tcp:80",), ("any",))


def hooks(text: str) -> list[str]:
    return [one.hook for one in PROGRAMS.of(document(text))]


def test_which_programs_a_unit_has() -> None:
    assert hooks("") == [] == hooks("[resources]\nmemory_max = '1G'\nip_address_allow = ['any']")
    assert hooks("[sandbox]\nprivate_devices = true") == ["device"] == hooks("[sandbox]\nprotect_clock = true")
    assert hooks("[resources]\nip_address_deny = ['any']") == ["ingress", "egress"]
    assert hooks("[resources]\nsocket_bind_deny = ['any']\ndevice_policy = 'strict'") == ["device", "bind4", "bind6"]


def test_a_host_that_takes_none_is_said_once_and_strict_units_are_refused() -> None:
    without = CgroupPrograms(lambda: "because")
    plain = document("[resources]\nip_address_deny = ['any']\n[sandbox]\nprivate_devices = true")
    strict = document("[resources]\nip_address_deny = ['any']\nstrict = true")
    assert (
        without.of(plain) == () == without.of(document("[sandbox]\nprivate_devices = true\n[resources]\nstrict = true"))
    )
    with pytest.raises(UnavailableError, match=r"cannot hold ip_address_deny \(resources.strict\): because"):
        without.of(strict)
    units = [
        parse_unit(f"[service]\ncommand = ['/bin/true']\n{text}", f"u{number}.toml").unit
        for number, text in enumerate(
            (
                "",
                "[resources]\ndevice_policy = 'closed'",
                "[resources]\nip_accounting = true",
                "[sandbox]\nprivate_devices = true",
            )
        )
    ]
    (found,) = without.findings([unit for unit in units if unit is not None])
    assert found.message == "device_policy, ip_accounting not in force for u1, u2: because"
    assert list(PROGRAMS.findings([unit for unit in units if unit is not None])) == []
