"""One test per attack on a host, with real metadata over real HTTP. Refused means: nothing on the host changed."""

from __future__ import annotations

import json
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import UnavailableError, UntrustedError
from appliance.host import clock
from appliance.host.layout import Layout
from appliance.host.slots import architecture
from appliance.release import Expiry, KeyRing, rotate, stage_file
from appliance.update import Repository, Task, work
from appliance.update.answer import parse_answer
from tests.update.conftest import Publisher, Server

DAY = 86400.0
NOW = clock.wall_seconds()


def ask(layout: Layout, repository: str, verb: str = "refresh", *, path: str = "", channel: str = "alpha") -> Any:
    answer = work(Task(layout=layout, verb=verb, repository=repository, channel=channel, path=path))
    return parse_answer(json.dumps(answer).encode())


def versions(layout: Layout, repository: str, channel: str = "alpha") -> list[str]:
    return [offer["version"] for offer in ask(layout, repository, channel=channel)["offers"]]


def path_of(version: str, channel: str = "alpha") -> str:
    return f"{channel}/{version}/{architecture()}/appliance"


def files_of(layout: Layout) -> dict[str, bytes]:
    """Everything of the host that an attacker would like to change."""
    metadata = Path(layout.update, "metadata")
    return {str(file): file.read_bytes() for file in metadata.rglob("*.json") if file.is_file()}


def test_http_file_urls_and_plain_directories(publisher: Publisher, layout: Layout, server: Server) -> None:
    data = publisher.release("1.0.0")
    publisher.release("2.0.0")
    for repository in (server.url, server.url + "/", f"file://{publisher.directory}", str(publisher.directory)):
        assert versions(layout, repository) == ["2.0.0", "1.0.0"]
        file = Path(ask(layout, repository, "download", path=path_of("1.0.0"))["file"])
        assert file.read_bytes() == data
        file.unlink()
    assert versions(layout, server.url, "stable") == []
    publisher.promote("1.0.0", "alpha", "stable")
    publisher.publish()
    assert versions(layout, server.url, "stable") == ["1.0.0"]


def test_a_check_that_finds_nothing_new_is_two_small_requests(
    publisher: Publisher, layout: Layout, server: Server
) -> None:
    publisher.release("1.0.0")
    versions(layout, server.url)
    server.requests.clear()
    versions(layout, server.url)
    assert [path for path, _ in server.requests] == ["/metadata/2.root.json", "/metadata/timestamp.json"]


def test_metadata_by_a_stranger_is_refused(publisher: Publisher, layout: Layout, tmp_path: Path) -> None:
    publisher.release("1.0.0")
    versions(layout, str(publisher.directory))
    stranger = Publisher(tmp_path / "theirs", tmp_path / "their-keys", tmp_path / "files")
    stranger.init()
    stranger.release("5.0.0")
    before = files_of(layout)
    with pytest.raises(UntrustedError, match="timestamp was signed by 0/1 keys"):
        ask(layout, str(stranger.directory))
    assert files_of(layout) == before


def test_a_release_signed_by_a_wrong_key_is_refused(publisher: Publisher, layout: Layout, tmp_path: Path) -> None:
    """Who holds the online keys only (the web server's) cannot make a release."""
    publisher.release("1.0.0")
    versions(layout, str(publisher.directory))
    wrong = KeyRing(str(tmp_path / "wrong"))
    wrong.make("alpha")
    (publisher.keys / "alpha.pem").rename(tmp_path / "alpha-kept.pem")
    shutil.copy(tmp_path / "wrong/alpha.pem", publisher.keys / "alpha.pem")
    publisher.add("5.0.0")
    with pytest.raises(Exception, match="1 of its 1 keys are needed"):
        publisher.publish()  # our publisher refuses; so forge it by hand
    forge(publisher, wrong)
    with pytest.raises(UntrustedError, match="alpha was signed by 0/1 keys"):
        ask(layout, str(publisher.directory))


