"""Our repository on real servers, and in the hands of a stock TUF client: python-tuf's own Updater and fetcher."""

from __future__ import annotations

import contextlib
import gzip
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import UnavailableError
from appliance.host.layout import Layout
from appliance.release import KeyRing, rotate
from tests.update.conftest import Publisher
from tests.update.listening import listening
from tests.update.test_sources import path_of, python_server
from tests.update.test_trust import ask

DATA = random.Random(8).randbytes(1_200_000)
NGINX = """
daemon off; user root; worker_processes 1; pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format asked "$status $http_range"; access_log {place}/access.log asked;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  server {{ listen 127.0.0.1:{port}; root {directory}; {more} }}
}}
"""
CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    root * {directory}
    {more}
    file_server
}}
"""
Serve = Callable[..., contextlib.AbstractContextManager[str]]


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@contextlib.contextmanager
def running(argv: list[str], port: int, log: Path, environ: dict[str, str] | None = None) -> Iterator[str]:
    with log.open("wb") as said, subprocess.Popen(argv, stdout=said, stderr=said, env=environ) as child:
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert child.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()


@contextlib.contextmanager
def nginx(directory: Path, place: Path, more: str = "") -> Iterator[str]:
    place.mkdir(exist_ok=True)
    port = free_port()
    (place / "nginx.conf").write_text(NGINX.format(place=place, port=port, directory=directory, more=more))
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program, "nginx is not installed (TO_TEST of build.sh)"
    with running([program, "-c", f"{place}/nginx.conf", "-p", str(place)], port, place / "log") as url:
        yield url


@contextlib.contextmanager
def caddy(directory: Path, place: Path, more: str = "") -> Iterator[str]:
    place.mkdir(exist_ok=True)
    port = free_port()
    (place / "Caddyfile").write_text(CADDY.format(port=port, directory=directory, more=more))
    program = shutil.which("caddy")
    assert program, "caddy is not installed (TO_TEST of build.sh)"
    argv = [program, "run", "--config", f"{place}/Caddyfile", "--adapter", "caddyfile"]
    with running(argv, port, place / "log", {"HOME": str(place), "PATH": "/usr/bin:/bin"}) as url:
        yield url


@contextlib.contextmanager
def stubborn(directory: Path, encoding: str = "gzip") -> Iterator[str]:
    """A bucket that sends all it has as gzip, in chunks, whatever it is asked for."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            file = directory / self.path.lstrip("/")
            if not file.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            packed = gzip.compress(file.read_bytes(), 1)
            self.send_response(200)
            self.send_header("Content-Encoding", encoding)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                for start in range(0, len(packed), 50_000):
                    piece = packed[start : start + 50_000]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            return None

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        yield url


