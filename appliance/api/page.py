"""The page for people at ``/``: the status picture as HTML. Pure: what is foreign is escaped here and in markup.py.

It is whole without JavaScript; the script (page_parts.py) exchanges ``<main>`` when an event says so.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from appliance.api.markup import card, cell, chip, moment, percent_encoded, row, size_text, small, table
from appliance.api.page_parts import SCRIPT, STYLE
from appliance.api.router import Answer, Parameter, Reply, Request, Route
from appliance.api.status_routes import status_picture
from appliance.api.subjects import Subjects


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


CONTENT_POLICY = (
    f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src {_hash(STYLE)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes(subjects: Subjects) -> tuple[Route, ...]:
    """The page."""

    async def page(request: Request) -> Reply:
        picture = status_picture(subjects)
        graph = _graph_of(subjects)
        whole = request.query.get("part") != "picture"
        html = render_page(picture, graph) if whole else render_picture(picture, graph)
        headers = (("Content-Security-Policy", CONTENT_POLICY),)
        return Answer(html.encode(errors="replace"), "text/html; charset=utf-8", headers=headers)

    return (
        Route(
            method="GET",
            pattern="/",
            handler=page,
            summary="The node's page for people",
            answer="HTML; live by /v1/events",
            content_type="text/html",
            parameters=(Parameter("part", '"picture": only the inside of main, for the page\'s own script'),),
        ),
    )


def _graph_of(subjects: Subjects) -> str:
    """A picture of the units, where any has to do with another; ours, so that its marks may stand in the page."""
    if subjects.units is None or not any(one.requires or one.wants or one.after for one in subjects.units.pictures()):
        return ""
    return subjects.units.graph_text((), as_picture=True)


def render_page(picture: Mapping[str, Any], graph: str = "") -> str:
    """The whole document."""
    node = picture["node"]
    name = escape(str(node["name"]))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: Appliance</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#picture">To the picture</a>
<header>
<h1>{name}</h1>
<span class="soft">Appliance {escape(str(node["version"]))}</span>
<span id="live" role="status">as of the load of this page</span>
</header>
<main id="picture">{render_picture(picture, graph)}</main>
<p id="said" class="unseen" aria-live="polite"></p>
<section id="log" hidden aria-label="Log">
<h2>Log of <b></b><span>newest below, live</span><button type="button">Close</button></h2>
<pre tabindex="0" role="log"></pre>
</section>
<script>{SCRIPT}</script>
</body>
</html>
"""


def render_picture(picture: Mapping[str, Any], graph: str = "") -> str:
    """The inside of ``<main>``."""
    return "\n".join(
        (
            _banner(picture),
            _findings(picture),
            _units(picture),
            f'<section class="card graph" id="graph"><h2>How units depend</h2>'
            f'<div tabindex="0" role="group" aria-label="How units depend">{graph}</div></section>'
            if graph
            else "",
            '<div class="pair">' + _store(picture["store"]) + _update(picture["update"]) + "</div>",
            *(_update(bundle, f"Bundle {bundle.get('product', '')}") for bundle in picture.get("bundles") or ()),
            _services(picture["services"]),
            _node(picture["node"], picture["settings"]),
            '<footer><a href="/v1/status">status as JSON</a><a href="/metrics">metrics</a>'
            '<a href="/v1/openapi.json">OpenAPI</a></footer>',
        )
    )


def _banner(picture: Mapping[str, Any]) -> str:
    if picture["ready"]:
        failed = [unit["name"] for unit in picture["units"] if unit["state"] == "failed"]
        if failed:
            return f'<div class="banner wait">Ready, but failed: {escape(", ".join(failed))}</div>'
        return '<div class="banner good">Ready</div>'
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in picture["reasons"])
    return f'<div class="banner bad">Not ready<ul>{reasons}</ul></div>'


def _findings(picture: Mapping[str, Any]) -> str:
    said = [str(picture["settings"].get("problem") or "")]
    said += [f"{name}: {why}" for name, why in picture["absent"].items()]
    said += [finding_text(finding) for finding in picture["findings"]]
    if picture["node"].get("note"):
        said.append(str(picture["node"]["note"]))
    lines = "".join(f"<li>{escape(text)}</li>" for text in said if text)
    if not lines:
        return ""
    return f'<section class="card"><h2>To look at</h2><ul class="findings">{lines}</ul></section>'


def finding_text(finding: Any) -> str:
    """file:line:column: path: message, of a plain Finding."""
    if not isinstance(finding, Mapping):
        return str(finding)
    place = ":".join(str(finding[key]) for key in ("file", "line", "column") if finding.get(key))
    return ": ".join(str(part) for part in (place, finding.get("path"), finding.get("message")) if part)


def _units(picture: Mapping[str, Any]) -> str:
    rows = [_unit(unit) for unit in picture["units"]]
    heads = ("Unit", "State", "Since", "PID", "Restarts", "Last exit", "Log")
    return table("Units", len(rows), heads, rows, "No units yet: put a unit file into the units directory.")


