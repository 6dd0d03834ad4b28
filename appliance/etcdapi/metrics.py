"""What monitoring made for etcd looks for, where we have the figure, under etcd's names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from appliance.errors import ApplianceError
from appliance.etcdapi.grpc import BEGUN, Code, Method, Methods, Unary
from appliance.etcdapi.member import CLUSTER_VERSION, VERSION
from appliance.host import usage
from appliance.store import Store

if TYPE_CHECKING:
    from appliance.etcdapi.verbs import Verbs

Row = tuple[str, str, Sequence[tuple[str, float]]]  # name, type, (labels, value)
_NAMES = {0: "OK", 1: "Canceled"}
_SERVER_STREAMS = ("Snapshot", "Observe")


def render(verbs: Verbs) -> str:
    """The Prometheus text format."""
    store, status = verbs.store, verbs.store.status()
    known = {"server_version": VERSION, "cluster_version": CLUSTER_VERSION.rpartition(".")[0]}
    labels = {name: f'{{{name}="{value}"}}' for name, value in known.items()}
    rows: list[Row] = [
        ("etcd_server_has_leader", "gauge", [("", 1)]),
        ("etcd_server_is_leader", "gauge", [("", 1)]),
        ("etcd_server_leader_changes_seen_total", "counter", [("", 1)]),
        ("etcd_server_version", "gauge", [(labels["server_version"], 1)]),
        ("etcd_cluster_version", "gauge", [(labels["cluster_version"], 1)]),
        ("etcd_server_quota_backend_bytes", "gauge", [("", store.quota)]),
        ("etcd_server_proposals_committed_total", "gauge", [("", status.revision)]),
        ("etcd_server_proposals_applied_total", "gauge", [("", status.revision)]),
        ("etcd_server_proposals_pending", "gauge", [("", status.waiting_writers)]),
        ("etcd_server_proposals_failed_total", "counter", [("", 0)]),
        ("etcd_mvcc_db_total_size_in_bytes", "gauge", [("", status.size_bytes)]),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", [("", status.size_bytes)]),
        *((f"etcd_mvcc_{what}_total", "counter", [("", count)]) for what, count in _done(store).items()),
        ("etcd_debugging_mvcc_keys_total", "gauge", [("", status.keys)]),
        ("etcd_debugging_mvcc_current_revision", "gauge", [("", status.revision)]),
        ("etcd_debugging_mvcc_compact_revision", "gauge", [("", status.compacted_revision)]),
        ("etcd_debugging_mvcc_watcher_total", "gauge", [("", verbs.watch.watches)]),
        ("etcd_disk_wal_fsync_duration_seconds_count", "counter", [("", status.batches)]),
        ("grpc_server_handled_total", "counter", list(_handled(verbs.methods))),
        ("grpc_server_started_total", "counter", list(_started(verbs.methods))),
        ("process_resident_memory_bytes", "gauge", [("", usage.own_usage()["resident_bytes"])]),
    ]
    return "".join(
        f"# TYPE {name} {kind}\n" + "".join(f"{name}{labelled} {value:.12g}\n" for labelled, value in values)
        for name, kind, values in rows
    )


def _done(store: Store) -> dict[str, int]:
    try:
        return store.done()
    except ApplianceError:
        return {}  # it is not open


def _labels(path: bytes, method: Method) -> list[tuple[str, str]]:
    service, _, name = path.decode().removeprefix("/").rpartition("/")
    kind = "unary" if isinstance(method, Unary) else "server_stream" if name in _SERVER_STREAMS else "bidi_stream"
    return [("grpc_method", name), ("grpc_service", service), ("grpc_type", kind)]


def _text(labels: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}"


def _handled(methods: Methods) -> Iterator[tuple[str, float]]:
    for path, method in sorted(methods.items()):
        labels = _labels(path, method)
        for code, count in enumerate(method.counts[:BEGUN]):
            if count or not code:
                yield _text([("grpc_code", _name(code)), *labels]), count


def _started(methods: Methods) -> Iterator[tuple[str, float]]:
    for path, method in sorted(methods.items()):
        counts = method.counts
        yield _text(_labels(path, method)), sum(counts[:BEGUN]) if isinstance(method, Unary) else counts[BEGUN]


def _name(code: int) -> str:
    """As Go writes it."""
    return _NAMES.get(code) or "".join(word.capitalize() for word in Code(code).name.split("_"))
