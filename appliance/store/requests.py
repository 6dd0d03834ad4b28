"""The store's requests, in etcd's words (api/etcdserverpb/rpc.proto), as plain data.

Ranges: ``range_end`` None or empty is the one key; one zero byte is every key from ``key`` on; any other is
``key <= k < range_end``. The prefix ``p`` is ``Range(p, prefix_end(p))``; a zero byte for both is every key there is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

OPERATIONS_MAX = 128  # per list of a transaction, as etcd's --max-txn-ops
REQUEST_BYTES_MAX = 3 << 19  # 1.5 MiB, as etcd's --max-request-bytes


@dataclass(frozen=True)
class Limits:
    """``operations`` per list of a transaction, ``request_bytes`` of one request."""

    operations: int = OPERATIONS_MAX
    request_bytes: int = REQUEST_BYTES_MAX


LIMITS = Limits()


class SortTarget(enum.IntEnum):
    """What a range is sorted by (numbers as in rpc.proto)."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class SortOrder(enum.IntEnum):
    """NONE with a target other than KEY sorts ascending, as etcd does."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class CompareTarget(enum.IntEnum):
    """Which property of a key is compared."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class CompareResult(enum.IntEnum):
    """How the property must stand to the operand."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Range(NamedTuple):
    """Read keys. ``revision`` 0 is now; ``limit`` 0 is all; the four bounds filter after counting, as etcd's."""

    key: bytes
    range_end: bytes | None = None
    revision: int = 0
    limit: int = 0
    keys_only: bool = False
    count_only: bool = False
    sort_target: SortTarget = SortTarget.KEY
    sort_order: SortOrder = SortOrder.NONE
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class Put(NamedTuple):
    """Write a key. ``ignore_value`` keeps the value it has, ``ignore_lease`` the lease; both need the key to exist."""

    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class Delete(NamedTuple):
    """Delete a key or a range."""

    key: bytes
    range_end: bytes | None = None
    prev_kv: bool = False


class Compare(NamedTuple):
    """One condition; with ``range_end`` it must hold for every key there is in the range.

    An absent key counts as 0, and has no value (a VALUE compare with it is false).
    """

    key: bytes
    target: CompareTarget
    result: CompareResult
    operand: int | bytes
    range_end: bytes | None = None


class Txn(NamedTuple):
    """All of ``success`` when every compare holds, else all of ``failure``; one revision for all of it."""

    compares: tuple[Compare, ...] = ()
    success: tuple[Operation, ...] = ()
    failure: tuple[Operation, ...] = ()


Operation = Range | Put | Delete | Txn


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` that makes a range of all keys that start with ``prefix``."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
