"""A publisher with a real repository in a temporary directory, and a server that can be made to lie."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from appliance.host.layout import Layout
from appliance.host.slots import architecture
from appliance.release import Expiry, KeyRing, create, publish, stage_file, stage_promotion
from tests.update.listening import listening

LONG = Expiry()


@dataclass
class Publisher:
    """Who makes releases."""

    directory: Path
    keys: Path
    files: Path

    def init(self, *, root_keys: int = 1, threshold: int = 1, expiry: Expiry = LONG) -> None:
        ring = KeyRing(str(self.keys))
        fresh = create(str(self.directory), ring, root_keys=root_keys, threshold=threshold)
        publish(str(self.directory), ring, fresh=fresh, expiry=expiry)

    def add(self, version: str, *, channel: str = "alpha", data: bytes | None = None, floor: str = "") -> bytes:
        data = f"program {version}\n".encode() * 5000 if data is None else data
        file = self.files / version
        file.write_bytes(data)
        stage_file(
            str(self.directory), str(file), channel=channel, architecture=architecture(), version=version, floor=floor
        )
        return data

    def promote(self, version: str, source: str, target: str) -> None:
        stage_promotion(str(self.directory), version, source, target)

    def publish(self, *, expiry: Expiry = LONG, now: float | None = None) -> None:
        publish(str(self.directory), KeyRing(str(self.keys)), expiry=expiry, now=now)

    def release(self, version: str, **options: object) -> bytes:
        data = self.add(version, **options)  # type: ignore[arg-type]
        self.publish()
        return data

    @property
    def trust_root(self) -> bytes:
        return (self.directory / "metadata/1.root.json").read_bytes()

    def target(self, version: str, channel: str = "alpha") -> Path:
        (found,) = (self.directory / f"targets/{channel}/{version}/{architecture()}").glob("*.appliance")
        return found


Lie = Callable[[bytes], bytes | int]


@dataclass
class Server:
    """Static files with ranges. ``lies``: path ending -> what to send instead (bytes), or a status (int)."""

    url: str
    directory: Path
    lies: dict[str, Lie] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)  # path, range
    ranges: bool = True
    redirect: str = ""  # every request that is not below it is sent there; what is below it is served
    cut_after: int | None = None  # of a target's bytes, then the connection is closed


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    (tmp_path / "files").mkdir()
    made = Publisher(tmp_path / "repository", tmp_path / "keys", tmp_path / "files")
    made.init()
    return made


@pytest.fixture
def layout(tmp_path: Path, publisher: Publisher) -> Layout:
    found = Layout(str(tmp_path / "host"))
    trust = Path(found.trust_root)
    trust.parent.mkdir(parents=True)
    trust.write_bytes(publisher.trust_root)
    return found


@pytest.fixture
def server(publisher: Publisher) -> Iterator[Server]:
    with serve_directory(publisher.directory) as made:
        yield made


@contextlib.contextmanager
def serve_directory(directory: Path) -> Iterator[Server]:
    """A server for the directory."""
    server = Server("", directory)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            server.requests.append((self.path, wanted))
            if server.redirect and (server.redirect == "/redirect" or not self.path.startswith(server.redirect)):
                self.send_response(302)
                self.send_header("Location", server.redirect + self.path)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            file = server.directory / self.path.removeprefix(server.redirect).lstrip("/")
            data = file.read_bytes() if file.is_file() else b""
            status = 200 if file.is_file() else 404
            for ending, lie in server.lies.items():
                if self.path.endswith(ending):
                    said = lie(data)
                    status, data = (said, b"") if isinstance(said, int) else (200, said)
            start, end = 0, len(data)
            if wanted and server.ranges and status == 200:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first), min(end, int(last) + 1 if last else end)
                status = 206 if start < len(data) else 416
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            body = data[start:end] if status in (200, 206) else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if server.cut_after is not None and "/targets/" in self.path:
                self.wfile.write(body[: server.cut_after])
                self.wfile.flush()
                self.connection.close()
                return
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as server.url:
        yield server
