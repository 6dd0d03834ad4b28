"""Where a payload may come from: a stick, one exported file, a packed release, any file server; and the settings."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import InputError, NotFoundError, UnavailableError, UntrustedError
from appliance.host.layout import Layout
from appliance.host.slots import architecture
from appliance.release import KeyRing, export, publish, stage_file, stage_promotion, verify
from appliance.schema import read
from appliance.update import UpdateSettings
from appliance.update.mirrors import WAIT_FIRST, WAIT_MAX, Rest, after_failure, order
from appliance.update.transport import format_transport, parse_transport, transport_of
from tests.update.conftest import Publisher
from tests.update.test_trust import ask

TEXT = b"".join(f"line {number} of a file that is not compressed\n".encode() for number in range(40_000))


def path_of(version: str, channel: str = "alpha") -> str:
    return f"{channel}/{version}/{architecture()}/appliance"


def release_packed(publisher: Publisher, version: str, data: bytes) -> None:
    file = publisher.files / version
    file.write_bytes(data)
    stage_file(str(publisher.directory), str(file), channel="alpha", architecture=architecture(), version=version,
               packed=True)  # fmt: skip
    publish(str(publisher.directory), KeyRing(str(publisher.keys)))


def test_a_packed_release_is_smaller_and_can_be_promoted(publisher: Publisher, layout: Layout, tmp_path: Path) -> None:
    release_packed(publisher, "1.0.0", TEXT)
    stage_promotion(str(publisher.directory), "1.0.0", "alpha", "beta")
    publisher.publish()
    for channel in ("alpha", "beta"):
        answer = ask(layout, str(publisher.directory), "download", path=path_of("1.0.0", channel), channel=channel)
        assert Path(answer["file"]).read_bytes() == TEXT
        assert answer["fetched"] < len(TEXT) // 4
        Path(answer["file"]).unlink()
    (tmp_path / "scratch").mkdir()
    trust = str(publisher.directory / "metadata/1.root.json")
    assert len(verify(str(publisher.directory), trust_root=trust, scratch=str(tmp_path / "scratch"))) == 2
    (pack,) = publisher.directory.glob("targets/alpha/1.0.0/*/*.pack")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    with pytest.raises(UntrustedError, match="damaged or tampered with"):
        ask(layout, str(publisher.directory), "download", path=path_of("1.0.0"))


def test_one_exported_file_is_verified_as_ever(publisher: Publisher, layout: Layout, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(600_000)
    publisher.release("1.0.0", data=data)
    publisher.release("2.0.0", data=data + b"more")
    rehearsed = export(str(publisher.directory), str(tmp_path / "one.tar"), channels=("alpha",), dry_run=True)
    assert not (tmp_path / "one.tar").exists()
    told = export(str(publisher.directory), str(tmp_path / "one.tar"), channels=("alpha",))
    assert rehearsed["exported"] == told["exported"]
    assert [one["version"] for one in told["exported"]] == ["2.0.0"]
    assert told["length"] < 1_000_000
    answer = ask(layout, str(tmp_path / "one.tar"), "download", path=path_of("2.0.0"))
    assert Path(answer["file"]).read_bytes() == data + b"more"
    assert ask(layout, f"file://{tmp_path}/one.tar")["offers"]
    archive = bytearray((tmp_path / "one.tar").read_bytes())
    at = archive.index(data[300_000:300_100])
    archive[at] ^= 1
    (tmp_path / "bad.tar").write_bytes(archive)
    Path(answer["file"]).unlink()
    with pytest.raises(UntrustedError):
        ask(layout, str(tmp_path / "bad.tar"), "download", path=path_of("2.0.0"))
    with pytest.raises(NotFoundError):
        ask(layout, str(tmp_path / "one.tar"), "download", path=path_of("1.0.0"))
    (tmp_path / "no.tar").write_bytes(data)
    with pytest.raises(InputError, match="no exported repository"):
        ask(layout, str(tmp_path / "no.tar"))
    with pytest.raises(NotFoundError, match="holds no release in stable"):
        export(str(publisher.directory), str(tmp_path / "none.tar"), channels=("stable",))
    publisher.target("2.0.0").unlink()
    with pytest.raises(NotFoundError, match=r"cannot export alpha 2\.0\.0: its bytes are not in"):
        export(str(publisher.directory), str(tmp_path / "lost.tar"))
    assert not (tmp_path / "lost.tar").exists()


def test_a_directory_whose_name_is_odd(publisher: Publisher, layout: Layout, tmp_path: Path) -> None:
    publisher.release("1.0.0")
    (tmp_path / "a b%41").symlink_to(publisher.directory)
    for name in (f"{tmp_path}/a b%41", f"file://{tmp_path}/a%20b%2541", f"file://localhost{tmp_path}/a%20b%2541"):
        assert ask(layout, name)["offers"]
    with pytest.raises(InputError, match="stick is another host"):
        ask(layout, "file://stick/repository")


@contextlib.contextmanager
def python_server(directory: Path) -> Iterator[str]:
    """``python -m http.server``: no ranges."""
    argv = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(directory)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        try:
            yield "http://127.0.0.1:" + child.stdout.readline().split("port ")[1].split()[0]
        finally:
            child.terminate()


def test_pythons_own_server(publisher: Publisher, layout: Layout) -> None:
    data = random.Random(4).randbytes(700_000)
    publisher.release("1.0.0+build.7", data=data)
    slot = Path(layout.slots, "b/appliance")
    slot.parent.mkdir(parents=True)
    slot.write_bytes(data[:400_000])
    with python_server(publisher.directory) as url:
        answer = ask(layout, url, "download", path=path_of("1.0.0+build.7"))
    assert Path(answer["file"]).read_bytes() == data


def test_a_disk_that_gets_full(publisher: Publisher, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.host import slots

    data = random.Random(5).randbytes(900_000)
    publisher.release("1.0.0", data=data)
    honest, room = slots.os.pwrite, [400_000]

    def pwrite(fd: int, piece: bytes, offset: int) -> int:
        room[0] -= len(piece)
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        return honest(fd, piece, offset)

    monkeypatch.setattr(slots.os, "pwrite", pwrite)
    with pytest.raises(UnavailableError, match="No space left on device"):
        ask(layout, str(publisher.directory), "download", path=path_of("1.0.0"))
    room[0] = 1 << 40
    answer = ask(layout, str(publisher.directory), "download", path=path_of("1.0.0"))
    assert Path(answer["file"]).read_bytes() == data
    assert answer["fetched"] < 900_000  # what was written before counts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('proxy = "socks5://x:1"', "http://host:port"),
        ('ca_file = "relative.pem"', "absolute path"),
        ('token_file = "/t"\nuser = "me"', "together with user"),
        ('password_file = "/p"', "needs user"),
        ('client_key = "/k"', "needs client_certificate"),
        ('rate_limit = "1K"', "at least 8K"),
        ('[[mirror]]\nurl = "ftp://x"', "http(s)://"),
        ('[[mirror]]\nproxy = "none"', "url"),
        ('[[mirror]]\nurl = "https://x"\ntokenfile = "/t"', "token_file"),
    ],
)
def test_settings_say_what_is_wrong(text: str, said: str) -> None:
    document = read(text, "update.toml", UpdateSettings)
    assert document.value is None
    assert said in "\n".join(map(str, document.findings))


def test_settings_of_mirrors() -> None:
    text = """