def forge(publisher: Publisher, wrong: KeyRing) -> None:
    """Sign what is staged by a key that the delegation does not name, everything else as it should be."""
    from tuf.api.metadata import Metadata

    from appliance.release import committing
    from appliance.release.publishing import _put_target
    from appliance.release.repository import load
    from appliance.release.staging import staged_releases

    contents = load(str(publisher.directory))
    staged = [release for release in staged_releases(str(publisher.directory)) if _put_target(contents, release)]
    honest = committing.sign_role

    def sign(name: str, payload: Any, contents: Any, keys: KeyRing) -> bytes:
        if name != "alpha":
            return honest(name, payload, contents, keys)
        metadata = Metadata(payload)
        (signer,) = wrong.signers("alpha", wrong.names, 1)
        metadata.sign(signer)
        return metadata.to_bytes()

    committing.sign_role = sign
    try:
        committing.commit(contents, KeyRing(str(publisher.keys)), {"alpha"}, staged, expiry=Expiry(), now=NOW)
    finally:
        committing.sign_role = honest


def test_a_flipped_byte_is_refused_and_left_nowhere(publisher: Publisher, layout: Layout, server: Server) -> None:
    publisher.release("6.0.0")
    server.lies[".appliance"] = lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:]
    with pytest.raises(UntrustedError, match="damaged or tampered with"):
        ask(layout, server.url, "download", path=path_of("6.0.0"))
    assert list(Path(layout.update, "download").iterdir()) == []


def test_a_flipped_byte_in_the_metadata_is_refused(publisher: Publisher, layout: Layout, server: Server) -> None:
    publisher.release("6.0.0")
    for name in ("timestamp.json", "snapshot.json", "targets.json", "alpha.json"):
        server.lies = {name: lambda data: data.replace(b'"version":', b'"version": ', 1).replace(b"2", b"3", 1)}
        with pytest.raises(UntrustedError):
            ask(layout, server.url)
    server.lies.clear()
    assert versions(layout, server.url) == ["6.0.0"]


def test_a_truncated_file_is_not_taken_and_its_start_is_kept(
    publisher: Publisher, layout: Layout, server: Server
) -> None:
    data = publisher.release("6.0.0")
    server.lies[".appliance"] = lambda data: data[:1000]
    with pytest.raises(UnavailableError, match="ended after 1000 of"):
        ask(layout, server.url, "download", path=path_of("6.0.0"))
    server.lies.clear()
    server.requests.clear()
    file = Path(ask(layout, server.url, "download", path=path_of("6.0.0"))["file"])
    assert file.read_bytes() == data
    assert server.requests[-1][1] == "bytes=1000-"


def test_truncated_metadata_is_refused(publisher: Publisher, layout: Layout, server: Server) -> None:
    publisher.release("6.0.0")
    server.lies["timestamp.json"] = lambda data: data[:-20]
    with pytest.raises(UntrustedError):
        ask(layout, server.url)


def test_endless_data_is_refused(publisher: Publisher, layout: Layout, server: Server) -> None:
    publisher.release("6.0.0")
    server.lies["timestamp.json"] = lambda data: data + b" " * 20_000
    with pytest.raises(UntrustedError, match="longer than the 16384 bytes"):
        ask(layout, server.url)
    server.lies = {".appliance": lambda data: data + b"more" * 1_000_000}
    with pytest.raises(UntrustedError, match="longer than the"):
        ask(layout, server.url, "download", path=path_of("6.0.0"))
    assert list(Path(layout.update, "download").iterdir()) == []


