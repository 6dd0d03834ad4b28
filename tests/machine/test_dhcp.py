"""The DHCP client against servers made of bytes: what it says when, what it believes, what it lets go."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from appliance.machine.dhcp import BROADCAST, Client, Lease, Phase, lease_of, parse_answer_untrusted, routes_of

MAC = bytes.fromhex("52540012aa01")
SERVER = ipaddress.IPv4Address("192.0.2.1")


def answer(client: Client, kind: int, *, address: str = "192.0.2.50", more: bytes = b"", seconds: int = 3600) -> bytes:
    fixed = struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s", 2, 1, 6, 0, client.transaction, 0, 0, bytes(4),
        ipaddress.IPv4Address(address).packed, bytes(4), bytes(4), MAC.ljust(16, b"\0"), b"", b"",
    )  # fmt: skip
    options = bytes((53, 1, kind)) + b"\x36\x04" + SERVER.packed + b"\x33\x04" + struct.pack("!I", seconds)
    options += b"\x01\x04\xff\xff\xff\x00" + b"\x03\x04" + SERVER.packed + more
    return fixed + b"\x63\x82\x53\x63" + options + b"\xff"


def message_type(data: bytes) -> int:
    at = data.index(b"\x63\x82\x53\x63") + 4
    assert data[at : at + 2] == b"\x35\x01"
    return data[at + 2]


def bound(now: float = 0.0, **said: int) -> Client:
    client = Client(MAC, "node", 7)
    client.due(now, 0.5)
    client.hear(answer(client, 2), now)
    client.hear(answer(client, 5, **said), now)
    assert client.phase is Phase.BOUND
    return client


def test_from_discover_to_a_lease() -> None:
    client = Client(MAC, "node", 7)
    (sent,) = client.due(0.0, 0.5)
    assert (message_type(sent.data), sent.target) == (1, BROADCAST)
    (asked,) = client.hear(answer(client, 2), 0.1)
    assert message_type(asked.data) == 3
    assert b"\x32\x04" + ipaddress.IPv4Address("192.0.2.50").packed in asked.data
    assert client.hear(answer(client, 5), 0.2) == ()
    assert client.lease is not None
    assert (str(client.lease.address), client.lease.routers, client.lease.renew) == ("192.0.2.50/24", (SERVER,), 1800.0)
    assert client.wake == 1800.0


def test_it_renews_with_its_server_then_asks_everybody_then_lets_go() -> None:
    client = bound()
    (sent,) = client.due(1800.0, 0.5)
    assert (client.phase, sent.target, str(sent.source)) == (Phase.RENEWING, SERVER, "192.0.2.50")
    (sent,) = client.due(3150.0, 0.5)
    assert (client.phase, sent.target) == (Phase.REBINDING, BROADCAST)
    assert client.wake <= 3600.0
    (sent,) = client.due(3600.0, 0.5)
    assert (client.phase, client.lease, message_type(sent.data)) == (Phase.SELECTING, None, 1)


def test_a_renewed_lease_counts_from_when_it_was_asked_for() -> None:
    client = bound()
    client.due(1800.0, 0.5)
    client.hear(answer(client, 5), 1805.0)
    assert (client.phase, client.wake) == (Phase.BOUND, 3600.0)


def test_a_refusal_begins_anew_under_another_number() -> None:
    client = bound()
    client.due(1800.0, 0.5)
    before = client.transaction
    client.hear(answer(client, 6), 1801.0)
    assert (client.phase, client.lease) == (Phase.SELECTING, None)
    assert client.transaction != before


def test_questions_come_less_often_and_never_stop() -> None:
    client, now, gaps = Client(MAC, "node", 7), 0.0, []
    for _ in range(12):
        assert client.due(now, 0.5)
        gaps.append(client.wake - now)
        now = client.wake
    assert gaps[:6] == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    assert max(gaps) <= 64.0


def test_routes_of_rfc_3442_come_before_the_router() -> None:
    routes = bytes((24, 198, 51, 100)) + SERVER.packed + bytes((0,)) + SERVER.packed
    client = Client(MAC, "node", 7)
    said = parse_answer_untrusted(answer(client, 5, more=bytes((121, len(routes))) + routes), MAC)
    assert said is not None
    lease = lease_of(said)
    assert lease is not None
    assert lease.routes == (("198.51.100.0/24", SERVER), ("default", SERVER))


def lease_with(address: str, routers: tuple[str, ...] = (), routes: tuple[tuple[str, str], ...] = ()) -> Lease:
    lease = bound().lease
    assert lease is not None
    return replace(
        lease, address=ipaddress.IPv4Interface(address), routers=tuple(map(ipaddress.IPv4Address, routers)),
        routes=tuple((to, ipaddress.IPv4Address(via)) for to, via in routes),
    )  # fmt: skip


def shown(lease: Lease) -> list[str]:
    return [f"{to} via {via}" if via is not None else to for to, via in routes_of(lease)]


def test_a_router_is_reached_wherever_it_stands() -> None:
    assert shown(lease_with("192.0.2.50/24", ("192.0.2.1", "192.0.2.2"))) == ["default via 192.0.2.1"]
    assert shown(lease_with("10.0.0.2/32", ("10.0.0.1",))) == ["10.0.0.1/32", "default via 10.0.0.1"]
    said = (("10.0.0.1/32", "0.0.0.0"), ("default", "10.0.0.1"))  # as Google's cloud says it
    assert shown(lease_with("10.0.0.2/32", ("10.9.9.9",), said)) == ["10.0.0.1/32", "default via 10.0.0.1"]
    said = (("default", "10.0.0.1"), ("10.1.0.0/16", "10.0.0.1"), ("10.0.0.0/24", "0.0.0.0"))  # in any order
    expected = ["10.0.0.0/24", "default via 10.0.0.1", "10.1.0.0/16 via 10.0.0.1"]
    assert shown(lease_with("10.0.0.2/32", (), said)) == expected
    assert shown(lease_with("10.0.0.2/32")) == []


def test_what_is_for_another_changes_nothing() -> None:
    client = Client(MAC, "node", 7)
    client.due(0.0, 0.5)
    for foreign in (answer(client, 2).replace(MAC, b"abcdef"), answer(Client(MAC, "node", 8), 2), answer(client, 5)):
        assert client.hear(foreign, 0.1) == ()
    assert client.phase is Phase.SELECTING


@given(st.binary(max_size=600), st.integers(0, 299))
def test_no_bytes_break_it(noise: bytes, at: int) -> None:
    client = bound()
    whole = bytearray(answer(client, 5))
    whole[at : at + len(noise)] = noise
    client.hear(bytes(whole), 10.0)
    client.hear(noise, 11.0)
    assert client.wake >= 0
