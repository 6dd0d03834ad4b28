"""Leases: who holds one, until when, and which keys go with it. Pure; it is told the time.

Keys are remembered as candidates: every key that was ever put with the lease. Whether it still is attached is asked
when it matters, by the store itself (a compare of the key's lease in the deleting transaction), so nothing can race.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from appliance.etcdapi.statuses import refused
from appliance.migration import LeaseGrant
from appliance.store import OPERATIONS_MAX, Compare, CompareResult, CompareTarget, Delete, Operation, Txn

TTL_SECONDS_MIN = 2  # ceil(3/2 of etcd's default election timeout)
TTL_SECONDS_MAX = 9_000_000_000
ID_MAX = (1 << 63) - 1


@dataclass(slots=True)
class Lease:
    """One lease; ``keys`` are candidates."""

    id: int
    ttl: int  # as granted, seconds
    deadline: float
    keys: set[bytes] = field(default_factory=set)
    prune_at: int = 1024


class Leases:
    """All leases. ``still_attached(key, id)`` asks the store, ``may_be`` also of what is not durable yet."""

    def __init__(
        self, still_attached: Callable[[bytes, int], bool], may_be: Callable[[bytes, int], bool] | None = None
    ) -> None:
        self._still_attached = still_attached
        self._may_be_attached = may_be or still_attached
        self._leases: dict[int, Lease] = {}
        self._due: list[tuple[float, int]] = []  # may be early: a lease kept alive is pushed again when it comes up

    def grant(self, lease_id: int, ttl: int, *, now: float) -> Lease:
        """Raises RefusedError: it exists, or wants to live too long."""
        if ttl > TTL_SECONDS_MAX:
            raise refused("lease ttl too large")
        if lease_id in self._leases:
            raise refused("lease exists")
        ttl = max(ttl, TTL_SECONDS_MIN)
        lease = self._leases[lease_id] = Lease(lease_id, ttl, now + ttl)
        heappush(self._due, (lease.deadline, lease_id))
        return lease

    def load(self, granted: LeaseGrant, *, now: float) -> None:
        """One from before a restart: its time begins anew."""
        lease = self._leases[granted.id] = Lease(granted.id, granted.ttl, now + granted.ttl)
        heappush(self._due, (lease.deadline, lease.id))

    def load_key(self, lease_id: int, key: bytes) -> None:
        """Attached before a restart."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.keys.add(key)
            lease.prune_at = max(lease.prune_at, 2 * len(lease.keys))

    def has(self, lease_id: int) -> bool:
        """Whether there is such a lease."""
        return lease_id in self._leases

    def keep_alive(self, lease_id: int, *, now: float) -> int:
        """Its TTL, from now on again; 0 when there is no such lease."""
        lease = self._leases.get(lease_id)
        if lease is None or lease.deadline <= now:
            return 0
        lease.deadline = now + lease.ttl
        return lease.ttl

    def find(self, lease_id: int, *, now: float) -> Lease | None:
        """None when it does not exist, or is over and about to be revoked."""
        lease = self._leases.get(lease_id)
        return lease if lease is not None and lease.deadline > now else None

    def remaining(self, lease: Lease, *, now: float) -> int:
        """Whole seconds, as etcd counts them (cut off, not rounded)."""
        return int(lease.deadline - now)

    def attach(self, lease_id: int, key: bytes) -> None:
        """A put names the lease. Raises RefusedError when there is no such lease."""
        lease = self._leases.get(lease_id)
        if lease is None:
            raise refused("lease not found")
        lease.keys.add(key)
        if len(lease.keys) > lease.prune_at:
            lease.keys = {each for each in lease.keys if each == key or self._may_be_attached(each, lease_id)}
            lease.prune_at = max(1024, 2 * len(lease.keys))

    def attached(self, lease: Lease) -> list[bytes]:
        """Its keys, by what is durable now, in order."""
        return sorted(key for key in lease.keys if self._still_attached(key, lease.id))

    def keys_of(self, lease_id: int) -> list[bytes]:
        """As ``attached``; none when there is no such lease."""
        lease = self._leases.get(lease_id)
        return self.attached(lease) if lease is not None else []

    def remove(self, lease_id: int) -> Txn | None:
        """The lease is gone at once; its keys go by this transaction (None: it has none). Raises RefusedError."""
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            raise refused("lease not found")
        return _deletion(lease) if lease.keys else None

    def forget(self, lease: Lease) -> None:
        """It was not granted after all."""
        if self._leases.get(lease.id) is lease:
            del self._leases[lease.id]

    def restore(self, lease: Lease) -> None:
        """It was not removed after all."""
        if lease.id not in self._leases:
            self._leases[lease.id] = lease
            heappush(self._due, (lease.deadline, lease.id))

    def due(self, *, now: float) -> Iterator[int]:
        """Those whose time is over, each until it is removed or this is asked again."""
        again: list[tuple[float, int]] = []
        while self._due and self._due[0][0] <= now:
            _, lease_id = heappop(self._due)
            lease = self._leases.get(lease_id)
            if lease is None:
                continue
            if lease.deadline > now:
                again.append((lease.deadline, lease_id))
            else:
                yield lease_id
        for entry in again:
            heappush(self._due, entry)

    def next_due(self) -> float:
        """The earliest moment at which one may be over; infinite without leases."""
        return self._due[0][0] if self._due else float("inf")

    def grants(self) -> list[LeaseGrant]:
        """All, as they were granted."""
        return [LeaseGrant(lease.id, lease.ttl) for lease in self._leases.values()]

    def ids(self) -> list[int]:
        """All, by what is left to them, as etcd lists them."""
        return [lease.id for lease in sorted(self._leases.values(), key=lambda lease: lease.deadline)]


def _deletion(lease: Lease) -> Txn:
    """Delete what is still attached, at one revision, however much it is (transactions nest, their lists are short)."""
    operations: list[Operation] = [
        Txn((Compare(key, CompareTarget.LEASE, CompareResult.EQUAL, lease.id),), (Delete(key),))
        for key in sorted(lease.keys)
    ]
    while len(operations) > OPERATIONS_MAX:
        operations = [
            Txn(success=tuple(operations[at : at + OPERATIONS_MAX])) for at in range(0, len(operations), OPERATIONS_MAX)
        ]
    return Txn(success=tuple(operations))
