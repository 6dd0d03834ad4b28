from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from api.conftest import GENEROUS, Serve
from api.sim import Sim, service, unit
from appliance.api.limits import Limits
from appliance.units.pictures import TriggerPicture


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_status_is_one_picture_on_both_doors(serve: Serve) -> None:
    async with serve() as running, running.status() as http, running.control() as control:
        picture = (await http.get("/v1/status")).json()
        assert picture["node"]["name"] == "demo"
        assert picture["ready"] is True
        assert [one["name"] for one in picture["units"]] == ["web", "worker"]
        assert picture["store"]["revision"] == 1
        assert picture["update"] == {"problem": "cannot ask update: no slots on this host", "kind": "unavailable"}
        assert (await control.get("/v1/status")).json() == picture


async def test_alive_ready_and_why_not(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        assert (await http.get("/healthz")).text == "alive\n"
        assert (await http.get("/readyz")).json() == {"ready": True, "reasons": []}
        running.sim.supervisor.reasons = ("store: starting",)
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "reasons": ["store: starting"]})


async def test_metrics_are_what_prometheus_reads(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        await http.get("/nothing")
        await http.get("/v1/units/none")
        answer = await http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families.values()
            for sample in family.samples
        }
        assert samples["appliance_ready",] == 1
        assert samples["appliance_unit_restarts_total", ("unit", "worker")] == 3
        assert samples["appliance_unit_state", ("state", "backoff"), ("unit", "worker")] == 1
        assert samples["appliance_store_revision",] == 1
        assert samples["appliance_store_up",] == 1
        assert samples["appliance_store_writes_total",] == 0
        assert families["appliance_store_batches"].type == "counter"
        assert all(family.documentation.endswith(".") for family in families.values())
        assert "appliance_unit_healthy" not in families  # no unit has a check
        running.sim.units.all["web"] = unit("web", health="unhealthy")
        assert b'\nappliance_unit_healthy{unit="web"} 0\n' in (await http.get("/metrics")).content
        assert samples["process_resident_memory_bytes",] > 1 << 20
        found = ("door", "status"), ("method", "GET"), ("resource", "/v1/units/{name}"), ("status", "404")
        assert samples["appliance_http_requests_total", *found] == 1
        assert families["appliance_unit_restarts"].type == "counter"


