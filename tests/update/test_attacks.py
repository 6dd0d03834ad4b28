"""A hostile repository, attack by attack, with real metadata over real HTTP. Refused: nothing on the host has changed.

``test_trust`` has the plain ones (rollback, freeze, mixtures, wrong keys, endless data); here are roots, thresholds,
slow servers, and clocks. python-tuf's own RepositorySimulator was the model.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Root

from appliance.errors import ApplianceError, UnavailableError, UntrustedError
from appliance.host import clock
from appliance.host.access import Limits
from appliance.host.layout import Layout
from appliance.host.slots import architecture
from appliance.release import Expiry, KeyRing, add_role_key, load, rotate
from appliance.release.committing import commit
from appliance.update import Repository, Task, work
from appliance.update.transport import Place, Transport
from appliance.version import built_seconds
from tests.update.conftest import Publisher, Server
from tests.update.test_trust import ask, files_of, versions

DAY = 86400.0


ORDER = ("timestamp", "snapshot", "targets", "alpha")  # in which they are verified


@contextmanager
def refused(
    layout: Layout, match: str, kind: type[ApplianceError] = UntrustedError, *, honest: tuple[str, ...] = ()
) -> Iterator[None]:
    """The error, and not one byte of what the host believes has changed.

    But for roots, which are chained, and ``honest`` roles: verified before the one that is refused, and kept (5.4.5).
    """
    known = ("root", *honest)

    def believed() -> dict[str, bytes]:
        return {name: data for name, data in files_of(layout).items() if Path(name).name.split(".")[-2] not in known}

    before = believed()
    with pytest.raises(kind, match=match):
        yield
    assert believed() == before


def roots(publisher: Publisher, *keys: str) -> KeyRing:
    """Rotate these keys, one root after the other."""
    ring = KeyRing(str(publisher.keys))
    for name in keys:
        rotate(str(publisher.directory), ring, name)
        ring = KeyRing(str(publisher.keys))
    return ring


def test_a_root_cannot_be_skipped(publisher: Publisher, layout: Layout, server: Server) -> None:
    """2.root.json is kept from the host, 3.root.json is given in its place: well signed by keys it does not know."""
    publisher.release("1.0.0")
    versions(layout, server.url)
    roots(publisher, "root-1", "root_2")
    third = (publisher.directory / "metadata/3.root.json").read_bytes()
    server.lies["/2.root.json"] = lambda _: third
    with refused(layout, "root"):
        ask(layout, server.url)
    server.lies.clear()
    assert versions(layout, server.url) == ["1.0.0"]


def test_a_root_by_the_old_keys_alone_or_the_new_alone_is_refused(
    publisher: Publisher, layout: Layout, server: Server
) -> None:
    publisher.release("1.0.0")
    versions(layout, server.url)
    roots(publisher, "root-1")
    path = publisher.directory / "metadata/2.root.json"
    honest = Metadata[Root].from_bytes(path.read_bytes())
    assert len(honest.signatures) == 2
    for keyid in list(honest.signatures):
        half = Metadata[Root].from_bytes(path.read_bytes())
        del half.signatures[keyid]
        server.lies["/2.root.json"] = lambda _, half=half: half.to_bytes()  # type: ignore[misc]
        with refused(layout, "root was signed by 0/1 keys"):
            ask(layout, server.url)
    server.lies.clear()
    assert versions(layout, server.url) == ["1.0.0"]


def test_one_key_signs_once(tmp_path: Path) -> None:
    """A threshold of two of three is not met by one key, however often it signs, nor by strangers beside it."""
    (tmp_path / "files").mkdir()
    publisher = Publisher(tmp_path / "repository", tmp_path / "keys", tmp_path / "files")
    publisher.init(root_keys=3, threshold=2)
    layout = Layout(str(tmp_path / "host"))
    Path(layout.trust_root).parent.mkdir(parents=True)
    Path(layout.trust_root).write_bytes(publisher.trust_root)
    publisher.release("1.0.0")
    roots(publisher, "timestamp")
    path = publisher.directory / "metadata/2.root.json"
    metadata = Metadata[Root].from_bytes(path.read_bytes())
    one, two, *_ = metadata.signed.roles["root"].keyids
    for keyid in [keyid for keyid in metadata.signatures if keyid != one]:
        del metadata.signatures[keyid]
    stranger = KeyRing(str(tmp_path / "stranger"))
    (signer,) = stranger.signers("root", [stranger.make("x").keyid], 1)
    metadata.sign(signer, append=True)
    metadata.signatures[two] = Signature(two, metadata.signatures[one].signature)  # the same under another name
    path.write_bytes(metadata.to_bytes())
    with pytest.raises(UntrustedError, match="root was signed by 1/2 keys"):
        ask(layout, str(publisher.directory))


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "alpha"])
def test_a_threshold_that_is_not_met_is_refused(
    publisher: Publisher, layout: Layout, server: Server, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of two keys for each role; metadata with one of the signatures only."""
    directory = str(publisher.directory)
    ring = KeyRing(str(publisher.keys))
    add_role_key(directory, ring, role, f"{role}_2", lambda: ring.make(f"{role}_2"), threshold=2)
    publisher.release("1.0.0")
    assert versions(layout, server.url) == ["1.0.0"]
    import appliance.release.committing as committing

    honest = committing.sign_role

    def half(name: str, payload: Any, contents: Any, keys: KeyRing) -> bytes:
        data = honest(name, payload, contents, keys)
        if name != role:
            return data
        metadata = Metadata.from_bytes(data)
        metadata.signatures.popitem()
        return metadata.to_bytes()

    monkeypatch.setattr(committing, "sign_role", half)
    commit(
        load(directory), KeyRing(str(publisher.keys)), {"targets", "alpha"}, expiry=Expiry(), now=clock.wall_seconds()
    )
    seen = ("seen", "seen-copy") if role == "alpha" else ()  # all that comes before a channel was good
    with refused(layout, f"{role} was signed by 1/2 keys", honest=(*ORDER[: ORDER.index(role)], *seen)):
        ask(layout, server.url)


