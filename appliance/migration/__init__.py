"""Between our store and a real etcd, both ways, with revisions, history and leases.

``Database`` writes the file that etcd keeps (a bbolt database) from the store's changes; ``Snapshot`` reads one, from
``etcdctl snapshot save`` or a data directory, as the store's changes.
"""

from appliance.migration.adopting import adopt
from appliance.migration.auth_layout import BOOK_FACT
from appliance.migration.etcd_layout import LEASE_FACTS, LeaseGrant, decode_lease, fact_of
from appliance.migration.from_etcd import Snapshot, check_any, restore_any
from appliance.migration.protobuf import fields as read_fields
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
