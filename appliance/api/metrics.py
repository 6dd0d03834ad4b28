"""What we measure of each subject, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from appliance.api.exposition import CONTENT_TYPE, OPEN_METRICS_TYPE, Exposition, wants_open_metrics
from appliance.api.update_metrics import write_update

__all__ = [
    "CONTENT_TYPE", "OPEN_METRICS_TYPE", "Exposition", "wants_open_metrics", "write_process", "write_requests",
    "write_status", "write_usage",
]  # fmt: skip

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
    write_update(out, picture["update"])
    for bundle in picture.get("bundles") or ():
        write_update(out, bundle, str(bundle.get("product", "")))


def _write_units(out: Exposition, units: Iterable[Mapping[str, Any]]) -> None:
    for unit in units:
        name = str(unit["name"])
        out.gauge("appliance_unit_state", "1 for the state the unit is in.").add(1, unit=name, state=str(unit["state"]))
        out.counter("appliance_unit_restarts_total", "Restarts by us since it was last started by hand.").add(
            unit.get("restarts"), unit=name
        )
        if unit.get("health"):
            out.gauge("appliance_unit_healthy", "1 while its health check passes; only of units that have one.").add(
                unit["health"] == "healthy", unit=name
            )
        since = unit.get("since")
        out.gauge("appliance_unit_state_since_seconds", "When it came into this state, since 1970.").add(
            since if isinstance(since, int | float) else None, unit=name
        )


STORE = (  # key of StoreStatus, metric, text; a counter's name ends in _total
    ("revision", "revision", "The newest revision."),
    ("compacted_revision", "compacted_revision", "The revision before which history is forgotten."),
    ("checkpoint_revision", "checkpoint_revision", "What a start reads at once; what is later is replayed."),
    ("keys", "keys", "Keys that there are now."),
    ("size_bytes", "size_bytes", "Bytes on the disk."),
    ("segments", "segments", "Files of the log."),
    ("watchers", "watchers", "Watches that are open."),
    ("waiting_writers", "waiting_writers", "Writes that wait for the disk now."),
    ("writes", "writes_total", "Writes that became durable since the process started."),
    ("batches", "batches_total", "Syncs of the disk that made them durable, each for all who waited."),
)


def _write_store(out: Exposition, store: Mapping[str, Any]) -> None:
    out.gauge("appliance_store_up", "1 when the store takes reads and writes.").add(store.get("state") == "open")
    for key, name, text in STORE:
        if isinstance(value := store.get(key), int | float):
            kind = out.counter if name.endswith("_total") else out.gauge
            kind(f"appliance_store_{name}", text).add(value)


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
        for way, key in (("Received by", "in"), ("Sent by", "out")):
            for what in ("bytes", "packets"):
                out.counter(
                    f"appliance_unit_ip_{key}_{what}_total", f"{way} the unit over IP since its start, in {what}."
                ).add(getattr(one, f"ip_{key}_{what}"), unit=unit)


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
