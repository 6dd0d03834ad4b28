"""The machine's network: interfaces set up as ``[network]`` says, addresses got and renewed by DHCP, and resolv.conf.

Level-triggered: every change of a link, and every renewal, leads to one look at what is and what should be.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from appliance.errors import ApplianceError
from appliance.host import entropy, files, machine_state, node, rtnetlink
from appliance.host.packets import DhcpSocket
from appliance.host.rtnetlink import Link
from appliance.machine.dhcp import Client, Lease, Send, routes_of
from appliance.machine.network_settings import InterfaceTable, NetworkSettings

RESOLV_FILE = "/run/appliance/resolv.conf"
_DHCP_METRIC = 1024
_MTU_MIN = 576
_RETRY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class InterfacePicture:
    """One interface, for ``status`` and the console."""

    name: str
    up: bool
    carrier: bool
    addresses: tuple[str, ...]
    dhcp: str  # phase; empty when it is not asked


@dataclass
class _Interface:
    table: InterfaceTable
    link: Link
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    client: Client | None = None
    lease: Lease | None = None  # as it is set on the interface


class Network:
    """The service."""

    def __init__(self, settings: Callable[[], NetworkSettings], *, publish: Callable[..., None]) -> None:
        self._settings = settings
        self._publish = publish
        self._interfaces: dict[int, _Interface] = {}
        self._again = trio.Event()

    def pictures(self) -> tuple[InterfacePicture, ...]:
        """All but loopback."""
        found = []
        for link in rtnetlink.links():
            own = self._interfaces.get(link.index)
            if link.name != "lo":
                texts = tuple(str(one) for one in rtnetlink.addresses(link.index) if not one.ip.is_link_local)
                phase = own.client.phase.value if own is not None and own.client is not None else ""
                found.append(
                    InterfacePicture(name=link.name, up=link.up, carrier=link.carrier, addresses=texts, dhcp=phase)
                )
        return tuple(found)

    def reconfigure(self) -> None:
        """The settings changed."""
        self._again.set()

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Ready once what can be set without asking anybody is set; addresses by DHCP come when they come."""
        self._interfaces.clear()
        with rtnetlink.link_changes() as told:  # closed only when nobody waits for it any more
            async with trio.open_nursery() as nursery:
                self._look(nursery)
                nursery.start_soon(self._watch, told, nursery)
                task_status.started()
                await stopping.wait()
                nursery.cancel_scope.cancel()

    async def _watch(self, told: object, nursery: trio.Nursery) -> None:
        async def links() -> None:
            await trio.lowlevel.wait_readable(told)  # type: ignore[arg-type]
            rtnetlink.drain(told)  # type: ignore[arg-type]
            self._again.set()

        while True:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(links)
                await self._again.wait()
                waiting.cancel_scope.cancel()
            self._again = trio.Event()
            try:
                self._look(nursery)
            except ApplianceError as exc:
                self._publish("network", "", state="failed", reason=exc.message)
                with trio.move_on_after(_RETRY_SECONDS):
                    await self._again.wait()
                self._again.set()

    def _look(self, nursery: trio.Nursery) -> None:
        settings = self._settings()
        self._make(settings)
        seen = {}
        for link in rtnetlink.links():
            table = settings.table_for(link.name, link.hardware.hex(":"))
            if link.name == "lo" or table is None or (link.kind and table.kind is None and link.kind != "veth"):
                continue
            seen[link.index] = link
            own = self._interfaces.get(link.index)
            if own is None or own.table != table or own.link.carrier != link.carrier or not link.up:
                self._set_up(table, link, nursery)
        for index in self._interfaces.keys() - seen.keys():
            gone = self._interfaces.pop(index)
            gone.scope.cancel()
            _take_back(gone, InterfaceTable(name=gone.link.name, dhcp=False))

    def _make(self, settings: NetworkSettings) -> None:
        by_name = {link.name: link for link in rtnetlink.links()}
        for table in settings.interface:
            if table.kind is None or table.name in by_name:
                continue
            parent = by_name.get(table.parent or "")
            if table.kind == "vlan" and parent is None:
                continue  # it may come yet
            try:
                number = parent.index if parent is not None else 0
                rtnetlink.make_link(table.name, table.kind, parent=number, vlan=table.id or 0, mode=table.mode or "")
            except ApplianceError as exc:  # the others can do without it
                self._publish("network", table.name, state="failed", reason=exc.message)
        by_name = {link.name: link for link in rtnetlink.links()}
        for table in settings.interface:
            above = by_name.get(table.name)
            for member in table.members:
                link = by_name.get(member)
                if above is None or link is None or link.master == above.index:
                    continue
                try:
                    rtnetlink.set_link(link.index, up=False, master=above.index)
                    rtnetlink.set_link(link.index, up=True)
                except ApplianceError as exc:
                    self._publish("network", member, state="failed", reason=exc.message)

    def _set_up(self, table: InterfaceTable, link: Link, nursery: trio.Nursery) -> None:
        own = _Interface(table, link)
        if (old := self._interfaces.pop(link.index, None)) is not None:
            old.scope.cancel()
            _take_back(old, table)
            own.lease = old.lease if table.wants_dhcp else None  # it stays until there is another: a cable came loose
        self._interfaces[link.index] = own
        try:
            machine_state.set_sysctl({f"net.ipv6.conf.{link.name}.disable_ipv6": "1" if table.ipv6 == "off" else "0"})
            rtnetlink.set_link(link.index, up=True, mtu=table.mtu or 0)
            self._set_static(table, link)
        except ApplianceError as exc:
            self._publish("network", link.name, state="failed", reason=exc.message)
        if table.wants_dhcp and link.carrier and link.hardware:
            nursery.start_soon(self._ask_for_address, own)
        self._write_resolv()

    def _set_static(self, table: InterfaceTable, link: Link) -> None:
        wanted = {ipaddress.ip_interface(text) for text in table.addresses}
        for address in wanted - set(rtnetlink.addresses(link.index)):
            rtnetlink.add_address(link.index, address)
        for gateway in map(ipaddress.ip_address, filter(None, (table.gateway, table.gateway6))):
            if (way := _way_to(gateway, table)) is not None:
                rtnetlink.add_route(link.index, way, None)
            rtnetlink.add_route(link.index, "default", gateway)
        for route in table.routes:
            rtnetlink.add_route(link.index, route.to, ipaddress.ip_address(route.via), metric=route.metric)

    async def _ask_for_address(self, own: _Interface) -> None:
        link = own.link
        seed = int(entropy.token(4), 16)
        client = own.client = Client(link.hardware, node.hostname(), seed)
        with own.scope:
            try:
                asker = DhcpSocket(link.index, link.name)
            except ApplianceError as exc:
                self._publish("network", link.name, state="failed", reason=exc.message)
                return
            try:
                await self._converse(own, client, asker)
            finally:
                asker.close()

    async def _converse(self, own: _Interface, client: Client, asker: DhcpSocket) -> None:
        self._tell(own, asker, client.due(trio.current_time(), entropy.uniform(0, 1)))
        has_had = False
        while True:
            with trio.move_on_at(client.wake if client.wake < math.inf else math.inf) as scope:
                await trio.lowlevel.wait_readable(asker.socket)
            now = trio.current_time()
            if scope.cancelled_caught:
                self._tell(own, asker, client.due(now, entropy.uniform(0, 1)))
            else:
                while (data := asker.receive()) is not None:
                    self._tell(own, asker, client.hear(data, now))
            if client.lease != own.lease and (client.lease is not None or has_had):
                self._take(own, client.lease)
            has_had = has_had or client.lease is not None

    def _tell(self, own: _Interface, asker: DhcpSocket, sends: tuple[Send, ...]) -> None:
        for send in sends:
            try:
                asker.send(send.source, send.target, send.data)
            except ApplianceError as exc:
                self._publish("network", own.link.name, state="failed", reason=exc.message)

    def _take(self, own: _Interface, lease: Lease | None) -> None:
        old, own.lease = own.lease, lease
        index, name = own.link.index, own.link.name
        try:
            if old is not None and (lease is None or lease.address != old.address):
                rtnetlink.delete_address(index, old.address)
            if lease is not None:
                rtnetlink.add_address(index, lease.address, valid_seconds=int(lease.seconds) + 60)
        except ApplianceError as exc:
            self._publish("network", name, state="failed", reason=exc.message)
            return
        if lease is not None:
            self._set_told(own, lease)
        if old is None or lease is None or old.address != lease.address:
            text = f"{lease.address} from {lease.server}" if lease is not None else "the lease ran out"
            self._publish("network", name, state="up" if lease is not None else "down", reason=text)
        self._write_resolv()

    def _set_told(self, own: _Interface, lease: Lease) -> None:
        """What else the server said; a part of it that is wrong does not cost us the rest."""
        index = own.link.index
        acts: list[Callable[[], None]] = [
            partial(rtnetlink.add_route, index, to, via, metric=_DHCP_METRIC, source=lease.address.ip)
            for to, via in routes_of(lease)
        ]
        if lease.mtu >= _MTU_MIN and own.table.mtu is None:
            acts.append(partial(rtnetlink.set_link, index, up=True, mtu=lease.mtu))
        for act in acts:
            try:
                act()
            except ApplianceError as exc:
                self._publish("network", own.link.name, state="failed", reason=exc.message)

    def _write_resolv(self) -> None:
        settings = self._settings()
        servers = [*settings.dns, *(one for own in self._interfaces.values() for one in own.table.dns)]
        domains = list(settings.search)
        for own in self._interfaces.values():
            if own.lease is not None:
                servers += own.lease.dns
                domains += [own.lease.domain] if own.lease.domain else []
        lines = [f"nameserver {one}" for one in dict.fromkeys(servers)][:3]
        if domains:
            lines.append(f"search {' '.join(dict.fromkeys(domains))}")
        try:
            files.write_atomic(RESOLV_FILE, ("\n".join(lines) + "\n").encode(), durable=False)
        except ApplianceError as exc:
            self._publish("network", "", state="failed", reason=exc.message)


