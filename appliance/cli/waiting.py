"""Waiting for a node to be ready: by its own events once it answers."""

from __future__ import annotations

import json
import time

from appliance.cli.client import call_raw, stream
from appliance.errors import UnavailableError
from appliance.host.layout import Layout

_RETRY_SECONDS = 0.05  # between tries to connect: a socket that does not exist yet tells nobody when it does


def wait_ready(layout: Layout, seconds: float) -> tuple[bool, bytes]:
    """Whether it became ready in time, and the last picture. Raises NotRunningError when it never answered."""
    deadline = time.monotonic() + seconds
    raw = b""
    while True:
        left = deadline - time.monotonic()
        try:
            raw = _look(layout, left)
            if json.loads(raw)["ready"]:
                return True, raw
            for line in stream(layout, "/v1/events", timeout=max(left, 0.01), headers={"Accept": "text/event-stream"}):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                if not line.startswith(b"id:") and line.strip():  # also the first words of the stream
                    raw = _look(layout, left)
                    if json.loads(raw)["ready"]:
                        return True, raw
        except UnavailableError:
            if time.monotonic() >= deadline:
                if raw:
                    return False, raw
                raise
        if time.monotonic() >= deadline:
            return False, raw
        time.sleep(_RETRY_SECONDS)


def _look(layout: Layout, seconds: float) -> bytes:
    return call_raw(layout, "GET", "/v1/status", timeout=max(seconds, 1.0))[0]
