"""A real etcd's database, read as the store's changes: what ``etcdctl snapshot save`` wrote, or a member's own file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from appliance.bolt import Bucket, Reader, is_bolt
from appliance.errors import CorruptError, InputError
from appliance.host.disk import Disk
from appliance.migration.auth_layout import AUTH, BOOK_FACT, ROLES, USERS, book_of, is_enabled
from appliance.migration.etcd_layout import (
    ALARM,
    FINISHED_COMPACTION,
    KEY,
    LEASE,
    META,
    SCHEDULED_COMPACTION,
    LeaseGrant,
    decode_alarm,
    decode_change,
    decode_lease,
    decode_revision,
    fact_of,
)  # fmt: skip
from appliance.store import Change, backup_of, check_backup, restore

_HASH_SIZE = 32
_SECTOR = 512  # a database is whole pages, so what is left over is the hash (etcd's hasChecksum)
_CHUNK = 1 << 20
Read = Callable[[int, int], bytes]  # (size, offset)


class Restored(NamedTuple):
    """``note``: what a person should hear of."""

    revision: int
    note: str


class Snapshot:
    """An open snapshot. Raises InputError for what is none, CorruptError for what does not hold."""

    def __init__(self, read: Read, size: int, name: str, *, skip_hash_check: bool = False) -> None:
        self.name = name
        self._read = read
        self.has_hash = size % _SECTOR == _HASH_SIZE
        size -= _HASH_SIZE if self.has_hash else 0
        if not is_bolt(read(32, 0)):
            raise InputError(f"cannot read {name}: it is no snapshot of an etcd", where=name)
        if not skip_hash_check:
            self._check_hash(size)
        self._database = Reader(read, size, name)
        facts = self._meta = dict(self._bucket(META).items())
        compactions = (FINISHED_COMPACTION, SCHEDULED_COMPACTION)  # one that was cut off is done at the next start
        with self._readable():
            self.compacted_revision = max(
                decode_revision(facts[name])[0] if name in facts else 0 for name in compactions
            )

    def meta(self, name: bytes) -> bytes:
        """What etcd keeps of itself under that name; empty when there is nothing."""
        return self._meta.get(name, b"")

    def _check_hash(self, size: int) -> None:
        if not self.has_hash:
            raise InputError(
                f"cannot restore {self.name}: it has no sha256 at its end, as a copy of a running etcd's file would; "
                "if it is a copy of a stopped one, say --skip-hash-check",
                where=self.name,
            )
        found = hashlib.sha256()
        for offset in range(0, size, _CHUNK):
            found.update(self._read(min(_CHUNK, size - offset), offset))
        expected = self._read(_HASH_SIZE, size)
        if found.digest() != expected:
            raise CorruptError(
                f"cannot restore {self.name}: its sha256 is {found.hexdigest()}, it says {expected.hex()}",
                where=self.name,
            )

    def _bucket(self, name: bytes) -> Bucket:
        bucket = self._database.bucket(name)
        if bucket is None:
            raise InputError(f"cannot read {self.name}: it has no bucket {name.decode()!r}", where=self.name)
        return bucket

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except ValueError as exc:
            raise CorruptError(f"cannot read {self.name}: {exc}", where=self.name) from exc

    def changes(self) -> Iterator[Change]:
        """All, in the order of revisions."""
        with self._readable():
            for revision, value in self._bucket(KEY).items():
                yield decode_change(revision, value)

    def facts(self) -> dict[bytes, bytes]:
        """What our store keeps beside keys: leases, users and roles, the alarm."""
        found = dict(fact_of(lease) for lease in self.leases())
        with self._readable():
            book = book_of(*(self._pairs(name) for name in (AUTH, USERS, ROLES)))
            alarms = {kind: b"1" for alarm, _ in self._pairs(ALARM) if (kind := decode_alarm(alarm))}
        return found | ({BOOK_FACT: book} if book else {}) | alarms

    @property
    def auth_enabled(self) -> bool:
        """Whether it asks everybody who they are."""
        return is_enabled(self._pairs(AUTH))

    def _pairs(self, name: bytes) -> list[tuple[bytes, bytes]]:
        bucket = self._database.bucket(name)
        return list(bucket.items()) if bucket is not None else []

    def leases(self) -> list[LeaseGrant]:
        """Those that were not over."""
        bucket = self._database.bucket(LEASE)
        with self._readable():
            return [decode_lease(value) for _, value in bucket.items()] if bucket else []


def restore_any(
    disk: Disk, read: Read, size: int, name: str, *, replace: bool = False, skip_hash_check: bool = False
) -> Restored:
    """``store.restore`` of our own backup or of an etcd's snapshot, whichever it is.

    All of it is read and proved before anything is touched.
    """
    snapshot = Snapshot(read, size, name, skip_hash_check=skip_hash_check) if is_bolt(read(32, 0)) else None
    check_backup(_chunks(snapshot, read, size), name)
    revision = restore(disk, _chunks(snapshot, read, size), replace=replace, name=name)
    note = ""
    if snapshot is not None and snapshot.auth_enabled:
        note = "authentication is enabled, as it was there: users, passwords and roles came along"
    return Restored(revision, note)


def check_any(read: Read, size: int, name: str) -> int:
    """The revision of our own backup or of an etcd's snapshot, all of it proved. Raises as ``restore_any``."""
    snapshot = Snapshot(read, size, name) if is_bolt(read(32, 0)) else None
    return check_backup(_chunks(snapshot, read, size), name)


def _chunks(snapshot: Snapshot | None, read: Read, size: int) -> Iterator[bytes]:
    if snapshot is not None:
        return backup_of(snapshot.changes(), snapshot.compacted_revision, snapshot.facts())
    return (read(min(_CHUNK, size - offset), offset) for offset in range(0, size, _CHUNK))
