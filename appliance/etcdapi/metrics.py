"""What monitoring made for etcd looks for, where we have the figure, under etcd's names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.etcdapi.member import VERSION
from appliance.host import usage

if TYPE_CHECKING:
    from appliance.etcdapi.verbs import Verbs


def render(verbs: Verbs) -> str:
    """The Prometheus text format."""
    status = verbs.store.status()
    rows: list[tuple[str, str, str, float]] = [
        ("etcd_server_has_leader", "gauge", "", 1),
        ("etcd_server_is_leader", "gauge", "", 1),
        ("etcd_server_version", "gauge", f'{{server_version="{VERSION}"}}', 1),
        ("etcd_server_proposals_committed_total", "counter", "", status.revision),
        ("etcd_server_proposals_applied_total", "counter", "", status.revision),
        ("etcd_server_proposals_pending", "gauge", "", status.waiting_writers),
        ("etcd_mvcc_db_total_size_in_bytes", "gauge", "", status.size_bytes),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "", status.size_bytes),
        ("etcd_debugging_mvcc_keys_total", "gauge", "", status.keys),
        ("etcd_debugging_mvcc_current_revision", "gauge", "", status.revision),
        ("etcd_debugging_mvcc_compact_revision", "gauge", "", status.compacted_revision),
        ("etcd_debugging_mvcc_watcher_total", "gauge", "", verbs.watch.watches),
        ("etcd_disk_wal_fsync_duration_seconds_count", "counter", "", status.batches),
        ("process_resident_memory_bytes", "gauge", "", usage.own_usage()["resident_bytes"]),
    ]
    return "".join(f"# TYPE {name} {kind}\n{name}{labels} {value:.12g}\n" for name, kind, labels, value in rows)
