"""An etcd's data directory, taken over by ``appliance etcd``: its files stay as they are, a store is made of them."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.errors import ConflictError
from appliance.host import files
from appliance.host.disk import Disk, FileDisk
from appliance.migration.etcd_layout import CONSISTENT_INDEX
from appliance.migration.from_etcd import Restored, Snapshot, restore_any
from appliance.migration.protobuf import NUMBER
from appliance.migration.wal import is_ahead


def adopt(data_dir: str, disk: Disk) -> Restored:
    """Make a store of it. Raises ConflictError when it is in use, or when its log has what its database lacks."""
    lock = files.lock_as_it_is(files.join(data_dir, "member", "snap", "db"))
    try:
        return _adopt(data_dir, disk)
    finally:
        lock.release()


def _adopt(data_dir: str, disk: Disk) -> Restored:
    database = FileDisk(files.join(data_dir, "member", "snap")).open("db")
    try:
        size, name = database.size(), files.join(data_dir, "member", "snap", "db")
        snapshot = Snapshot(database.read, size, name, skip_hash_check=True)
        noted = snapshot.meta(CONSISTENT_INDEX)
        index = NUMBER.unpack(noted)[0] if len(noted) == NUMBER.size else 0
        leases = {lease.id for lease in snapshot.leases()}
        try:
            ahead = is_ahead(_logs(data_dir), index, leases)
        except ValueError as exc:
            raise ConflictError(f"cannot use {data_dir}: its log is not understood: {exc}; {_ADVICE}") from exc
        if ahead:
            raise ConflictError(
                f"cannot use {data_dir}: an etcd's data is in it, and its log has changes that its database lacks; "
                f"{_ADVICE}",
                where=data_dir,
            )
        return restore_any(disk, database.read, size, name, skip_hash_check=True)
    finally:
        database.close()


_ADVICE = "start that etcd and stop it in order, or take a snapshot of it and restore that into an empty --data-dir"


def _logs(data_dir: str) -> Iterator[bytes]:
    """In order. Raises ConflictError when there are none: they may lie elsewhere."""
    logs = FileDisk(files.join(data_dir, "member", "wal"))
    names = [name for name in logs.names() if name.endswith(".wal")]
    if not names:
        text = f"cannot use {data_dir}: an etcd's data is in it, without its log; {_ADVICE}"
        raise ConflictError(text, where=data_dir)
    for name in names:
        file = logs.open(name)
        try:
            data = file.read(file.size(), 0)
        finally:
            file.close()
        yield data
