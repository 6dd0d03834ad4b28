"""``/v1/status`` as one screen for people. Pure but for the colours; missing parts are said, never fatal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from appliance.cli.render import age, clean, paint, size, state, table

_CALM = {"ready", "reloading", "exited", "stopped"}


def screen(status: Mapping[str, Any], *, seconds_later: float = 0.0) -> str:
    """The whole; ``seconds_later``: how long ago the picture was taken, so that ages stay true."""
    node = status.get("node") or {}
    now = float(node.get("started") or 0) + float(node.get("uptime_seconds") or 0) + seconds_later
    parts = [
        "\n".join(_node(status, node, now)),
        "\n".join([_services(status.get("services") or [], now), *_resources(status)]),
        _units(status, now),
        "\n".join(_problems(status)),
    ]
    return "\n\n".join(part for part in parts if part)


def _node(status: Mapping[str, Any], node: Mapping[str, Any], now: float) -> Iterable[str]:
    ready = paint("ready", "green") if status.get("ready") else paint("NOT READY", "red")
    slot = node.get("slot", "none")
    words = [paint(clean(str(node.get("name", "?"))), "bold"), f"appliance {node.get('version', '?')}"]
    words.append(
        "" if slot == "none" else f"slot {slot}" + (paint(" (on trial)", "yellow") if node.get("trial") else "")
    )
    words += [f"up {age(now - float(node.get('started') or now))}", f"pid {node.get('pid', '?')}"]
    words.append("" if node.get("root", "/") == "/" else f"root {node['root']}")
    yield "  ".join([*filter(None, words), ready])
    for reason in status.get("reasons") or []:
        yield f"  {paint('because', 'grey')} {clean(str(reason))}"
    if node.get("note"):
        yield f"  {paint('note', 'yellow')} {clean(str(node['note']))}"


def _services(services: list[Mapping[str, Any]], now: float) -> str:
    good = [str(one.get("name")) for one in services if one.get("state") == "ready"]
    lines = [_line("services", f"{len(good)} of {len(services)} ready: {', '.join(good) or 'none'}")]
    for one in services:
        if one.get("state") != "ready":
            since = age(now - float(one.get("since") or now))
            reason = f": {clean(str(one['reason']))}" if one.get("reason") else ""
            lines.append(_line("", f"{one.get('name')} {state(str(one.get('state')))} for {since}{reason}"))
    return "\n".join(lines)


def _resources(status: Mapping[str, Any]) -> Iterable[str]:
    yield _line("store", _store(status.get("store") or {}))
    yield from _update("update", status.get("update") or {})
    for bundle in status.get("bundles") or []:
        yield from _update("bundle", bundle)
    settings = status.get("settings") or {}
    if settings.get("problem"):
        text = f"{settings.get('file')}: {paint('the new file is not used', 'red')}, the old settings are kept"
        yield _line("settings", text)


def _store(store: Mapping[str, Any]) -> str:
    if "revision" not in store:
        return paint(clean(str(store.get("problem") or "not running")), "red")
    text = f"revision {store['revision']}  {store.get('keys', '?')} keys  {size(store.get('size_bytes') or 0)} on disk"
    if store.get("watchers"):
        text += f"  {store['watchers']} watchers"
    if store.get("problem"):
        text += "  " + paint(f"{store.get('state', '')}: {clean(str(store['problem']))}", "red")
    return text


def _update(title: str, update: Mapping[str, Any]) -> Iterable[str]:
    name = f"{update.get('product', '?')}  " if title == "bundle" else ""
    if "state" not in update:
        yield _line(title, name + paint(clean(str(update.get("problem") or "not running")), "red"))
        return
    if not update.get("enabled", True):
        yield _line(title, f"{name}off: {clean(str(update.get('reason') or 'not configured'))}")
        return
    available = update.get("available") or {}
    words = [f"channel {update.get('channel', '?')}", f"running {update.get('version') or 'nothing yet'}"]
    if available.get("version"):
        words.append(f"available {available['version']}")
    elif update.get("last_check"):
        words.append("nothing newer")
    words.append(state(str(update["state"])))
    words.append(f"checked {update['last_check']}" if update.get("last_check") else "not checked yet")
    yield _line(title, name + "  ".join(words))
    yield from (_line("", clean(one)) for one in _held(update))
    if update.get("last_error"):
        failures = int(update.get("failures") or 0)
        times = f"failed {failures} times in a row: " if failures > 1 else ""
        yield _line("", paint(clean(times + str(update["last_error"])), "red"))
    elif update.get("reason") and not str(update["reason"]).endswith(f"the newest in channel {update.get('channel')}"):
        yield _line("", clean(str(update["reason"])))
    for missing in update.get("health") or []:
        yield _line("", f"trial waits for {clean(str(missing))}")


def _held(update: Mapping[str, Any]) -> Iterable[str]:
    """What an update waits for, who holds it back, what is never taken."""
    if update.get("waiting"):
        opens = f", opens at {update['opens']}" if update.get("opens") else ""
        yield f"waits for {update['waiting']}{opens}"
    for hold in update.get("holds") or []:
        yield f"held by {hold.get('name')} until {hold.get('until')}: {hold.get('why')}"
    window = update.get("window") or {}
    if window.get("opens") and not str(update.get("waiting", "")).startswith("window"):
        yield f"next window at {window['opens']}"
    elif window.get("until"):
        yield f"window open until {window['until']}"
    if update.get("denied"):
        yield "denied: " + ", ".join(map(str, update["denied"]))


def _units(status: Mapping[str, Any], now: float) -> str:
    units = status.get("units") or []
    absent = (status.get("absent") or {}).get("units")
    if absent:
        return _line("units", paint(clean(str(absent)), "red"))
    if not units:
        return _line("units", "none")
    with_memory = any(one.get("memory_bytes") is not None for one in units)
    headers = ["unit", "state", "pid", "since", "restarts", *(["memory"] if with_memory else []), "last exit", "note"]
    rows = []
    for one in units:
        row = [one.get("name"), state(str(one.get("state"))), one.get("pid"), age(now - float(one.get("since") or now))]
        row.append(one.get("restarts", 0))
        if with_memory:
            memory = one.get("memory_bytes")
            row.append(None if memory is None else size(memory))
        rows.append([*row, one.get("last_exit"), _unit_note(one)])
    return "\n".join([table(headers, rows), *_last_words(units)])


def _last_words(units: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """What those that flap or failed wrote last."""
    for one in units:
        for line in one.get("last_lines") or []:
            yield f"  {one.get('name')}: {clean(str(line))}"


def _unit_note(one: Mapping[str, Any]) -> str:
    notes = []
    if one.get("flapping"):
        notes.append(paint("flapping", "red") + f": {one.get('restarts_lately')} restarts within 10 minutes")
    if one.get("health") == "unhealthy":
        notes.append(paint("unhealthy", "red") + f": {clean(str(one.get('health_reason') or ''))}")
    if one.get("state") not in _CALM and one.get("reason"):
        notes.append(clean(str(one["reason"])))
    if one.get("changed"):
        notes.append("file changed: unit reload")
    return "; ".join(notes) or clean(str(one.get("status_text") or one.get("description") or ""))


def _problems(status: Mapping[str, Any]) -> Iterable[str]:
    findings = [_finding(one) for one in status.get("findings") or []]
    if findings:
        yield paint("problems", "red")
        yield from (f"  {clean(one)}" for one in findings)
    else:
        problem = (status.get("settings") or {}).get("problem")
        if problem:
            yield paint("problems", "red")
            yield f"  {clean(str(problem))}"


def _finding(one: Any) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    path = f"{one['path']}: " if one.get("path") else ""
    warning = "warning: " if one.get("severity") == "warning" else ""
    return f"{one.get('file')}:{one.get('line')}:{one.get('column')}: {warning}{path}{one.get('message')}"


def _line(title: str, text: str) -> str:
    return f"{paint(title, 'grey')}{' ' * (10 - len(title))}{text}"