def test_the_keys_of_one_channel_do_not_sign_another(publisher: Publisher, layout: Layout, server: Server) -> None:
    """Who stole alpha's key signs stable's metadata with it."""
    publisher.release("1.0.0")
    publisher.promote("1.0.0", "alpha", "stable")
    publisher.publish()
    contents = load(str(publisher.directory))
    version = contents.channels["stable"].version
    forged = Metadata(contents.channels["stable"])
    ring = KeyRing(str(publisher.keys))
    (signer,) = ring.signers("alpha", contents.role("alpha").keyids, 1)
    forged.sign(signer)
    server.lies[f"/{version}.stable.json"] = lambda _: forged.to_bytes()
    with pytest.raises(UntrustedError):
        ask(layout, server.url, channel="stable")
    assert versions(layout, server.url, "alpha") == ["1.0.0"]


def test_endless_roots_end(publisher: Publisher, layout: Layout, server: Server) -> None:
    """Each root must be new and signed: a server that repeats one is refused at once, not followed for ever."""
    publisher.release("1.0.0")
    roots(publisher, "timestamp")
    second = (publisher.directory / "metadata/2.root.json").read_bytes()
    server.lies[".root.json"] = lambda _: second
    with pytest.raises(UntrustedError):
        ask(layout, server.url)
    assert len([path for path, _ in server.requests if "root" in path]) < 4


@pytest.mark.parametrize("name", ["/2.root.json", "timestamp.json", "snapshot.json", "targets.json", "alpha.json"])
def test_endless_metadata_of_every_role_is_cut_off(
    publisher: Publisher, layout: Layout, server: Server, name: str
) -> None:
    publisher.release("1.0.0")
    server.lies[name] = lambda data: data + b" " * 6_000_000
    with pytest.raises(UntrustedError, match="longer than the"):
        ask(layout, server.url)


def test_a_server_that_gives_a_byte_at_a_time_is_left(publisher: Publisher, layout: Layout) -> None:
    """Slow retrieval: it never stops sending, so no timeout between bytes would end it."""
    publisher.release("1.0.0")
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            while not ended.is_set():
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(65536)
                    try:
                        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
                        while not ended.wait(0.05):
                            peer.sendall(b" ")
                    except OSError:
                        continue

        server = threading.Thread(target=drip)
        server.start()
        try:
            limits = Limits(idle=30.0, rate_min=1000.0, window=0.5)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            begin = time.monotonic()
            answer = work(Task(layout=layout, verb="refresh", channel="alpha",
                               transport=Transport(places=(Place(url=url),), limits=limits)))  # fmt: skip
            assert answer["kind"] == "unavailable", answer
            assert time.monotonic() - begin < 60
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            server.join()


def test_versions_run_to_the_end_are_forgiven_with_new_keys(
    publisher: Publisher, layout: Layout, server: Server
) -> None:
    """Fast-forward: stolen online keys sign version 2147483647. The publisher replaces the keys, and hosts go on."""
    publisher.release("1.0.0")
    honest = load(str(publisher.directory))
    stolen = load(str(publisher.directory))
    stolen.snapshot.version = stolen.timestamp.version = 2**31 - 2
    commit(stolen, KeyRing(str(publisher.keys)), set(), expiry=Expiry(), now=clock.wall_seconds())
    assert versions(layout, server.url) == ["1.0.0"]
    honest_timestamp = Metadata(honest.timestamp)
    ring = KeyRing(str(publisher.keys))
    for signer in ring.signers("timestamp", honest.role("timestamp").keyids, 1):
        honest_timestamp.sign(signer)
    (publisher.directory / "metadata/timestamp.json").write_bytes(honest_timestamp.to_bytes())
    with refused(layout, "rollback"):
        ask(layout, server.url)
    for name in ("timestamp", "snapshot"):
        rotate(str(publisher.directory), KeyRing(str(publisher.keys)), name)
        (publisher.keys / f"{name}.pem").unlink()
    publisher.release("2.0.0")
    assert versions(layout, server.url) == ["2.0.0", "1.0.0"]


# --- clocks ---


