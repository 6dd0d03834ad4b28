"""A small FleetLock server, as airlock answers; it can refuse, break, hang, and be looked at."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.update.listening import listening


@dataclass
class Fleet:
    """``holders`` per group; ``slots`` of them at most. ``say``: answer that instead; ``hang``: nothing until set."""

    slots: int = 1
    holders: dict[str, set[str]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    say: int = 0
    hang: threading.Event | None = None
    grant_and_hang: bool = False
    url: str = ""

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str]]:
        try:
            asked = json.loads(body)["client_params"]
            who, group = asked["id"], asked["group"]
        except (ValueError, KeyError):
            return 400, {"kind": "invalid_client_identity", "value": "no client_params"}
        if headers.get("fleet-lock-protocol") != "true" or not who:
            return 400, {"kind": "invalid_client_identity", "value": "no header"}
        self.requests.append((path, who))
        if self.say:
            return self.say, {"kind": "failed_lock", "value": f"asked to say {self.say}"}
        held = self.holders.setdefault(group, set())
        if path == "/v1/pre-reboot":
            if who not in held and len(held) >= self.slots:
                return 500, {"kind": "failed_lock", "value": f"all {self.slots} semaphore slots currently locked"}
            held.add(who)
        elif path == "/v1/steady-state":
            held.discard(who)
        else:
            return 404, {"kind": "not_found", "value": path}
        return 200, {}

    def held(self, group: str = "default") -> set[str]:
        return self.holders.get(group, set())


@contextmanager
def serve_fleet() -> Iterator[Fleet]:
    """A server of its own."""
    fleet = Fleet()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if fleet.hang is not None and not fleet.grant_and_hang:
                fleet.hang.wait(60)
            status, said = fleet.answer(self.path, self.headers, body)
            if fleet.hang is not None and fleet.grant_and_hang:
                fleet.hang.wait(60)
            data = json.dumps(said).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as fleet.url:
        try:
            yield fleet
        finally:
            if fleet.hang is not None:
                fleet.hang.set()
