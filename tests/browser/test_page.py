from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import PATIENCE_MILLISECONDS, House, Seen

pytestmark = pytest.mark.browser
Visit = Callable[..., tuple[Page, Seen]]
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
expect.set_options(timeout=PATIENCE_MILLISECONDS)


def test_the_picture_lives_without_a_reload(visit: Visit, house: House) -> None:
    page, seen = visit()
    expect(page).to_have_title("demo: Appliance")
    expect(page.locator("#live")).to_have_text("live")
    web = page.locator('tr[data-key="unit web"]')
    expect(web).to_contain_text("ready")
    expect(web).to_contain_text('The web <unit> & "friends"')
    page.evaluate("window.same = true")
    house.do(lambda: house.sim.units.become("web", "failed", reason="killed by SIGKILL", pid=None))
    expect(web.locator(".chip")).to_have_text("failed")
    expect(web).to_contain_text("killed by SIGKILL")
    expect(page.locator("#said")).to_contain_text("unit web is failed")
    expect(page.get_by_text("Ready, but failed: web, mail")).to_be_visible()
    assert page.evaluate("window.same") is True
    assert seen.complaints == []
    assert {url.startswith((house.url, "data:")) for url in seen.requests} == {True}


def test_a_log_follows_and_closes(visit: Visit, house: House) -> None:
    page, seen = visit()
    expect(page.locator("#live")).to_have_text("live")
    page.locator("#log-web").click()
    log = page.locator("#log pre")
    expect(log).to_contain_text("GET /item/29 200 8 ms <b>")
    house.do(lambda: house.sim.units.write("web", "a line written later"))
    expect(log).to_contain_text("a line written later")
    page.keyboard.press("Escape")
    expect(page.locator("#log")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "log-web"
    assert seen.complaints == []


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_is_wider_than_a_phone(visit: Visit, house: House, width: int) -> None:
    page, _ = visit(**{**PHONE, "viewport": {"width": width, "height": 740}})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator('tr[data-key="unit mail"]')).to_contain_text("killed by SIGSEGV")
    page.locator("#log-web").tap()
    expect(page.locator("#log pre")).to_contain_text("GET /item/29")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    button = page.locator("#log button").bounding_box()
    assert button is not None
    assert button["x"] + button["width"] <= width


def test_the_picture_without_script(visit: Visit, house: House) -> None:
    page, _ = visit(java_script_enabled=False)
    expect(page.locator('tr[data-key="unit web"]')).to_contain_text("ready")
    page.locator("#log-web").click()
    expect(page.locator("body")).to_contain_text("GET /item/29 200 8 ms <b>")


def test_a_lost_node_is_said_and_one_that_is_back_is_live_with_its_log(visit: Visit, house: House) -> None:
    page, _ = visit()
    expect(page.locator("#live")).to_have_text("live")
    page.locator("#log-web").click()
    log = page.locator("#log pre")
    expect(log).to_contain_text("GET /item/29")
    house.stop()
    expect(page.locator("#live")).to_contain_text("connection lost")
    expect(log).to_contain_text("(")
    house.start_again()
    expect(page.locator("#live")).to_have_text("live")
    house.do(lambda: house.sim.units.write("web", "a line of its next life"))
    expect(log).to_contain_text("a line of its next life")
    assert page.evaluate("document.activeElement.textContent") == "Close"


def test_tables_are_tables_to_a_screen_reader(visit: Visit, house: House) -> None:
    for options in ({}, PHONE):
        page, _ = visit(**options)
        units = page.get_by_role("table").first
        expect(units.get_by_role("row")).to_have_count(7)
        expect(units.get_by_role("columnheader", name="Restarts")).to_have_count(1)
        expect(page.get_by_role("heading", level=1)).to_have_text("demo")
        expect(page.get_by_role("link", name="log of web")).to_have_count(1)
