"""Prometheus text (exposition format 0.0.4): a pure writer, and what we measure of each subject."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """One metric with all its samples."""

    name: str
    kind: str  # gauge or counter
    text: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> None:
        """One sample; None is left out."""
        if value is not None:
            self.samples.append((tuple(labels.items()), float(value)))


class Exposition:
    """Families in the order they came, each once."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def gauge(self, name: str, text: str) -> Family:
        """What goes up and down."""
        return self._families.setdefault(name, Family(name, "gauge", text))

    def counter(self, name: str, text: str) -> Family:
        """What only goes up; its name ends in _total."""
        return self._families.setdefault(name, Family(name, "counter", text))

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return "".join(_lines(self._families.values())).encode()


def _lines(families: Iterable[Family]) -> Iterable[str]:
    for family in families:
        if family.samples:
            yield f"# HELP {family.name} {_escape(family.text)}\n# TYPE {family.name} {family.kind}\n"
            for labels, value in family.samples:
                inner = ",".join(f'{name}="{_escape(text, quote=True)}"' for name, text in labels)
                yield f"{family.name}{{{inner}}} {_number(value)}\n" if inner else f"{family.name} {_number(value)}\n"


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


SERVICE_STATES = ("waiting", "starting", "ready", "stopping", "backoff", "stopped", "failed")


def write_status(out: Exposition, picture: Mapping[str, Any]) -> None:
    """Everything ``/v1/status`` knows that is a number or a state. ``picture`` is plain."""
    node = picture["node"]
    out.gauge("appliance_info", "Which version runs, from which slot.").add(
        1, version=str(node["version"]), slot=str(node["slot"]), node=str(node["name"])
    )
    out.gauge("appliance_trial", "1 while this version is on trial.").add(bool(node["trial"]))
    out.gauge("appliance_uptime_seconds", "Since the process started.").add(node["uptime_seconds"])
    out.gauge("appliance_ready", "1 when every essential service is ready.").add(bool(picture["ready"]))
    out.gauge("appliance_settings_problem", "1 while the settings file on disk is not the one in force.").add(
        bool(picture["settings"].get("problem"))
    )
    out.gauge("appliance_findings", "Findings about settings and unit files.").add(len(picture["findings"]))
    for service in picture["services"]:
        state = out.gauge("appliance_service_state", "1 for the state the service is in.")
        for name in SERVICE_STATES:
            state.add(service["state"] == name, service=service["name"], state=name)
        out.gauge("appliance_service_failures", "Failures in a row.").add(service["failures"], service=service["name"])
    _write_units(out, picture["units"])
    _write_store(out, picture["store"])
    _write_update(out, picture["update"])


def _write_units(out: Exposition, units: Iterable[Mapping[str, Any]]) -> None:
    for unit in units:
        name = str(unit["name"])
        out.gauge("appliance_unit_state", "1 for the state the unit is in.").add(1, unit=name, state=str(unit["state"]))
        out.counter("appliance_unit_restarts_total", "Restarts by us since it was last started by hand.").add(
            unit.get("restarts"), unit=name
        )
        since = unit.get("since")
        out.gauge("appliance_unit_state_since_seconds", "When it came into this state, since 1970.").add(
            since if isinstance(since, int | float) else None, unit=name
        )


def _write_store(out: Exposition, store: Mapping[str, Any]) -> None:
    out.gauge("appliance_store_up", "1 when the store takes reads and writes.").add(store.get("state") == "open")
    for key, value in store.items():
        if isinstance(value, int | float):
            name = "appliance_store_" + "".join(char if char.isalnum() else "_" for char in key)
            out.gauge(name, f"The store's {key.replace('_', ' ')}.").add(value)


def _write_update(out: Exposition, update: Mapping[str, Any]) -> None:
    if "state" in update:
        out.gauge("appliance_update_state", "1 for the state the update is in.").add(1, state=str(update["state"]))
    offer = update.get("available")
    if "available" in update:
        out.gauge("appliance_update_available", "1 when the channel offers another version.").add(bool(offer))
    for key in ("received_bytes",):
        if isinstance(update.get(key), int | float):
            out.gauge(f"appliance_update_{key}", "Bytes of the offered version that are here.").add(update[key])
    if isinstance(update.get("failures"), int):
        out.gauge("appliance_update_failures", "Attempts that failed, in a row.").add(update["failures"])
    if isinstance(progress := update.get("progress"), Mapping):
        out.gauge("appliance_update_fetched_bytes", "Bytes that this download took from the network.").add(
            progress["fetched_bytes"]
        )
    if isinstance(update.get("denied"), list):
        out.gauge("appliance_update_denied", "Versions that were rolled back here.").add(len(update["denied"]))


def write_usage(out: Exposition, usages: Mapping[str, Any]) -> None:
    """What each unit with processes uses; what cannot be known on this host has no sample."""
    for unit, one in sorted(usages.items()):
        out.counter("appliance_unit_cpu_seconds_total", "CPU time of the unit since its start.").add(
            one.cpu_seconds, unit=unit
        )
        out.gauge("appliance_unit_memory_bytes", "Memory of the unit.").add(one.memory_bytes, unit=unit)
        out.gauge("appliance_unit_tasks", "Processes and threads of the unit.").add(one.tasks, unit=unit)
        out.counter("appliance_unit_io_read_bytes_total", "Read from disks since its start.").add(
            one.io_read_bytes, unit=unit
        )
        out.counter("appliance_unit_io_write_bytes_total", "Written to disks since its start.").add(
            one.io_write_bytes, unit=unit
        )


def write_process(out: Exposition, usage: Mapping[str, float]) -> None:
    """The conventional process metrics."""
    out.gauge("process_resident_memory_bytes", "Resident memory.").add(usage.get("resident_bytes"))
    out.counter("process_cpu_seconds_total", "User and system CPU time.").add(usage.get("cpu_seconds"))
    out.gauge("process_open_fds", "Open file descriptors.").add(usage.get("open_descriptors"))
    out.gauge("process_max_fds", "Limit on open file descriptors.").add(usage.get("descriptors_max"))
    out.gauge("process_threads", "Threads.").add(usage.get("threads"))
    out.gauge("process_start_time_seconds", "Since 1970.").add(usage.get("start_seconds"))


def write_requests(out: Exposition, requests: Mapping[tuple[str, str, str, int], int]) -> None:
    """What the two doors answered."""
    family = out.counter("appliance_http_requests_total", "Answers by door, method, resource and status.")
    for (door, method, pattern, status), count in sorted(requests.items()):
        family.add(count, door=door, method=method, resource=pattern, status=str(status))
