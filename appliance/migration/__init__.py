"""Between our store and a real etcd, both ways, with revisions, history and leases.

``Database`` writes the file that etcd keeps (a bbolt database) from the store's changes; ``Snapshot`` reads one, from
``etcdctl snapshot save`` or a data directory, as the store's changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.migration.auth_layout import BOOK_FACT
from appliance.migration.etcd_layout import LEASE_FACTS, LeaseGrant, decode_lease, fact_of
from appliance.migration.protobuf import fields as read_fields

if TYPE_CHECKING:
    from appliance.migration.adopting import adopt
    from appliance.migration.from_etcd import Snapshot, check_any, restore_any
    from appliance.migration.to_etcd import DATABASE_BEGIN, Database

__all__ = [
    "BOOK_FACT",
    "DATABASE_BEGIN",
    "LEASE_FACTS",
    "Database",
    "LeaseGrant",
    "Snapshot",
    "adopt",
    "check_any",
    "decode_lease",
    "fact_of",
    "read_fields",
    "restore_any",
]
_PLACES = {
    "adopt": "adopting", "Snapshot": "from_etcd", "check_any": "from_etcd", "restore_any": "from_etcd",
    "DATABASE_BEGIN": "to_etcd", "Database": "to_etcd",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """On first use: few ever move, and a server of etcd's API needs the names of facts only."""
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"appliance.migration.{_PLACES[name]}"), name)
    raise AttributeError(name)
