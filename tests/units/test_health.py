
"""Health checks of real units against real servers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from appliance.units.health import _holds
from units.stage import Stage

SERVER = """
import http.server as h, os, sys
class Handler(h.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/teapot":
            self.send_response(418)
        elif self.headers["Host"] != "web.example":
            self.send_response(400)
        elif os.path.exists(sys.argv[2]):
            self.send_response(200)
        else:
            self.send_response(503)
        body = b"all is well"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
h.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def serve(stage: Stage, name: str, go: Path, check: str, *, more: str = "") -> None:
    port = free_port()
    (stage.root / "server.py").write_text(SERVER)
    stage.write(
        name,
        f"[service]\ncommand = ['python3', '{stage.root}/server.py', '{port}', '{go}']\n"
        f"[health]\n{check.replace('PORT', str(port))}\ninterval = '200ms'\n{more}",
    )


async def test_a_unit_is_ready_only_once_it_is_healthy(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    serve(stage, "web", go, "http = 'http://127.0.0.1:PORT/'\nhost = 'web.example'\nexpected = 'is well'\nready = true")
    stage.shell("next", "exec sleep 1000", more='[unit]\nafter = ["web"]\nrequires = ["web"]')
    async with stage.running() as units:
        await stage.until(lambda: "503" in units.picture("web").health_reason or units.picture("web").phase == "prove")
        assert units.picture("web").state == "starting"
        assert units.picture("next").state == "waiting"
        go.touch()
        await stage.state(units, "next", "ready")
        assert (units.picture("web").state, units.picture("web").health) == ("ready", "healthy")
        assert units.picture("web").reason.startswith("healthy, pid ")


async def test_one_that_is_never_healthy_fails_its_start(stage: Stage, tmp_path: Path) -> None:
    serve(stage, "web", tmp_path / "go", "http = 'http://127.0.0.1:PORT/'\nready = true",
          more="[restart]\npolicy = 'no'\n")  # fmt: skip
    path = stage.directory / "web.toml"
    path.write_text(path.read_text().replace("[service]\n", "[service]\nstart_timeout = '700ms'\n"))
    async with stage.running() as units:
        await stage.state(units, "web", "failed")
        assert "not ready within 0.7 s" in units.picture("web").reason


async def test_status_codes_and_text_that_are_wanted(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.touch()
    serve(stage, "tea", go, "http = 'http://127.0.0.1:PORT/teapot'\nstatus = [418]")
    serve(stage, "silent", go, "http = 'http://127.0.0.1:PORT/'\nhost = 'web.example'\nexpected = 'on fire'\n"
          "on_failure = 'ignore'\nthreshold = 1\nstart_period = '1ms'")  # fmt: skip
    async with stage.running() as units:
        await stage.until(lambda: units.picture("tea").health == "healthy")
        await stage.until(lambda: units.picture("silent").health == "unhealthy")
        await stage.until(lambda: 'answers without "on fire"' in units.picture("silent").health_reason)
        assert units.picture("silent").state == "ready", "ignored"


async def test_failures_in_the_start_period_do_not_count(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    stage.shell("slow", f"sleep 1; touch {go}; exec sleep 1000",
                more=f"[health]\ncommand = ['test', '-e', '{go}']\ninterval = '100ms'\nthreshold = 1\n"
                "start_period = '30s'")  # fmt: skip
    async with stage.running() as units:
        await stage.until(lambda: units.picture("slow").health == "healthy")
        assert units.picture("slow").restarts == 0
        go.unlink()
        await stage.until(lambda: units.picture("slow").exit.result == "unhealthy")  # a success ended that period


@pytest.mark.parametrize(
    ("answer", "holds"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nyes", True),
        (b"HTTP/1.1 200 yes\r\n\r\nno", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nye\r\n1;x=1\r\ns\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nyes", False),
        (b"", False),
    ],
)
def test_the_text_is_looked_for_in_the_body(answer: bytes, holds: bool) -> None:
    assert _holds(answer, "yes") is holds