def test_a_captive_portal_and_redirects(publisher: Publisher, layout: Layout, server: Server) -> None:
    publisher.release("1.0.0")
    server.lies = {".json": lambda _: b"<html><h1>Please log in</h1></html>"}
    with pytest.raises(UntrustedError, match=r"2\.root\.json is damaged or no metadata: Expecting value"):
        ask(layout, server.url)
    server.lies = {".json": lambda _: 302}  # to nowhere
    with pytest.raises(UnavailableError, match="the server answers 302"):
        ask(layout, server.url)
    server.lies = {".json": lambda _: 503}
    with pytest.raises(UnavailableError, match="the server answers 503"):
        ask(layout, server.url)
    server.lies.clear()
    server.redirect = "/elsewhere"
    assert versions(layout, server.url) == ["1.0.0"]
    server.redirect = "/redirect"  # for ever
    with pytest.raises(UnavailableError, match=r"[Rr]edirect"):
        ask(layout, server.url)


@pytest.mark.parametrize("year", [1970, 2099])
def test_a_clock_that_is_wrong_does_no_lasting_harm(
    publisher: Publisher, layout: Layout, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    publisher.release("1.0.0")
    assert versions(layout, str(publisher.directory)) == ["1.0.0"]
    wrong = datetime(year, 1, 2, tzinfo=UTC).timestamp()
    with monkeypatch.context() as patch:
        patch.setattr(clock, "wall_seconds", lambda: wrong)
        if year == 1970:  # the last time known is later
            assert versions(layout, str(publisher.directory)) == ["1.0.0"]
        else:
            with pytest.raises(UntrustedError, match=r"the clock here says 2099-01-02T.* or this clock is wrong"):
                ask(layout, str(publisher.directory))
    assert versions(layout, str(publisher.directory)) == ["1.0.0"]


def test_an_expired_timestamp_is_refused(publisher: Publisher, layout: Layout, server: Server) -> None:
    """A freeze: the server keeps telling yesterday's truth."""
    publisher.release("1.0.0")
    publisher.publish(expiry=Expiry(timestamp=DAY), now=1e9)
    with pytest.raises(UntrustedError, match=r"timestamp\.json is expired"):
        ask(layout, server.url)
    publisher.publish()
    assert versions(layout, server.url) == ["1.0.0"]


@pytest.mark.parametrize("role", ["root", "targets", "channel", "snapshot"])
def test_any_expired_role_is_refused(publisher: Publisher, layout: Layout, role: str) -> None:
    publisher.release("1.0.0")
    repository = Repository(
        repository=str(publisher.directory), trust_root=publisher.trust_root,
        directory=layout.update + "/metadata", now=2e9,
    )  # fmt: skip
    publisher.publish(expiry=Expiry(**{"root": 1e9, "targets": 1e9, "channel": 1e9, "snapshot": 1e9, "timestamp": 1e9}))
    # The publisher's clock is at 2e9 - 1000 days, and only this role was given less than that.
    other = {name: 1e9 for name in ("root", "targets", "channel", "snapshot", "timestamp") if name != role}
    publisher.add("2.0.0")
    publisher.publish(expiry=Expiry(**other, **{role: DAY}), now=2e9 - 1000 * DAY)

    def ask_all() -> None:
        repository.refresh()
        repository.offers("alpha", architecture())

    with pytest.raises(UntrustedError, match="expired"):
        ask_all()


def old_copy(publisher: Publisher, tmp_path: Path) -> Path:
    copy = tmp_path / "old"
    shutil.copytree(publisher.directory, copy)
    return copy


def test_an_older_timestamp_is_refused(publisher: Publisher, layout: Layout, tmp_path: Path) -> None:
    publisher.release("1.0.0")
    old = old_copy(publisher, tmp_path)
    publisher.release("2.0.0")
    assert versions(layout, str(publisher.directory)) == ["2.0.0", "1.0.0"]
    with pytest.raises(UntrustedError, match="timestamp version 2 must be >= 3"):
        ask(layout, str(old))


def test_an_older_snapshot_under_a_newer_timestamp_is_refused(
    publisher: Publisher, layout: Layout, server: Server
) -> None:
    publisher.release("1.0.0")
    old = (publisher.directory / "metadata/2.snapshot.json").read_bytes()
    publisher.release("2.0.0")
    server.lies["3.snapshot.json"] = lambda data: old
    with pytest.raises(UntrustedError):
        ask(layout, server.url)


def test_mix_and_match_is_refused(publisher: Publisher, layout: Layout, server: Server) -> None:
    """A channel's older metadata under a newer snapshot: each well signed, never published together."""
    publisher.release("1.0.0")
    old = (publisher.directory / "metadata/2.alpha.json").read_bytes()
    publisher.release("2.0.0")
    server.lies["3.alpha.json"] = lambda data: old
    with pytest.raises(UntrustedError):
        ask(layout, server.url)


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_a_lost_cache_does_not_open_the_door_to_a_rollback(
    publisher: Publisher, layout: Layout, tmp_path: Path, damage: str
) -> None:
    publisher.release("1.0.0")
    old = old_copy(publisher, tmp_path)
    publisher.release("2.0.0")
    versions(layout, str(publisher.directory))
    for file in Path(layout.update, "metadata").glob("*.json"):
        if not file.name.startswith("seen"):
            file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UntrustedError, match="rollback"):
        ask(layout, str(old))
    assert versions(layout, str(publisher.directory)) == ["2.0.0", "1.0.0"]