async def test_labels_are_escaped_in_metrics(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        running.sim.units.all['we"ird\\\n'] = unit('we"ird\\\n')
        names = {
            sample.labels["unit"]
            for family in text_string_to_metric_families((await http.get("/metrics")).text)
            if family.name == "appliance_unit_state"
            for sample in family.samples
        }
        assert 'we"ird\\\n' in names


async def test_what_fails_says_so_in_its_place(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        running.sim.store.problem = "segment 3 is corrupt at byte 17"
        answer = await http.get("/v1/store/status")
        assert answer.status_code == 503
        assert answer.json()["error"] == {
            "kind": "unavailable", "message": "cannot use the store: segment 3 is corrupt at byte 17", "where": "",
        }  # fmt: skip
        assert (await http.get("/v1/status")).json()["store"]["problem"].endswith("byte 17")
        assert (await http.get("/v1/update")).json()["error"]["message"] == "cannot ask update: no slots on this host"


async def test_units_are_shown_and_acted_on(serve: Serve) -> None:
    async with serve() as running, running.control() as http:
        assert (await http.get("/v1/units/web")).json()["pid"] == 4242
        assert (await http.get("/v1/units/web/file")).text == "[service]\n"
        assert (await http.post("/v1/units/web/stop")).json()["state"] == "stopped"
        assert (await http.post("/v1/units/web/reset-failed")).status_code == 200
        assert (await http.post("/v1/units/reload", json={"dry_run": True})).json()["start"] == ["web"]
        assert running.sim.units.asked == [("stop", "web"), ("reset-failed", "web"), ("reload", "True")]
        missing = await http.post("/v1/units/none/start")
        assert (missing.status_code, missing.json()["error"]["kind"]) == (404, "not-found")
        unknown = await http.post("/v1/units/reload", json={"dry": True})
        assert (unknown.status_code, unknown.json()["error"]["where"]) == (400, "body.dry")


async def test_logs_as_objects_as_text_and_followed(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        for number in range(5):
            running.sim.units.write("web", f"line {number}")
        objects = (await http.get("/v1/units/web/logs?lines=2")).text.splitlines()
        assert [json.loads(line)["text"] for line in objects] == ["line 3", "line 4"]
        text = await http.get("/v1/units/web/logs?lines=1", headers={"Accept": "text/plain"})
        assert text.text == "2026-11-22T03:00:00.000Z line 4\n"
        assert (await http.get("/v1/units/none/logs")).status_code == 404
        assert (await http.get("/v1/units/web/logs?lines=some")).status_code == 400
        async with running.lines("/v1/units/web/logs?lines=1&follow=1") as lines:
            assert json.loads(await anext(lines))["text"] == "line 4"
            running.sim.units.write("web", "a new one")
            assert json.loads(await anext(lines))["text"] == "a new one"
        with trio.fail_after(GENEROUS):
            while running.sim.units.following:  # the hang-up is seen without another line being written
                await trio.lowlevel.checkpoint()


async def test_events_resume_where_the_reader_was(serve: Serve) -> None:
    async with serve() as running:
        bus = running.sim.bus
        async with running.lines("/v1/events?kind=unit") as lines:
            assert [await anext(lines) for _ in range(2)] == ["retry: 2000", "event: hello"]
            bus.publish("store", "x")
            bus.publish("unit", "web", state="failed", code=3)
            while not (line := await anext(lines)).startswith("id: "):
                pass
            last_id = line.removeprefix("id: ")
            assert await anext(lines) == "event: unit"
            data = json.loads((await anext(lines)).removeprefix("data: "))
            assert (data["subject"], data["state"], data["code"]) == ("web", "failed", 3)
        bus.publish("unit", "web", state="ready")
        for known, expected in (
            (last_id, ["ready"]),
            ("123-7", ["failed", "ready"]),
            ("nonsense", ["failed", "ready"]),
        ):
            async with running.lines("/v1/events?kind=unit", {"Last-Event-ID": known}) as lines:
                found: list[str] = []
                while len(found) < len(expected):
                    line = await anext(lines)
                    if line.startswith("data: ") and "subject" in line:
                        found.append(json.loads(line[6:])["state"])
                assert found == expected


async def test_who_was_away_too_long_is_told(serve: Serve) -> None:
    async with serve() as running:
        for number in range(600):  # the bus keeps 512
            running.sim.bus.publish("unit", f"u{number}")
        life = int(running.sim.subjects.node().started)
        async with running.lines(f"/v1/events?after={life}-10") as lines:
            while await anext(lines) != "event: lost":
                pass
            assert json.loads((await anext(lines)).removeprefix("data: ")) == {"count": 78}


async def test_an_idle_stream_shows_that_it_lives(serve: Serve) -> None:
    async with serve(limits=Limits(heartbeat_seconds=0.05)) as running, running.lines("/v1/events") as lines:
        while await anext(lines) != ": still here":
            pass


async def test_the_store_over_the_control_socket(serve: Serve) -> None:
    async with serve() as running, running.control() as http:
        put = await http.post("/v1/store/put", json={"key": encoded("k"), "value": encoded("v\0")})
        assert put.json() == {"revision": 2, "prev": None}
        found = (await http.post("/v1/store/range", json={"key": encoded("k")})).json()
        assert found["kvs"][0]["value"] == encoded("v\0")
        async with running.lines("/v1/store/watch?key=" + encoded("k"), unix=True) as lines:
            batch = json.loads(await anext(lines))
            assert batch["events"][0]["type"] == "put"
        backup = await http.get("/v1/store/backup")
        assert len(backup.content) == 1_000_000
        for body in (
            {},
            {"key": "no base64!"},
            {"key": 3},
            {"key": encoded("k"), "valu": ""},
            {"key": encoded("k"), "lease": []},
        ):
            assert (await http.post("/v1/store/put", json=body)).status_code == 400
        for body in (b"{", b"[]", b"\xff", b"[" * 100_000, b'{"key": ' + b"9" * 5000 + b"}"):
            assert (await http.post("/v1/store/put", content=body)).status_code == 400


async def test_secrets_stay(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        answer = await http.get("/v1/settings")
        assert "secret" not in answer.text
        assert answer.json()["settings"]["update"] == {"repository": "https://u:(redacted)@h/x", "token": "(redacted)"}
        for path in ("/v1/store/watch?key=aw==", "/v1/store/backup", "/v1/units/web/file"):
            assert (await http.get(path)).status_code == 403


async def test_reading_only_on_the_status_endpoint(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        for path in ("/v1/units/web/stop", "/v1/shutdown", "/v1/reload", "/v1/store/put", "/v1/update/apply"):
            answer = await http.post(path)
            assert (answer.status_code, answer.json()["error"]["kind"]) == (403, "untrusted")
        assert running.sim.units.asked == []
        assert running.sim.stopped == 0


async def test_shutdown_is_asked_for_and_answered(serve: Serve) -> None:
    async with serve() as running, running.control() as http:
        assert (await http.post("/v1/shutdown")).status_code == 202
        assert running.sim.stopped == 1


async def test_page_is_whole_and_escaped_without_script(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        running.sim.units.all["<x>"] = unit("<x>", "failed", reason='"><script>alert(1)</script>')
        running.sim.supervisor.services.append(service("api", "backoff", failures=2, reason="it <broke>"))
        answer = await http.get("/")
        assert "<script>alert" not in answer.text
        assert "it &lt;broke&gt;" in answer.text
        assert "/v1/units/%3Cx%3E/logs" in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        part = await http.get("/?part=picture")
        assert "<html" not in part.text
        assert "Ready, but failed" in part.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7780", "127.0.0.1.evil.example", "[::1", "x@127.0.0.1"])
async def test_a_rebound_name_is_refused(serve: Serve, host: str) -> None:
    async with serve() as running, running.status() as http:
        assert (await http.get("/v1/status", headers={"Host": host})).status_code == 403
        for good in ("localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:7780", "node.example:80", "a.localhost"):
            assert (await http.get("/healthz", headers={"Host": good})).status_code == 200


async def test_a_page_of_another_site_is_refused(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        assert (await http.get("/v1/events", headers=embedded)).status_code == 403
        followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await http.get("/", headers=followed)).status_code == 200
        assert (await http.get("/", headers={**followed, "Sec-Fetch-Dest": "iframe"})).status_code == 403
        answer = await http.get("/v1/status", headers={"Sec-Fetch-Site": "same-origin"})
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_beyond_loopback_a_token_is_needed(serve: Serve, tmp_path: Path) -> None:
    directory = tmp_path
    (directory / "token").write_text("t0ken-of-some-length\n")
    sim = Sim(directory)
    sim.settings.token_file = str(directory / "token")
    async with serve(sim) as running, running.status() as http:
        assert (await http.get("/healthz")).status_code == 200
        refused = await http.get("/v1/status")
        assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        wrong = (await http.get("/", headers={"Authorization": "Bearer t0ken"})).status_code
        assert wrong == 401
        bearer = {"Authorization": "Bearer t0ken-of-some-length"}
        assert (await http.get("/v1/status", headers=bearer)).status_code == 200
        assert (await http.get("/", auth=httpx.BasicAuth("me", "t0ken-of-some-length"))).status_code == 200


async def test_units_are_asked_for_by_state_type_and_name(serve: Serve) -> None:
    async with serve() as running, running.status() as http:
        running.sim.units.all["every-minute"] = replace(
            unit("every-minute", state="stopped"),
            type="oneshot",
            triggers=(TriggerPicture(kind="timer", name="x", unit="every-minute", state="waiting", about=""),),
        )
        running.sim.units.all["all"] = replace(unit("all", state="ready"), type="target")

        async def names(**asked: str) -> list[str]:
            return [one["name"] for one in (await http.get("/v1/units", params=asked)).json()["units"]]

        assert await names() == ["web", "worker", "every-minute", "all"]
        assert await names(state="backoff,stopped") == ["worker", "every-minute"]
        assert await names(type="timer") == ["every-minute"]
        assert await names(type="target,oneshot") == ["every-minute", "all"]
        assert await names(type="service", pattern="w*") == ["web", "worker"]
        assert await names(pattern="web.service, a?l") == ["web", "all"]
        assert await names(state="ready", pattern="worker") == []
        for asked in ({"state": "running"}, {"type": "mount"}):
            answer = await http.get("/v1/units", params=asked)
            assert answer.status_code == 400
            assert f"cannot read {next(iter(asked))}: found" in answer.text
        assert (await http.get("/v1/units/web/logs", params={"stream": "both"})).status_code == 400
