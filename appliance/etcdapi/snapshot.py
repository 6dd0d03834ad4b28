"""Maintenance/Snapshot: the database that etcd would have, and its sha256, for ``etcdctl snapshot save``.

It is written to a scratch file first: its beginning is known last, and a slow client must not hold up compaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi.grpc import Call, Method, Streaming
from appliance.etcdapi.messages import Headers
from appliance.etcdapi.pb import rpc_pb2
from appliance.etcdapi.statuses import refusal_of, refused
from appliance.host.disk import DiskFile
from appliance.migration import DATABASE_BEGIN, Database, LeaseGrant
from appliance.store import Store

AT_ONCE_MAX = 4
_BLOB_SIZE = 32 << 10  # as etcd's
_BACKLOG_MAX = 256 << 10
_PIECE_SIZE = 1 << 20


class SnapshotService:
    """The one method. ``leases`` are those there are now."""

    def __init__(
        self,
        store: Store,
        headers: Headers,
        leases: Callable[[], Iterable[LeaseGrant]],
        version: str,
        nursery: trio.Nursery,
    ) -> None:
        self._store = store
        self._headers = headers
        self._leases = leases
        self._version = version
        self._nursery = nursery
        self._running = 0

    def methods(self) -> dict[bytes, Method]:
        """By path."""
        return {b"/etcdserverpb.Maintenance/Snapshot": Streaming(lambda call: _Snapshot(self, call))}

    def begin(self, snapshot: _Snapshot) -> None:
        """Raises RefusedError when too many are under way."""
        if self._running >= AT_ONCE_MAX:
            raise refused("too many requests")
        self._running += 1
        self._nursery.start_soon(self._run, snapshot)

    async def _run(self, snapshot: _Snapshot) -> None:
        call = snapshot.call
        try:
            with snapshot.scope, self._store.scratch() as file:
                size, revision = await self._write(file)
                await self._send(snapshot, file, size, revision)
                call.end()
        except ApplianceError as exc:
            refusal = refusal_of(exc)
            call.refuse(refusal.code, refusal.message)
        finally:
            self._running -= 1

    async def _write(self, file: DiskFile) -> tuple[int, int]:
        pieces: list[bytes] = []
        database = Database(pieces.append)
        written = DATABASE_BEGIN

        async def flush() -> None:
            nonlocal written
            data = b"".join(pieces)
            pieces.clear()
            await trio.to_thread.run_sync(file.write, data, written)
            written += len(data)

        leases = set(self._leases())
        await self._store.txn((), (), ())  # keys of leases that were over are gone, durably
        async with self._store.export() as export:
            facts = self._store.facts(b"")
            leases |= set(self._leases())  # no lease that a key names is missing
            for changes in export.changes():
                database.add(changes)
                if database.size - written >= _PIECE_SIZE:
                    await flush()
                await trio.lowlevel.checkpoint()
            head = database.finish(export.compacted_revision, leases, facts, self._headers.identity.member_id)
            await flush()
        await trio.to_thread.run_sync(file.write, head, 0)
        return database.size, export.revision

    async def _send(self, snapshot: _Snapshot, file: DiskFile, size: int, revision: int) -> None:
        call, digest = snapshot.call, hashlib.sha256()
        header = self._headers.at(revision)
        for offset in range(0, size, _PIECE_SIZE):
            piece = await trio.to_thread.run_sync(file.read, min(_PIECE_SIZE, size - offset), offset)
            digest.update(piece)
            for at in range(0, len(piece), _BLOB_SIZE):
                blob = piece[at : at + _BLOB_SIZE]
                left = size - offset - at - len(blob)
                answer = rpc_pb2.SnapshotResponse(header=header, remaining_bytes=left, blob=blob, version=self._version)
                await snapshot.wait_for_room()
                call.send(answer.SerializeToString())
        answer = rpc_pb2.SnapshotResponse(header=header, blob=digest.digest(), version=self._version)
        call.send(answer.SerializeToString())


class _Snapshot:
    """One call."""

    def __init__(self, service: SnapshotService, call: Call) -> None:
        self.call = call
        self.scope = trio.CancelScope()
        self._service = service
        self._begun = False
        self._room = trio.Event()

    async def wait_for_room(self) -> None:
        """Until the client has read."""
        while self.call.backlog >= _BACKLOG_MAX:
            await self._room.wait()

    def message(self, message: bytes) -> None:
        """The request; it says nothing."""
        if self._begun:
            return
        self._begun = True
        try:
            self._service.begin(self)
        except ApplianceError as exc:
            refusal = refusal_of(exc)
            self.call.refuse(refusal.code, refusal.message)

    def half_close(self) -> None:
        """The client has asked."""

    def reset(self) -> None:
        """Nobody waits any more."""
        self.scope.cancel()
        self._room.set()

    def drained(self) -> None:
        """The client has read all."""
        self._room.set()
        self._room = trio.Event()
