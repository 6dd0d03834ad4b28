"""Everything a server, a name or a certificate can do wrong: a clear error, nothing changed, and then it works."""

from __future__ import annotations

import json
import random
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from appliance.errors import ApplianceError, NotFoundError, UnavailableError, UntrustedError
from appliance.host.access import Access, Limits
from appliance.host.layout import Layout
from appliance.host.slots import architecture
from appliance.update import Task, work
from appliance.update import download as assembling
from appliance.update.answer import parse_answer
from appliance.update.transport import Place, Transport
from tests.update import hostile
from tests.update.conftest import Publisher
from tests.update.hostile import Hostile, Trick

LIMITS = Limits(idle=1.0, rate_min=1e6, window=1.0, answer=1.5)
OLD = random.Random(1).randbytes(900_000)
NEW = OLD[:300_000] + random.Random(2).randbytes(200_000) + OLD[400_000:]


@dataclass
class Host:
    """One host, and what is asked of it."""

    layout: Layout
    places: tuple[Place, ...]
    rate_limit: int = 0

    def ask(self, verb: str, limits: Limits = LIMITS) -> dict[str, Any]:
        transport = Transport(places=self.places, limits=limits, rate_limit=self.rate_limit)
        path = f"alpha/2.0.0/{architecture()}/appliance"
        answer = work(Task(layout=self.layout, verb=verb, channel="alpha", path=path, transport=transport))
        return parse_answer(json.dumps(answer).encode())

    def state(self) -> dict[str, bytes]:
        """What an update may not change unless it is whole: metadata seen before is as good as that."""
        below = Path(self.layout.state)
        return {str(file): file.read_bytes() for file in below.rglob("*") if file.is_file() and "slots" in file.parts}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembling, "_WAIT_FIRST", 0.01)
    monkeypatch.setattr(assembling, "_WAIT_MAX", 0.02)


@pytest.fixture
def repository(publisher: Publisher) -> Publisher:
    publisher.release("2.0.0", data=NEW)
    return publisher


@pytest.fixture
def server(repository: Publisher) -> Iterator[Hostile]:
    with Hostile(repository.directory) as made:
        yield made


@pytest.fixture
def host(layout: Layout, server: Hostile) -> Host:
    slot = Path(layout.slots, "a/appliance")
    slot.parent.mkdir(parents=True)
    slot.write_bytes(OLD)
    return Host(layout, (Place(url=server.url),))


FAULTS: list[tuple[str, Trick, type[ApplianceError], str]] = [
    ("404", hostile.status(404), NotFoundError, "answers 404"),
    ("500", hostile.status(500), UnavailableError, "answers 500"),
    ("503", hostile.status(503), UnavailableError, "answers 503"),
    ("401", hostile.status(401), UnavailableError, "answers 401: credentials"),
    ("wrong length", hostile.wrong_length, UnavailableError, "ended after byte"),
    ("wrong range", hostile.wrong_range, UnavailableError, "answers 500"),
    ("truncated", hostile.truncated, UnavailableError, "too soon"),
    ("endless", hostile.endless, UntrustedError, "not what was signed"),
    ("endless headers", hostile.endless_headers, UnavailableError, "cannot fetch"),
    ("slow", hostile.slow, UnavailableError, "only [0-9]+ bytes in"),
    ("slow headers", hostile.slow_headers, UnavailableError, "cannot fetch"),
    ("silent", hostile.silent, UnavailableError, "does not answer in time"),
    ("redirect loop", hostile.redirect_loop, UnavailableError, "more than 5 redirects"),
    ("reset", hostile.reset, UnavailableError, "Connection reset|without response"),
    ("flipped bit", hostile.flipped, UntrustedError, "damaged or tampered with"),
    ("no HTTP", hostile.garbage, UnavailableError, "cannot fetch"),
]


