"""Metrics as text for Prometheus, and as OpenMetrics for whoever likes that better; read by the reference parsers."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from api.conftest import Serve
from api.sim import unit
from appliance.api.exposition import Exposition, wants_open_metrics

OPEN = "application/openmetrics-text"
OF_PROMETHEUS = (  # as Prometheus 2.42 sends it
    f"{OPEN};version=1.0.0;q=0.75,{OPEN};version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.25,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (OF_PROMETHEUS, True),
        (f"{OPEN};version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3", True),
        (f"{OPEN}; version=1.0.0; charset=utf-8", True),
        (OPEN.upper(), True),
        (f"{OPEN};q=0.2,text/plain;q=0.3", False),
        (f"{OPEN};q=0,*/*", False),
        (f"{OPEN};q=much", False),
        (f"{OPEN};version=0.0.1", False),
        (f"{OPEN};version=2.0.0", False),
        ("text/plain", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_who_gets_open_metrics(accept: str, wanted: bool) -> None:
    assert wants_open_metrics(accept) is wanted


async def test_both_forms_say_the_same(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        running.sim.units.all['we"ird\\\n'] = unit('we"ird\\\n')
        plain = await http.get("/metrics")
        answer = await http.get("/metrics", headers={"Accept": OF_PROMETHEUS})
        assert answer.headers["content-type"] == f"{OPEN}; version=1.0.0; charset=utf-8"
        families = list(read_open_metrics(answer.text))
        kinds = {family.name: family.type for family in families}
        assert kinds["appliance"] == "info"
        assert kinds["appliance_unit_restarts"] == "counter"
        assert kinds["appliance_unit_state"] == "gauge"
        named = {(one.name, *sorted(one.labels.items())) for family in families for one in family.samples}
        assert ("appliance_unit_state", ("state", "ready"), ("unit", 'we"ird\\\n')) in named
        known = {(one.name, *sorted(one.labels.items())) for family in read_text(plain.text) for one in family.samples}
        assert known <= named  # the second answer counts the first one, too


def test_nothing_measured_is_still_a_page() -> None:
    assert Exposition().open_metrics() == b"# EOF\n"
    assert Exposition().text() == b""


def test_help_is_escaped() -> None:
    out = Exposition()
    out.gauge("x", 'says "a\\b"\n').add(float("inf"))
    assert out.text() == b'# HELP x says "a\\\\b"\\n\n# TYPE x gauge\nx +Inf\n'
    (family,) = read_open_metrics(out.open_metrics().decode())
    assert family.documentation == 'says "a\\b"\n'
