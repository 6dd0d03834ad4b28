"""What is measured of updates: ours without a label for the product, those of bundles with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from appliance.api.exposition import Exposition

_KINDS_FIRST = ("unavailable", "untrusted")  # known from the beginning, so that their first rise can be seen


def write_update(out: Exposition, update: Mapping[str, Any], product: str = "") -> None:
    """One product's picture, or a part of it, or the reason why there is none."""
    if "state" not in update:
        return
    who = {"product": product} if product else {}
    enabled = out.gauge("appliance_update_enabled", "1 when a repository and a trust root are set.")
    enabled.add(bool(update.get("enabled")), **who)
    out.gauge("appliance_update_info", "What runs, and what is followed.").add(
        1, version=str(update.get("version", "")), channel=str(update.get("channel", "")),
        strategy=str(update.get("strategy", "")), **who,
    )  # fmt: skip
    state = out.gauge("appliance_update_state", "1 for the state the update is in.")
    state.add(1, state=str(update["state"]), **who)
    available = out.gauge("appliance_update_available", "1 when the channel offers another version.")
    available.add(bool(update.get("available")), **who)
    received = out.gauge("appliance_update_received_bytes", "Bytes of the offered version that are here.")
    received.add(update.get("received_bytes"), **who)
    if isinstance(progress := update.get("progress"), Mapping):
        fetched = out.gauge("appliance_update_fetched_bytes", "Bytes that this download took from the network.")
        fetched.add(progress["fetched_bytes"], **who)
    _write_attempts(out, update, who)
    _write_gates(out, update, who)
    versions = update.get("denied") or ()
    out.gauge("appliance_update_denied", "Versions that were rolled back here.").add(len(versions), **who)
    denied = out.gauge("appliance_update_denied_version", "1 for each version that was rolled back here.")
    for version in versions:
        denied.add(1, version=str(version), **who)


def _write_attempts(out: Exposition, update: Mapping[str, Any], who: Mapping[str, str]) -> None:
    out.gauge("appliance_update_failures", "Attempts that failed, in a row.").add(update.get("failures"), **who)
    out.counter("appliance_update_checks_total", "Answers of the repository.").add(update.get("checks"), **who)
    errors = out.counter("appliance_update_errors_total", "Attempts that failed, by kind.")
    for kind, count in sorted({**dict.fromkeys(_KINDS_FIRST, 0), **(update.get("errors") or {})}.items()):
        errors.add(count, kind=str(kind), **who)
    for name, key, text in (
        ("last_check", "last_check", "When the repository answered last."),
        ("next_check", "next_check", "When it is asked next by itself."),
        ("last_failure", "last_failure", "When an attempt failed last, since the start."),
    ):
        out.gauge(f"appliance_update_{name}_timestamp_seconds", text).add(_seconds(update.get(key)), **who)


def _write_gates(out: Exposition, update: Mapping[str, Any], who: Mapping[str, str]) -> None:
    is_open = out.gauge("appliance_update_gate_open", "1 when the gate is open, 0 when it holds an update back.")
    opens = out.gauge("appliance_update_gate_opens_timestamp_seconds", "When a shut gate opens by itself.")
    for gate in update.get("gates") or ():
        is_open.add(bool(gate["open"]), gate=str(gate["name"]), **who)
        opens.add(_seconds(gate.get("opens")), gate=str(gate["name"]), **who)
    if said := str(update.get("waiting") or ""):
        waiting = out.gauge("appliance_update_waiting", "1 for the gate that a fetched version waits for.")
        waiting.add(1, gate=said.partition(":")[0], **who)
    holds = update.get("holds") or ()
    out.gauge("appliance_update_holds", "Who holds updates back now.").add(len(holds), **who)
    until = out.gauge("appliance_update_hold_until_timestamp_seconds", "When a hold ends by itself.")
    for hold in holds:
        until.add(_seconds(hold["until"]), name=str(hold["name"]), source=str(hold["source"]), **who)
    if isinstance(window := update.get("window"), Mapping):
        shown = out.gauge("appliance_update_window_open", "1 while a maintenance window is open.")
        shown.add(bool(window["open"]), **who)
        for name, text in (("opens", "When the next window opens."), ("until", "When the open window shuts.")):
            found = out.gauge(f"appliance_update_window_{name}_timestamp_seconds", text)
            found.add(_seconds(window[name]), **who)


def _seconds(text: object) -> float | None:
    """Since 1970, of a time as we write it; None when there is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except ValueError:
        return None