def _unit(unit: Mapping[str, Any]) -> str:
    name, state = str(unit["name"]), str(unit["state"])
    notes = [
        unit.get("reason") if state != "ready" and unit.get("reason") != unit.get("last_exit") else "",
        unit.get("status_text"),
        unit.get("health_reason"),
    ]
    if unit.get("changed"):
        notes.append("its file was changed; a reload applies it")
    chips = chip(state)
    if unit.get("health") in ("unhealthy", "unknown"):
        chips += " " + chip(
            f"health {unit['health']}" if unit["health"] == "unknown" else "unhealthy",
            "bad" if unit["health"] == "unhealthy" else "wait",
        )
    encoded = percent_encoded(name)
    log = (
        f'<a id="log-{encoded}" data-unit="{escape(name)}" href="/v1/units/{encoded}/logs?lines=200">'
        f'log<span class="unseen"> of {escape(name)}</span></a>'
    )
    return row(
        f"unit {name}",
        state,
        cell("Unit", f"{escape(name)}{small(unit.get('description'))}", "name"),
        cell("State", chips + "".join(small(note) for note in notes if note)),
        cell("Since", moment(unit.get("since"))),
        cell("PID", escape(str(unit.get("pid") or "")), "number"),
        cell("Restarts", escape(str(unit.get("restarts") or 0)), "number"),
        cell("Last exit", escape(str(unit.get("last_exit") or ""))),
        cell("Log", log, "log"),
    )


def _services(services: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        row(
            f"service {service['name']}",
            str(service["state"]),
            cell("Service", escape(str(service["name"])), "name"),
            cell("State", chip(str(service["state"])) + small(service["reason"] if _is_odd(service) else "")),
            cell("Since", moment(service.get("since"))),
            cell("Failures", escape(str(service.get("failures") or 0)), "number"),
        )
        for service in services
    ]
    return table("Services of this process", len(rows), ("Service", "State", "Since", "Failures"), rows, "None.")


def _is_odd(service: Mapping[str, Any]) -> bool:
    return service["state"] != "ready" or bool(service.get("failures"))


def _store(store: Mapping[str, Any]) -> str:
    if "revision" not in store:
        return card("Store", [("State", chip("not available", "bad") + small(store.get("problem")))])
    state = str(store.get("state", "open"))
    rows = [
        ("State", chip(state, "good" if state == "open" else "bad") + small(store.get("problem"))),
        ("Revision", escape(str(store["revision"]))),
        ("Keys", escape(str(store.get("keys", "")))),
        ("On disk", escape(size_text(store.get("size_bytes")))),
        ("Watchers", escape(str(store.get("watchers", "")))),
    ]
    return card("Store", rows)


def _update(update: Mapping[str, Any], title: str = "Update") -> str:
    if "state" not in update:
        return card(title, [("State", chip("not available", "bad") + small(update.get("problem")))])
    offer = update.get("available") or {}
    slot_here = f", slot {update['slot']}" if update.get("version") else ""
    rows = [
        ("State", chip(str(update["state"]) if update.get("enabled", True) else "off") + small(_why(update))),
        ("Running", escape(f"{update.get('version') or 'nothing yet'}{slot_here}") + small(_trial(update))),
        ("Channel", escape(f"{update.get('channel', '')}, {update.get('strategy', '')}")),
        ("Offered", escape(str(offer.get("version") or "nothing new")) + small(offer.get("notes"))),
        *_held(update),
    ]
    for slot in update.get("slots") or ():
        if not slot["version"]:
            rows.append((f"Slot {slot['name']}", "empty"))
            continue
        how = "blessed" if slot["blessed"] else f"on trial, {slot['tries']} tries left"
        if not slot["blessed"] and not slot.get("priority", 1):
            how = "given up"
        here = ", running" if slot.get("running") else ""
        rows.append((f"Slot {slot['name']}", escape(f"{slot['version']}, {how}{here}")))
    if update.get("denied"):
        rows.append(("Denied", escape(", ".join(map(str, update["denied"])))))
    if update.get("last_check"):
        rows.append(("Last check", moment(update["last_check"])))
    if update.get("next_check"):
        rows.append(("Next check", moment(update["next_check"])))
    for entry in list(update.get("recent") or ())[:3]:
        words = f"{entry.get('from_version')} to {entry.get('to_version')}: {entry.get('outcome')}"
        rows.append(("Before", escape(words) + small(entry.get("reason"))))
    return card(title, rows)


def _why(update: Mapping[str, Any]) -> str:
    failures = int(update.get("failures") or 0)
    times = f"failed {failures} times in a row: " if failures > 1 and update.get("last_error") else ""
    return times + str(update.get("reason") or "")


def _held(update: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What an update waits for, and who holds it back."""
    if update.get("waiting"):
        opens = f"opens at {update['opens']}" if update.get("opens") else ""
        yield "Waits for", escape(str(update["waiting"])) + small(opens)
    for hold in update.get("holds") or ():
        yield "Held by", escape(f"{hold['name']} until {hold['until']}") + small(hold["why"])
    window = update.get("window") or {}
    if window.get("until"):
        yield "Window", escape(f"open until {window['until']}")
    elif window.get("opens"):
        yield "Next window", moment(window["opens"])


def _trial(update: Mapping[str, Any]) -> str:
    missing = "; ".join(map(str, update.get("health") or ()))
    return ("on trial" + (f", missing: {missing}" if missing else "")) if update.get("trial") else ""


def _node(node: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    rows = [
        ("Started", moment(node.get("started"))),
        ("Process", escape(f"pid {node['pid']}")),
        ("Slot", escape(str(node["slot"]) + (" (on trial)" if node["trial"] else ""))),
        ("Root", escape(str(node["root"]))),
        ("Settings", escape(str(settings["file"]) or "built-in defaults") + small(settings.get("problem"))),
    ]
    return card("Node", rows)
