"""What app.py decides by itself, and what starting it may load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.daemon import HOUSE
from appliance.errors import InputError
from appliance.telling import differences, tell_fault

HEAVY = {
    "asyncio", "cryptography", "email", "http.client", "httpx", "multiprocessing", "securesystemslib",
    "tuf", "unittest", "urllib.request",
}  # fmt: skip

NOT_FOR_UNITS = {"appliance.api", "appliance.etcdapi", "appliance.update.agent", "appliance.update.bundles", "h11"}


def test_a_start_loads_nothing_that_readiness_does_not_need() -> None:
    code = "import appliance.cli.run, appliance.lives, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE).stdout
    assert not HEAVY & set(loaded.split())
    assert not NOT_FOR_UNITS & set(loaded.split())  # these come once the units are on their way


def test_differences_are_lines_for_people() -> None:
    old = {"node": {"name": "a", "labels": {}}, "update": {"channel": "stable", "interval": "10m"}}
    new = {"node": {"name": "a", "labels": {"x": "1"}}, "update": {"channel": "beta"}, "more": True}
    assert differences(old, new) == (
        "more: nothing -> True", "node.labels.x: nothing -> 1",
        "update.channel: stable -> beta", "update.interval: 10m -> nothing",
    )  # fmt: skip
    assert differences(old, old) == ()
    shop, site = {"name": "shop", "units": ["web"]}, {"name": "site", "units": []}
    assert differences({"bundle": []}, {"bundle": [shop]}) == ("bundle[shop]: added",)
    assert differences({"bundle": [shop, site]}, {"bundle": [{**shop, "units": ["web", "db"]}]}) == (
        "bundle[shop].units: web -> web, db", "bundle[site]: removed",
    )  # fmt: skip
    assert differences({"window": [{"days": ["mon"]}]}, {"window": [{"days": []}]}) == (
        "window[1].days: mon -> nothing",
    )


def test_only_bugs_are_told_with_their_trace(capfd: pytest.CaptureFixture[str]) -> None:
    tell_fault("store", ExceptionGroup("two", [InputError("cannot a: b"), InputError("cannot c: d")]))
    assert capfd.readouterr().err == ""
    tell_fault("store", ExceptionGroup("two", [InputError("cannot a: b"), AssertionError("a bug")]))
    assert "AssertionError: a bug" in capfd.readouterr().err