repository = "https://updates.example.org/appliance"
proxy = "http://proxy.example:3128"
rate_limit = "2M"
[[mirror]]
url = "https://mirror.example.org/appliance"
token_file = "/etc/appliance/mirror.token"
[[mirror]]
url = "file:///media/mirror"
"""
    value = read(text, "update.toml", UpdateSettings).value
    assert value is not None
    transport = transport_of(value)
    assert [place.url for place in transport.places] == [
        "https://updates.example.org/appliance", "https://mirror.example.org/appliance", "file:///media/mirror",
    ]  # fmt: skip
    assert [place.access.proxy for place in transport.places] == ["http://proxy.example:3128", "", ""]
    assert transport.places[1].access.token_file == "/etc/appliance/mirror.token"
    assert transport.rate_limit == 2 << 20


def test_a_wait_is_random_and_grows() -> None:
    rest, waits = Rest(), []
    for _ in range(30):
        rest = after_failure(rest, 100.0, random.random(), "x")
        waits.append(rest.wait)
        assert WAIT_FIRST <= rest.wait <= WAIT_MAX
        assert rest.until == 100.0 + rest.wait
    assert max(waits) > 20 * WAIT_FIRST
    assert after_failure(Rest(9, 3000.0), 0.0, 1.0, "x").wait == WAIT_MAX


def test_who_is_asked_first() -> None:
    rests = [Rest(1, 5, 130.0), Rest(), Rest(1, 5, 110.0), Rest(1, 5, 1e9)]  # the last: the clock was set back
    assert order(rests, 100.0) == [1, 3, 2, 0]
    assert order(rests, 200.0) == [0, 1, 2, 3]


def test_what_settings_say_comes_to_the_worker() -> None:
    settings = UpdateSettings(repository="https://a.example/r", rate_limit=100_000, user="me", password_file="/p")
    transport = transport_of(settings)
    assert parse_transport(format_transport(transport)) == transport
    assert transport.places[0].access.user == "me"
    assert transport.limits.piece == 25_000
    assert parse_transport("http://plain.example").repository == "http://plain.example"
    with pytest.raises(InputError):
        parse_transport(json.dumps({"places": 3}))
