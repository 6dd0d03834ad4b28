"""Run in a network namespace of its own by test_network.py: our Network on one end of a cable, dnsmasq on the other."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from pathlib import Path

import trio

from appliance.host import rtnetlink
from appliance.machine import Network, NetworkSettings, network
from appliance.machine.network_settings import InterfaceTable, RouteTable

PEER = ("nsenter", "-n", "-t")


async def until(condition: object, what: str, seconds: float = 60) -> None:
    with trio.move_on_after(seconds):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await trio.sleep(0.05)
        return
    raise AssertionError(f"not within {seconds} s: {what}")


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def addresses(name: str) -> set[str]:
    link = next(one for one in rtnetlink.links() if one.name == name)
    return {str(one) for one in rtnetlink.addresses(link.index) if not one.ip.is_link_local}


async def main(work: Path, scene: str) -> None:
    network.RESOLV_FILE = str(work / "resolv.conf")
    peer = subprocess.Popen(["unshare", "-n", "sleep", "600"])  # noqa: ASYNC220
    server: subprocess.Popen[bytes] | None = None
    events: list[tuple[str, str, str]] = []
    try:
        await until(lambda: Path(f"/proc/{peer.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink(), "peer")
        run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "far", "netns", str(peer.pid))
        far = (*PEER, str(peer.pid))
        run(*far, "ip", "link", "set", "lo", "up")
        run(*far, "ip", "address", "add", "192.0.2.1/24", "dev", "far")
        run(*far, "ip", "link", "set", "far", "up")
        settings = NetworkSettings()
        if scene == "static":
            table = InterfaceTable(
                name="cable", addresses=("192.0.2.7/24", "2001:db8::7/64"), gateway="192.0.2.1", dns=("192.0.2.53",),
                routes=(RouteTable(to="198.51.100.0/24", via="192.0.2.1"),), mtu=1400,
            )  # fmt: skip
            vlan = InterfaceTable(name="cable.5", kind="vlan", parent="cable", id=5, addresses=("10.5.0.1/24",))
            bridge = InterfaceTable(name="br0", kind="bridge", members=("tap",), addresses=("10.6.0.1/24",))
            bond = InterfaceTable(name="bond0", kind="bond", members=("b1", "b2"), dhcp=False, mode="active-backup")
            settings = NetworkSettings(interface=(table, vlan, bridge, bond), dhcp=False, search=("example.org",))
            for name in ("tap", "b1", "b2"):
                run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-far")
        elif scene == "changed":
            settings = NetworkSettings(interface=(InterfaceTable(
                name="cable", addresses=("192.0.2.7/24", "192.0.2.8/24", "2001:db8::7/64"), gateway="192.0.2.1",
                routes=(RouteTable(to="198.51.100.0/24", via="192.0.2.1"),),
            ),))  # fmt: skip
        else:
            server = start_dnsmasq(work, far, *DNSMASQ[scene])
            # Asked before it listens, it would be asked again after 4, 8, 16 s: on a busy host that is the whole time.
            asked = Path(f"/proc/{peer.pid}/net/udp")
            await until(lambda: ":0043 " in asked.read_text(), "dnsmasq listens")
        stopping = trio.Event()
        holder = [settings]

        def publish(kind: str, who: str, **said: str) -> None:
            events.append((who, said["state"], said["reason"]))

        it = Network(lambda: holder[0], publish=publish)
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: it.run(stopping=stopping, task_status=task_status))
            if scene == "static":
                await until(lambda: "192.0.2.7/24" in addresses("cable"), "the cable")
                for name, own in (("br0", "10.6.0.1/24"), ("cable.5", "10.5.0.1/24")):
                    if name not in {who for who, state, _ in events if state == "failed"}:
                        await until(lambda: own in addresses(name), name)  # noqa: B023
            elif scene == "changed":
                await changed(it, holder)
            elif scene == "forever":
                await until(lambda: addresses("cable"), "an address by DHCP")
            elif scene == "cloud":
                await until(lambda: "default via 192.0.2.1" in run("ip", "-4", "route"), "the way out")
                await until(lambda: "192.0.2.53" in Path(network.RESOLV_FILE).read_text(), "who knows names")
            else:
                await dhcp(it, far, holder)
            print(json.dumps(report(work, events)))
            stopping.set()
    finally:
        for process in filter(None, (server, peer)):
            process.kill()
            process.wait()


DNSMASQ = {  # how long, and what else it says
    "dhcp": ("2m",),
    "forever": ("infinite",),
    "cloud": ("2m", "--dhcp-option=option:netmask,255.255.255.255", "--dhcp-option=option:router,192.0.2.1",
              "--dhcp-option=option:mtu,65000"),
}  # fmt: skip


def start_dnsmasq(work: Path, far: tuple[str, ...], how_long: str, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *far, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=far",
            "--bind-interfaces", "--dhcp-authoritative",
            f"--dhcp-range=192.0.2.100,192.0.2.110,255.255.255.0,{how_long}",
            "--dhcp-option=option:dns-server,192.0.2.53", "--dhcp-option=option:domain-name,lab.example",
            f"--dhcp-leasefile={work}/leases", "--user=root", "--no-ping", f"--pid-file={work}/pid", *more,
        ],
        stdout=subprocess.DEVNULL, stderr=(work / "dnsmasq.log").open("wb"),
    )  # fmt: skip


async def changed(it: Network, holder: list[NetworkSettings]) -> None:
    await until(lambda: "2001:db8::7/64" in addresses("cable"), "the cable")
    table = InterfaceTable(
        name="cable", addresses=("192.0.2.8/24", "192.0.2.9/24"), gateway="192.0.2.2",
        routes=(RouteTable(to="203.0.113.0/24", via="192.0.2.1"),),
    )  # fmt: skip
    holder[0] = NetworkSettings(interface=(table,))
    it.reconfigure()
    await until(lambda: addresses("cable") == {"192.0.2.8/24", "192.0.2.9/24"}, "what was taken out of the settings")
    beyond = InterfaceTable(name="cable", addresses=("192.0.2.7/32",), gateway="172.31.1.1")  # as hosters have it
    holder[0] = NetworkSettings(interface=(beyond,))
    it.reconfigure()
    await until(lambda: "default via 172.31.1.1" in run("ip", "-4", "route"), "a gateway beyond the own network")
    holder[0] = NetworkSettings(interface=(table,))
    it.reconfigure()
    await until(lambda: "172.31.1.1" not in run("ip", "-4", "route"), "back, and nothing is left of it")
    await until(lambda: "203.0.113.0/24" in run("ip", "-4", "route"), "the routes")


async def dhcp(it: Network, far: tuple[str, ...], holder: list[NetworkSettings]) -> None:
    await until(lambda: any(one.startswith("192.0.2.10") for one in addresses("cable")), "an address by DHCP")
    first = addresses("cable")
    run(*far, "ip", "link", "set", "far", "down")
    await until(lambda: not it.pictures()[0].carrier, "the cable is out")
    assert addresses("cable") == first  # a loose cable does not cost the address
    run(*far, "ip", "link", "set", "far", "up")
    await until(lambda: it.pictures()[0].dhcp == "bound" and addresses("cable") == first, "the same address again")
    holder[0] = NetworkSettings(interface=(InterfaceTable(name="cable", addresses=("192.0.2.9/24",)),))
    it.reconfigure()
    await until(lambda: addresses("cable") == {"192.0.2.9/24"}, "what the new settings say, and nothing else")


def report(work: Path, events: list[tuple[str, str, str]]) -> dict[str, object]:
    names = ("cable", "cable.5", "br0", "bond0")
    there = {one.name: one for one in rtnetlink.links()}
    return {
        "addresses": {name: sorted(addresses(name)) for name in names if name in there},
        "routes": run("ip", "-4", "route").splitlines(), "resolv": (work / "resolv.conf").read_text(),
        "events": events, "details": run("ip", "-d", "link"),
        "valid": run("ip", "-4", "address", "show", "dev", "cable").partition("valid_lft ")[2].partition(" ")[0],
        "mtu": there["cable"].mtu, "far": str(ipaddress.ip_address("192.0.2.1")),
    }  # fmt: skip


trio.run(main, Path(sys.argv[1]), sys.argv[2])