ZIP = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; gzip_vary on;"
SERVERS: dict[str, tuple[Serve, bool]] = {  # and whether it knows ranges
    "nginx": (nginx, True),
    "nginx, compressing": (lambda directory, place: nginx(directory, place, ZIP), True),
    "nginx, one range at most": (lambda directory, place: nginx(directory, place, "max_ranges 1;"), True),
    "nginx, no ranges": (lambda directory, place: nginx(directory, place, "max_ranges 0;"), False),
    "caddy": (caddy, True),
    "caddy, compressing": (lambda directory, place: caddy(directory, place, "encode gzip zstd"), True),
    "python -m http.server": (lambda directory, place: python_server(directory), False),
    "all is gzip": (lambda directory, place: stubborn(directory), False),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_release_comes_from_a_real_server(publisher: Publisher, layout: Layout, tmp_path: Path, name: str) -> None:
    """Half of it is in the slot; what is missing comes by ranges, or all of it, and is what was signed."""
    serve, ranges = SERVERS[name]
    publisher.release("1.0.0", data=DATA)
    slot = Path(layout.slots, "b/appliance")
    slot.parent.mkdir(parents=True)
    slot.write_bytes(DATA[:300_000] + bytes(300_000) + DATA[600_000:900_000])
    with serve(publisher.directory, tmp_path / "server") as url:
        answer = ask(layout, url, "download", path=path_of("1.0.0"))
        assert Path(answer["file"]).read_bytes() == DATA
        assert (answer["fetched"] < 900_000) is ranges
        publisher.release("2.0.0", data=DATA + b"more")  # a running server sees what is published
        assert ask(layout, url)["offers"][0]["version"] == "2.0.0"


def test_an_encoding_that_we_do_not_know_is_said(publisher: Publisher, layout: Layout) -> None:
    publisher.release("1.0.0", data=DATA)
    with stubborn(publisher.directory, "br") as url, pytest.raises(UnavailableError, match="sends it as br, which nob"):
        ask(layout, url)


def test_several_ranges_at_once_are_never_asked_for(publisher: Publisher, layout: Layout, tmp_path: Path) -> None:
    publisher.release("1.0.0", data=DATA)
    slot = Path(layout.slots, "b/appliance")
    slot.parent.mkdir(parents=True)
    slot.write_bytes(b"".join(DATA[start : start + 150_000] + bytes(150_000) for start in range(0, 1_200_000, 300_000)))
    with nginx(publisher.directory, tmp_path / "server") as url:
        answer = ask(layout, url, "download", path=path_of("1.0.0"))
    assert Path(answer["file"]).read_bytes() == DATA
    asked = [line for line in (tmp_path / "server/access.log").read_text().splitlines() if "bytes=" in line]
    assert len(asked) >= 3  # neighbours come together
    assert all(line.startswith("206 ") and "," not in line for line in asked)


# --- a stock client ---


def stock_client(place: Path, url: str, trust_root: bytes) -> Any:
    """As its documentation shows it, with its own fetcher: in a process where ours has not replaced it."""
    (place / "downloads").mkdir(parents=True, exist_ok=True)
    (place / "root.json").write_bytes(trust_root)

    def run(path: str) -> str:
        script = (
            "import sys; from tuf.ngclient import Updater\n"
            "place, url, path = sys.argv[1:]\n"
            "updater = Updater(place + '/metadata', url + '/metadata/', place + '/downloads', url + '/targets/',\n"
            "                  bootstrap=open(place + '/root.json', 'rb').read())\n"
            "updater.refresh()\n"
            "info = updater.get_targetinfo(path)\n"
            "print(updater.download_target(info) if info else 'unknown')\n"
        )
        (place / "metadata").mkdir(exist_ok=True)
        argv = [sys.executable, "-c", script, str(place), url, path]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    return run


def test_a_stock_tuf_client_takes_our_releases(publisher: Publisher, tmp_path: Path) -> None:
    """Delegated channels, hash prefixes, a rotated root, a promoted release, and what nobody signed."""
    publisher.release("1.0.0", data=DATA)
    with nginx(publisher.directory, tmp_path / "server") as url:
        client = stock_client(tmp_path / "client", url, publisher.trust_root)
        assert Path(client(path_of("1.0.0"))).read_bytes() == DATA
        assert client(path_of("9.9.9")) == "unknown"
        for name in ("root-1", "timestamp", "alpha"):
            rotate(str(publisher.directory), KeyRing(str(publisher.keys)), name)
        publisher.release("2.0.0", data=DATA + b"two")
        publisher.promote("2.0.0", "alpha", "beta")
        publisher.publish()
        for channel in ("alpha", "beta"):
            assert Path(client(path_of("2.0.0", channel))).read_bytes() == DATA + b"two"
        other = stock_client(tmp_path / "other", url, publisher.trust_root)  # and one who begins with the first root
        assert Path(other(path_of("2.0.0", "beta"))).read_bytes() == DATA + b"two"
        publisher.target("2.0.0").write_bytes(b"x" * len(DATA))
        fresh = stock_client(tmp_path / "fresh", url, publisher.trust_root)
        said = fresh(path_of("2.0.0"))
        assert "Error" in said, said
        with urllib.request.urlopen(f"{url}/metadata/timestamp.json", timeout=30) as answer:
            assert answer.status == 200