def host(publisher: Publisher, layout: Layout, now: float, floor: float | None = None) -> Repository:
    made = Repository(
        repository=str(publisher.directory), trust_root=publisher.trust_root, directory=layout.update + "/metadata",
        now=now, floor=floor,
    )  # fmt: skip
    made.refresh()
    made.offers("alpha", architecture())
    return made


def test_1970_on_first_contact_believes_nothing_that_expired_before_the_binary_was_made(
    publisher: Publisher, layout: Layout
) -> None:
    made = built_seconds()
    publisher.add("1.0.0")
    publisher.publish(expiry=Expiry(timestamp=DAY), now=made - 30 * DAY)
    with pytest.raises(UntrustedError, match=r"timestamp\.json is expired.*1970-01-01.*the last time known"):
        host(publisher, layout, 60.0)
    publisher.publish(expiry=Expiry(timestamp=DAY), now=made + DAY)  # and it is no brick: what is new is taken
    found = host(publisher, layout, 60.0)
    assert [offer.version for offer in found.offers("alpha", architecture())] == ["1.0.0"]
    assert "the clock here says 1970-01-01T00:01:00Z, but it is at least" in found.clock_problem


def test_1970_after_a_good_day_keeps_that_day(publisher: Publisher, layout: Layout) -> None:
    today = clock.wall_seconds() + 100 * DAY
    publisher.add("1.0.0")
    publisher.publish(now=today)
    assert host(publisher, layout, today).clock_problem == ""
    publisher.publish(expiry=Expiry(timestamp=DAY), now=today - 10 * DAY)
    with pytest.raises(UntrustedError, match="expired"):  # frozen ten days ago
        host(publisher, layout, 60.0)
    publisher.publish(expiry=Expiry(timestamp=DAY), now=today + DAY)
    host(publisher, layout, 60.0)


def test_a_year_ahead_takes_nothing_says_so_and_leaves_no_mark(publisher: Publisher, layout: Layout) -> None:
    today = clock.wall_seconds()
    publisher.release("1.0.0")
    host(publisher, layout, today)
    seen = Path(layout.update, "metadata/seen.json").read_bytes()
    ahead = datetime.fromtimestamp(today, UTC) + timedelta(days=370)
    with pytest.raises(UntrustedError) as caught:
        host(publisher, layout, ahead.timestamp())
    for said in ("is expired", f"the clock here says {ahead:%Y-%m-%d}", "this clock is wrong (timedatectl",
                 "The running version goes on"):  # fmt: skip
        assert said in str(caught.value)
    assert Path(layout.update, "metadata/seen.json").read_bytes() == seen
    publisher.release("2.0.0")
    found = host(publisher, layout, today + 60)  # set right
    assert {offer.version for offer in found.offers("alpha", architecture())} == {"2.0.0", "1.0.0"}


@pytest.mark.parametrize("days", [1, 10, 29])
def test_a_clock_that_is_somewhat_ahead_is_kept_only_as_far_as_what_was_valid(
    publisher: Publisher, layout: Layout, days: int
) -> None:
    """The worst case: everything is still valid at the wrong time, so that is kept. It locks nobody out."""
    today = clock.wall_seconds()
    publisher.release("1.0.0")
    host(publisher, layout, today + days * DAY)
    host(publisher, layout, today)  # what was valid then still is
    publisher.release("2.0.0")
    found = host(publisher, layout, today)
    assert len(found.offers("alpha", architecture())) == 2


def test_a_channel_that_expires_first_does_not_move_the_clock(publisher: Publisher, layout: Layout) -> None:
    """All but alpha is valid in twenty days: a host that is so far ahead keeps nothing of that time."""
    today = clock.wall_seconds()
    publisher.add("1.0.0")
    publisher.publish(expiry=Expiry(channel=10 * DAY))
    host(publisher, layout, today)
    with pytest.raises(UntrustedError, match="alpha"):
        host(publisher, layout, today + 20 * DAY)
    host(publisher, layout, today)


def test_the_publishers_clock_is_not_before_its_binary(
    publisher: Publisher, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher that starts in 1970 would sign what has expired already, and lock out every host."""
    real = clock.wall_seconds()
    monkeypatch.setattr(clock, "wall_seconds", lambda: 60.0)
    publisher.release("1.0.0")
    monkeypatch.setattr(clock, "wall_seconds", lambda: min(real, built_seconds() + DAY))
    assert versions(layout, str(publisher.directory)) == ["1.0.0"]


def test_nothing_of_a_refused_repository_stays(publisher: Publisher, layout: Layout, tmp_path: Path) -> None:
    """A mirror of another publisher, then ours again."""
    publisher.release("1.0.0")
    other = Publisher(tmp_path / "other", tmp_path / "other-keys", tmp_path / "files")
    other.init()
    other.release("9.0.0")
    with pytest.raises(UntrustedError):
        ask(layout, str(other.directory))
    assert versions(layout, str(publisher.directory)) == ["1.0.0"]
    shutil.rmtree(other.directory)
    with pytest.raises(UnavailableError):
        ask(layout, str(other.directory))