def _take_back(old: _Interface, table: InterfaceTable) -> None:
    """What was set by the table before and is not in this one; what the kernel has dropped already is fine."""
    index, before = old.link.index, old.table
    for text in {before.gateway, before.gateway6} - {None, table.gateway, table.gateway6}:
        gateway = ipaddress.ip_address(str(text))
        with contextlib.suppress(ApplianceError):
            rtnetlink.delete_route(index, "default", gateway)
            if (way := _way_to(gateway, before)) is not None:
                rtnetlink.delete_route(index, way, None)
    for route in set(before.routes) - set(table.routes):
        with contextlib.suppress(ApplianceError):
            rtnetlink.delete_route(index, route.to, ipaddress.ip_address(route.via), metric=route.metric)
    gone = {ipaddress.ip_interface(text) for text in set(before.addresses) - set(table.addresses)}
    if old.lease is not None and not table.wants_dhcp:
        gone.add(old.lease.address)
    for address in gone:
        with contextlib.suppress(ApplianceError):
            rtnetlink.delete_address(index, address)


def _way_to(gateway: ipaddress.IPv4Address | ipaddress.IPv6Address, table: InterfaceTable) -> str | None:
    """The route that a gateway beyond the table's own networks needs for itself (hosters give a /32)."""
    networks = [ipaddress.ip_interface(text).network for text in table.addresses]
    if gateway.is_link_local or not any(one.version == gateway.version for one in networks):
        return None  # on every link; or the network is the DHCP server's to say
    return None if any(gateway in one for one in networks) else f"{gateway}/{gateway.max_prefixlen}"
