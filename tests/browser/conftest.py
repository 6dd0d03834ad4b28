"""A real browser in front of the real server; the server has its own thread, because Playwright wants this one."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from api.sim import Sim, service, unit
from playwright.sync_api import Browser, Page, sync_playwright

from appliance.api import Api

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
PATIENCE_MILLISECONDS = 60_000


class House:
    """The node that the page shows. ``do`` runs a function in the server's thread and returns its answer."""

    def __init__(self, directory: Path) -> None:
        self.sim = Sim(directory)
        units = self.sim.units
        lines = {name: one.description for name, one in units.all.items()}
        assert lines
        more = [
            unit("migrate", "exited", type="oneshot", pid=None, last_exit="exit 0"),
            unit("mail", "failed", pid=None, restarts=5, last_exit="killed by SIGSEGV", reason="5 starts in 10 s"),
            unit("cache", "starting", health="unknown", status_text="loading 3 of 7 shards"),
            unit("backup", "stopped", pid=None, desired="down", reason="stopped by a person"),
        ]  # fmt: skip
        for one in more:
            units.all[one.name] = one
            units.lines[one.name] = []
        self.sim.supervisor.services.append(
            service("update", "backoff", failures=2, reason="cannot reach the repository")
        )
        for number in range(30):
            units.write("web", f"GET /item/{number} 200 {number * 7 % 13} ms <b>")
        self.url = ""
        self._token: trio.lowlevel.TrioToken | None = None
        self._stopping: trio.Event | None = None
        self._thread = threading.Thread(target=self._serve)
        self._ready: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __enter__(self) -> House:
        self._thread.start()
        self.url = f"http://{self._ready.get(timeout=60)}"
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            assert self._stopping is not None
            self.do(self._stopping.set)
            self._thread.join(60)

    def start_again(self) -> None:
        """Where it was before."""
        self.sim.settings = replace(self.sim.settings, listen=self.url.removeprefix("http://"))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self._ready.get(timeout=60) == self.url.removeprefix("http://")

    def do(self, what: Callable[[], Any]) -> Any:
        return trio.from_thread.run_sync(what, trio_token=self._token)

    def _serve(self) -> None:
        async def main() -> None:
            self._token = trio.lowlevel.current_trio_token()
            self._stopping = trio.Event()
            api = Api(self.sim.subjects)
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(api.status, stopping=self._stopping))
                self._ready.put(api.status_address)

        trio.run(main)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this host: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, headless=True)
        yield browser
        browser.close()


class Seen:
    """What a page did besides looking good."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest.fixture
def visit(browser: Browser, house: House) -> Iterator[Callable[..., tuple[Page, Seen]]]:
    contexts = []

    def open_page(**options: Any) -> tuple[Page, Seen]:
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MILLISECONDS)
        contexts.append(context)
        page = context.new_page()
        seen = Seen(page)
        page.goto(house.url + "/")
        return page, seen

    yield open_page
    for context in contexts:
        context.close()
