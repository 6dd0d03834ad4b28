"""A check for updates that finds nothing new, in a repository of 1,000 releases and 3 channels.

CPU of the checking process, per check; the peer is what TUF asks for without our short cut: a full refresh, as the
worker does it when something has changed (its process's own start not counted).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from appliance.host.layout import Layout
from appliance.update import Task, work
from appliance.update.glance import Glance
from appliance.update.settings import UpdateSettings
from tests.benchmarks.row import Row
from tests.release.many import make_many
from tests.update.conftest import serve_directory

RELEASES, CHECKS = 1000, 50


def run(binary: str) -> list[Row]:
    del binary  # the daemon does it by itself, in a thread
    with tempfile.TemporaryDirectory() as scratch:
        directory, layout = Path(scratch, "repository"), Layout(f"{scratch}/host")
        make_many(str(directory), f"{scratch}/keys", RELEASES)
        trust = Path(layout.trust_root)
        trust.parent.mkdir(parents=True)
        trust.write_bytes((directory / "metadata/1.root.json").read_bytes())
        with serve_directory(directory) as server:
            settings = UpdateSettings(repository=server.url, channel="alpha")
            task = Task(layout=layout, verb="refresh", repository=server.url, channel="alpha")
            answer = work(task)
            assert len(answer["offers"]) == RELEASES
            begin = time.thread_time()
            for _ in range(5):
                work(task)
            full = (time.thread_time() - begin) / 5
            glance = Glance(layout.trust_root, f"1.{RELEASES - 1}.0")
            glance.remember(settings, answer)
            assert glance.unchanged(settings) is not None
            server.requests.clear()
            begin = time.thread_time()
            for _ in range(CHECKS):
                assert glance.unchanged(settings) is not None
            quick = (time.thread_time() - begin) / CHECKS
            requests = len(server.requests) / CHECKS
            size = (directory / "metadata/timestamp.json").stat().st_size
    return [
        Row(name=f"no-change check, {RELEASES} releases, CPU", ours=quick * 1000, unit="ms",
            peer="full TUF refresh", theirs=full * 1000, aim="< 20 ms"),
        Row(name="no-change check, requests", ours=requests, unit="", peer="full TUF refresh", theirs=2.0, aim="1"),
        Row(name="no-change check, bytes of the answer", ours=float(size), unit="B", aim="small"),
    ]  # fmt: skip
