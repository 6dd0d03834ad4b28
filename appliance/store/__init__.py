"""A durable key-value store with etcd's semantics: revisions, transactions, watch, compaction.

Law: what a caller was told is written is on the disk, and nobody sees what is not (not by read, not by watch).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.store.faults import (
    CompactedError,
    DuplicateKeyError,
    EmptyKeyError,
    FutureRevisionError,
    KeyNotFoundError,
    NoSpaceError,
    TooLargeError,
    TooManyOperationsError,
)  # fmt: skip
from appliance.store.keeping import CORRUPT, NO_SPACE
from appliance.store.opening import RESTORING
from appliance.store.requests import (
    LIMITS,
    OPERATIONS_MAX,
    REQUEST_BYTES_MAX,
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    Limits,
    Operation,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Txn,
    prefix_end,
)  # fmt: skip
from appliance.store.results import (
    DeleteResult,
    Event,
    EventKind,
    KeyValue,
    PutResult,
    RangeResult,
    StoreStatus,
    TxnResult,
    WatchBatch,
)  # fmt: skip
from appliance.store.retention import Retention
from appliance.store.store import Store
from appliance.store.surroundings import Sizes
from appliance.store.transaction import is_change
from appliance.store.watching import Watcher

if TYPE_CHECKING:
    from appliance.store.backing_up import check_backup, restore
    from appliance.store.checking import CheckReport, check
    from appliance.store.exporting import Change, Export
    from appliance.store.importing import backup_of

__all__ = [
    "CORRUPT",
    "LIMITS",
    "NO_SPACE",
    "OPERATIONS_MAX",
    "REQUEST_BYTES_MAX",
    "RESTORING",
    "Change",
    "CheckReport",
    "CompactedError",
    "Compare",
    "CompareResult",
    "CompareTarget",
    "Delete",
    "DeleteResult",
    "DuplicateKeyError",
    "EmptyKeyError",
    "Event",
    "EventKind",
    "Export",
    "FutureRevisionError",
    "KeyNotFoundError",
    "KeyValue",
    "Limits",
    "NoSpaceError",
    "Operation",
    "Put",
    "PutResult",
    "Range",
    "RangeResult",
    "Retention",
    "Sizes",
    "SortOrder",
    "SortTarget",
    "Store",
    "StoreStatus",
    "TooLargeError",
    "TooManyOperationsError",
    "Txn",
    "TxnResult",
    "WatchBatch",
    "Watcher",
    "backup_of",
    "check",
    "check_backup",
    "is_change",
    "prefix_end",
    "restore",
]  # fmt: skip
_PLACES = {
    "Change": "exporting", "CheckReport": "checking", "Export": "exporting", "backup_of": "importing",
    "check": "checking", "check_backup": "backing_up", "restore": "backing_up",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """On first use: a node that runs makes no backup, and checks nothing but what it opens."""
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"appliance.store.{_PLACES[name]}"), name)
    raise AttributeError(name)