def test_the_clock_going_back_does_not_revive_what_expired(publisher: Publisher, layout: Layout) -> None:
    now = 2e9
    publisher.add("1.0.0")
    publisher.publish(expiry=Expiry(timestamp=DAY), now=now)

    def refresh(clock: float) -> None:
        repository = Repository(
            repository=str(publisher.directory), trust_root=publisher.trust_root,
            directory=layout.update + "/metadata", now=clock,
        )  # fmt: skip
        repository.refresh()
        repository.offers("alpha", architecture())

    refresh(0.0)  # a host that starts in 1970 and was never anywhere can only believe what is signed
    refresh(now)
    publisher.publish(expiry=Expiry(timestamp=DAY), now=now - 5 * DAY)  # expired by the time that we know it is
    with pytest.raises(UntrustedError, match="expired"):
        refresh(0.0)


def test_keys_are_rotated(publisher: Publisher, layout: Layout, server: Server) -> None:
    publisher.release("1.0.0")
    versions(layout, server.url)
    ring = KeyRing(str(publisher.keys))
    for name in ("timestamp", "snapshot", "alpha", "targets", "root-1"):
        rotate(str(publisher.directory), ring, name)
        (publisher.keys / f"{name}.pem").unlink()
        ring = KeyRing(str(publisher.keys))
    assert versions(layout, server.url) == ["1.0.0"]
    publisher.release("2.0.0")
    assert versions(layout, server.url) == ["2.0.0", "1.0.0"]


def test_a_channel_cannot_speak_for_another(publisher: Publisher, layout: Layout, tmp_path: Path) -> None:
    """alpha's key signs a target below stable/: no host takes it."""
    from tuf.api.metadata import TargetFile

    from appliance.release.committing import commit
    from appliance.release.repository import load

    publisher.release("1.0.0")
    contents = load(str(publisher.directory))
    path = path_of("9.0.0", "stable")
    custom = {"product": "appliance", "kind": "binary", "version": "9.0.0", "architecture": architecture()}
    contents.channels["alpha"].targets[path] = TargetFile(5, {"sha256": "f" * 64}, path, {"custom": custom})
    commit(contents, KeyRing(str(publisher.keys)), {"alpha"}, expiry=Expiry(), now=NOW)
    assert versions(layout, str(publisher.directory)) == ["1.0.0"]
    assert versions(layout, str(publisher.directory), "stable") == []


