"""A check that finds nothing new: one small request, little work, and never blind to a change."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.host import clock
from appliance.host.layout import Layout
from appliance.release import KeyRing, change, pause, rotate
from appliance.update import Task, work
from appliance.update.glance import Glance
from appliance.update.settings import UpdateSettings
from tests.release.many import make_many
from tests.update.conftest import Publisher, Server, serve_directory


def full(layout: Layout, settings: UpdateSettings) -> dict[str, Any]:
    answer = work(Task(layout=layout, verb="refresh", repository=settings.repository, channel=settings.channel))
    assert answer["event"] == "offers", answer
    return answer


@pytest.fixture
def settings(server: Server) -> UpdateSettings:
    return UpdateSettings(repository=server.url, channel="alpha")


@pytest.fixture
def glance(publisher: Publisher, layout: Layout, settings: UpdateSettings, server: Server) -> Glance:
    publisher.release("1.0.0")
    publisher.release("2.0.0")
    made = Glance(layout.trust_root, "1.0.0")
    made.remember(settings, full(layout, settings))
    server.requests.clear()
    return made


def test_nothing_new_is_one_request(glance: Glance, settings: UpdateSettings, server: Server) -> None:
    answer = glance.unchanged(settings)
    assert answer is not None
    assert [one["version"] for one in answer["offers"]] == ["2.0.0"]  # what is older is not kept
    assert [path for path, _ in server.requests] == ["/metadata/timestamp.json"]


@pytest.mark.parametrize("what", ["release", "pause", "root", "refresh"])
def test_every_change_is_seen(
    glance: Glance, settings: UpdateSettings, publisher: Publisher, layout: Layout, what: str
) -> None:
    directory, keys = str(publisher.directory), KeyRing(str(publisher.keys))
    if what == "release":
        publisher.release("3.0.0")
    elif what == "pause":
        change(directory, keys, pause("alpha", "", "fans"))
    elif what == "root":
        rotate(directory, keys, "root-1")
    else:
        publisher.publish()
    assert glance.unchanged(settings) is None
    glance.remember(settings, full(layout, settings))
    assert glance.unchanged(settings) is not None


def test_it_holds_for_these_settings_and_this_trust_root_only(
    glance: Glance, settings: UpdateSettings, layout: Layout
) -> None:
    assert glance.unchanged(replace(settings, channel="beta")) is None
    Path(layout.trust_root).write_bytes(Path(layout.trust_root).read_bytes() + b" ")
    assert glance.unchanged(settings) is None


def test_it_does_not_outlive_what_expires(
    glance: Glance, settings: UpdateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.wall_seconds()
    monkeypatch.setattr(clock, "wall_seconds", lambda: now + 29 * 86400)
    assert glance.unchanged(settings) is not None
    monkeypatch.setattr(clock, "wall_seconds", lambda: now + 31 * 86400)
    assert glance.unchanged(settings) is None


def test_after_a_day_it_is_asked_in_full(
    glance: Glance, settings: UpdateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.monotonic_seconds()
    monkeypatch.setattr(clock, "monotonic_seconds", lambda: now + 90000)
    assert glance.unchanged(settings) is None


def test_a_server_that_fails_or_lies_is_asked_in_full(glance: Glance, settings: UpdateSettings, server: Server) -> None:
    for lie in (lambda _: 503, lambda _: 404, lambda data: data[:-1], lambda data: data * 100):
        server.lies = {"timestamp.json": lie}
        assert glance.unchanged(settings) is None
    server.lies.clear()
    assert glance.unchanged(settings) is not None


def test_a_thousand_releases_cost_no_more(layout: Layout, tmp_path: Path) -> None:
    """One request under a kilobyte; the CPU is measured by ./build.sh bench, and bounded here with room to spare."""
    directory = tmp_path / "many"
    make_many(str(directory), str(tmp_path / "many-keys"), 1000)
    Path(layout.trust_root).write_bytes((directory / "metadata/1.root.json").read_bytes())
    with serve_directory(directory) as server:
        settings = UpdateSettings(repository=server.url, channel="alpha")
        answer = full(layout, settings)
        assert len(answer["offers"]) == 1000
        glance = Glance(layout.trust_root, "1.999.0")
        glance.remember(settings, answer)
        server.requests.clear()
        assert glance.unchanged(settings) is not None  # loads http.client
        begin = time.thread_time()
        assert glance.unchanged(settings) is not None
        assert time.thread_time() - begin < 0.2
        assert [path for path, _ in server.requests] == ["/metadata/timestamp.json"] * 2
    assert os.stat(directory / "metadata/timestamp.json").st_size < 1000