@pytest.mark.parametrize(("trick", "kind", "said"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_of_the_payload(
    host: Host, server: Hostile, trick: Trick, kind: type[ApplianceError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembling, "_ATTEMPTS_MAX", 2)  # the slow ones take a second or more each time
    before = host.state()
    server.tricks[".appliance"] = trick
    with pytest.raises(kind, match=said):
        host.ask("download")
    assert host.state() == before
    server.tricks.clear()
    server.requests.clear()
    file = Path(host.ask("download")["file"])
    assert file.read_bytes() == NEW
    assert host.state() == before


@pytest.mark.parametrize(
    ("trick", "said"),
    [(fault[1], fault[3]) for fault in FAULTS if fault[0] not in ("wrong length", "wrong range", "404", "endless")],
    ids=[fault[0] for fault in FAULTS if fault[0] not in ("wrong length", "wrong range", "404", "endless")],
)
def test_of_the_metadata(host: Host, server: Hostile, trick: Trick, said: str) -> None:
    server.tricks["timestamp.json"] = trick
    with pytest.raises((UnavailableError, UntrustedError)):
        host.ask("refresh")
    server.tricks.clear()
    assert [offer["version"] for offer in host.ask("refresh")["offers"]] == ["2.0.0"]


def test_endless_metadata(host: Host, server: Hostile) -> None:
    server.tricks["timestamp.json"] = hostile.endless
    with pytest.raises(UntrustedError, match="longer than"):
        host.ask("refresh")


@pytest.mark.parametrize("trick", [hostile.flipped, hostile.truncated, hostile.endless, hostile.status(500)])
def test_of_the_index(host: Host, server: Hostile, trick: Trick) -> None:
    server.tricks[".index"] = trick
    with pytest.raises((UntrustedError, UnavailableError)):
        host.ask("download")
    server.tricks.clear()
    assert Path(host.ask("download")["file"]).read_bytes() == NEW


def test_an_index_that_is_not_there_costs_only_bytes(host: Host, server: Hostile) -> None:
    server.tricks[".index"] = hostile.status(404)
    answer = host.ask("download")
    assert Path(answer["file"]).read_bytes() == NEW
    assert answer["fetched"] == len(NEW)


def test_only_what_is_missing_is_fetched(host: Host, server: Hostile) -> None:
    answer = host.ask("download")
    assert Path(answer["file"]).read_bytes() == NEW
    assert Path(answer["file"]).stat().st_mode & 0o777 == 0o755
    ranges = [wanted for path, wanted, _ in server.requests if path.endswith(".appliance")]
    assert len(ranges) == 1
    assert ranges[0].startswith("bytes=")
    assert 200_000 <= answer["fetched"] < 600_000


@pytest.mark.parametrize("cut", [1, 3, 50_000, 400_000])
def test_a_connection_lost_at_any_byte_is_gone_on_with(host: Host, server: Hostile, cut: int) -> None:
    """What was verified is not fetched again, in one run and over runs."""
    Path(host.layout.slots, "a/appliance").unlink()
    left = [3]

    def lose(exchange: hostile.Exchange) -> None:
        status, data, headers = exchange.body()
        if not left[0]:
            return exchange.good()
        left[0] -= 1
        exchange.head(status, len(data), **headers)
        exchange.write(data[:cut])
        exchange.handler.close_connection = True
        return None

    server.tricks[".appliance"] = lose
    answer = host.ask("download")
    assert Path(answer["file"]).read_bytes() == NEW
    assert answer["fetched"] < len(NEW) + 3 * min(cut, 300_000) + 50_000  # a chunk may be begun anew


def test_a_download_that_was_cut_off_is_not_begun_anew(host: Host, server: Hostile) -> None:
    Path(host.layout.slots, "a/appliance").unlink()
    half = len(NEW) // 2

    def stop(exchange: hostile.Exchange) -> None:
        span = exchange.span()
        if span is None or span[0] >= half:
            return exchange.status(500)
        status, data, headers = exchange.body()
        exchange.head(status, len(data), **headers)
        exchange.write(data[: half - span[0]])
        exchange.handler.close_connection = True
        return None

    server.tricks[".appliance"] = stop
    with pytest.raises(UnavailableError):
        host.ask("download")
    server.tricks.clear()
    answer = host.ask("download")
    assert Path(answer["file"]).read_bytes() == NEW
    assert answer["fetched"] < len(NEW) - half + 300_000  # the chunk that was cut, and its 256 KiB at most


def test_a_server_without_ranges_sends_all(host: Host, server: Hostile) -> None:
    def whole(exchange: hostile.Exchange) -> None:
        assert exchange.data is not None
        exchange.head(200, len(exchange.data))
        exchange.write(exchange.data)

    server.tricks[".appliance"] = whole
    assert Path(host.ask("download")["file"]).read_bytes() == NEW


def test_a_mirror_takes_over_and_the_bad_one_rests(host: Host, server: Hostile, repository: Publisher) -> None:
    with Hostile(repository.directory) as other:
        host.places = (Place(url=server.url), Place(url=other.url + "/"))
        for trick in (hostile.status(500), hostile.flipped, hostile.truncated, hostile.status(404)):
            Path(host.layout.update, "mirrors.json").unlink(missing_ok=True)
            server.tricks[".appliance"] = trick
            file = Path(host.ask("download")["file"])
            assert file.read_bytes() == NEW
            file.unlink()
        server.tricks.clear()
        server.tricks[""] = hostile.status(500)
        host.ask("refresh")
        server.requests.clear()
        other.requests.clear()
        host.ask("refresh")
        assert server.requests == []
        assert other.requests
        rests = json.loads(Path(host.layout.update, "mirrors.json").read_text())
        assert rests[server.url]["failures"] == 1
        assert "answers 500" in rests[server.url]["why"]


def test_a_mirror_that_lags_behind_is_passed_over(
    host: Host, server: Hostile, repository: Publisher, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(repository.directory, tmp_path / "lagging")
    repository.release("3.0.0", data=NEW + b"!")
    host.ask("refresh")
    with Hostile(tmp_path / "lagging") as lagging:
        host.places = (Place(url=lagging.url), Place(url=server.url))
        assert [offer["version"] for offer in host.ask("refresh")["offers"]] == ["3.0.0", "2.0.0"]


def test_a_name_that_is_none(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    host.places = (Place(url="http://nowhere.invalid"),)
    with pytest.raises(UnavailableError, match="its name cannot be resolved: Name or service not known"):
        host.ask("refresh")


def test_nobody_listens(host: Host) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host.places = (Place(url=f"http://127.0.0.1:{closed.getsockname()[1]}"),)
        with pytest.raises(UnavailableError, match="Connection refused"):
            host.ask("refresh")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(
    ("name", "trusted", "said"),
    [
        ("127.0.0.1", True, ""),
        ("other.example", True, "certificate is refused: IP address mismatch"),
        ("expired", True, "certificate is refused: certificate has expired"),
        ("127.0.0.1", False, "certificate is refused: .*issuer"),
    ],
)
def test_certificates(
    host: Host, repository: Publisher, authority: trustme.CA, tmp_path: Path, name: str, trusted: bool, said: str
) -> None:
    from datetime import UTC, datetime

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    expires = {"not_after": datetime(2001, 1, 1, tzinfo=UTC), "not_before": datetime(2000, 1, 1, tzinfo=UTC)}
    names = ("127.0.0.1",) if name == "expired" else (name,)
    authority.issue_cert(*names, **(expires if name == "expired" else {})).configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Hostile(repository.directory, tls=context) as server:
        access = Access(ca_file=str(tmp_path / "ca.pem") if trusted else "")
        host.places = (Place(url=server.url, access=access),)
        if not said:
            assert Path(host.ask("download")["file"]).read_bytes() == NEW
            return
        with pytest.raises(UnavailableError, match=said):
            host.ask("refresh")


def test_a_client_certificate(host: Host, repository: Publisher, authority: trustme.CA, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client = authority.issue_cert("host.example")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    with Hostile(repository.directory, tls=context) as server:
        access = Access(ca_file=str(tmp_path / "ca.pem"))
        host.places = (Place(url=server.url, access=access),)
        with pytest.raises(UnavailableError):
            host.ask("refresh")
        host.places = (Place(url=server.url, access=replace(access, client_certificate=str(tmp_path / "client.pem"))),)
        assert host.ask("refresh")["offers"]


def test_credentials_are_told_to_their_server_only(
    host: Host, server: Hostile, repository: Publisher, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "token").write_text("t0ken\n")
    with Hostile(repository.directory) as other:

        def lead_away(exchange: hostile.Exchange) -> None:
            exchange.head(302, 0, Location=other.url + exchange.handler.path)

        server.tricks[".appliance"] = lead_away
        for access, wanted in (
            (Access(user="me", password_file=str(tmp_path / "password")), "Basic bWU6czNjcmV0"),
            (Access(token_file=str(tmp_path / "token")), "Bearer t0ken"),
        ):
            server.requests.clear()
            host.places = (Place(url=server.url, access=access),)
            Path(host.ask("download")["file"]).unlink()
            assert {headers.get("Authorization") for _, _, headers in server.requests} == {wanted}
            assert {headers.get("Authorization") for _, _, headers in other.requests} == {None}


def test_a_proxy(host: Host, server: Hostile, repository: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for plain http is asked with the whole URL; no_proxy and "none" go past it."""
    with Hostile(repository.directory) as proxy:
        for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        host.places = (Place(url="http://repository.invalid", access=Access(proxy=proxy.url)),)
        assert host.ask("refresh")["offers"]
        assert {path.startswith("http://repository.invalid/") for path, _, _ in proxy.requests} == {True}
        monkeypatch.setenv("http_proxy", proxy.url)
        for access, through in ((Access(), True), (Access(proxy="none"), False)):
            proxy.requests.clear()
            host.places = (Place(url=server.url, access=access),)
            assert host.ask("refresh")["offers"]
            assert bool(proxy.requests) == through
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        proxy.requests.clear()
        host.places = (Place(url=server.url),)
        assert host.ask("refresh")["offers"]
        assert proxy.requests == []


def test_a_bandwidth_limit_is_kept(host: Host) -> None:
    import time

    Path(host.layout.slots, "a/appliance").unlink()
    host.rate_limit = 1_000_000
    begun = time.monotonic()
    host.ask("download", replace(LIMITS, rate_min=1.0))
    assert time.monotonic() - begun > 0.8 * len(NEW) / 1_000_000