def test_no_server_no_file_no_trust_root_are_said_plainly(
    publisher: Publisher, layout: Layout, server: Server
) -> None:
    publisher.release("1.0.0")
    with pytest.raises(UnavailableError, match="cannot fetch"):
        ask(layout, "http://127.0.0.1:1")
    server.lies["timestamp.json"] = lambda data: 503
    with pytest.raises(UnavailableError, match="answers 503"):
        ask(layout, server.url)
    server.lies = {".appliance": lambda data: 404}
    with pytest.raises(Exception, match="answers 404"):
        ask(layout, server.url, "download", path=path_of("1.0.0"))
    with pytest.raises(UnavailableError, match=r"timestamp\.json"):
        ask(layout, "/no/such/stick")
    Path(layout.trust_root).unlink()
    with pytest.raises(Exception, match=r"trust/root\.json"):
        ask(layout, server.url)


def test_a_download_goes_on_where_the_connection_was_lost(
    publisher: Publisher, layout: Layout, server: Server
) -> None:
    """Of what has no index: from the byte on. ``test_download`` is about what has one."""
    data = publisher.release("1.0.0", data=random.Random(1).randbytes(250_000))
    server.cut_after = 70_000
    for _ in range(2):
        with pytest.raises(UnavailableError):
            ask(layout, server.url, "download", path=path_of("1.0.0"))
    server.cut_after = None
    file = Path(ask(layout, server.url, "download", path=path_of("1.0.0"))["file"])
    assert file.read_bytes() == data
    ranges = [wanted for path, wanted in server.requests if path.endswith(".appliance")]
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=")
    assert int(ranges[2].removeprefix("bytes=").rstrip("-")) > int(ranges[1].removeprefix("bytes=").rstrip("-"))


def test_a_server_without_ranges_and_a_rotten_start(publisher: Publisher, layout: Layout, server: Server) -> None:
    data = publisher.release("1.0.0")
    answer = ask(layout, server.url, "download", path=path_of("1.0.0"))
    file = Path(answer["file"])
    partial = Path(str(file) + ".partial")
    for start in (data[:500], b"rotten" * 100, data + b"too long", data[:-1] + b"?"):
        for server.ranges in (True, False):
            file.unlink(missing_ok=True)
            partial.write_bytes(start)
            assert ask(layout, server.url, "download", path=path_of("1.0.0"))["file"] == answer["file"]
            assert file.read_bytes() == data
            assert not partial.exists()


def test_two_workers_do_not_meet(publisher: Publisher, layout: Layout) -> None:
    from appliance.host import files

    publisher.release("1.0.0")
    lock = files.lock(layout.update + "/lock")
    try:
        answer = work(Task(layout=layout, verb="refresh", repository=str(publisher.directory), channel="alpha"))
        assert answer["kind"] == "conflict"
    finally:
        lock.release()


def test_another_repository_with_other_keys(tmp_path: Path, publisher: Publisher, layout: Layout) -> None:
    """Moving to another publisher is a new trust root; what was seen of the old one does not stand in the way."""
    publisher.release("1.0.0")
    publisher.release("2.0.0")
    versions(layout, str(publisher.directory))
    other = Publisher(tmp_path / "other", tmp_path / "other-keys", tmp_path / "files")
    other.init()
    other.release("7.0.0")
    Path(layout.trust_root).write_bytes(other.trust_root)
    assert versions(layout, str(other.directory)) == ["7.0.0"]


def test_a_password_in_the_url_is_never_repeated(layout: Layout) -> None:
    answer = work(Task(layout=layout, verb="refresh", repository="http://me:secret@127.0.0.1:1", channel="alpha"))
    assert answer["kind"] == "unavailable"
    assert "secret" not in json.dumps(answer)


def test_stage_needs_a_repository(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="it is no repository"):
        stage_file(str(tmp_path), __file__, channel="alpha", architecture="x", version="1.0")


def test_the_worker_never_loads_the_default_fetcher() -> None:
    import subprocess
    import sys

    code = "import appliance.update.trust, sys; print('urllib3' in sys.modules, 'requests' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]

