"""Lock and Election: the recipes that clients know, run here (v3lock, v3election). Keys are ``NAME/LEASE in hex``.

Who waits holds a key too: the oldest one has the lock, each other waits for the one before it to go away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi.access import Access
from appliance.etcdapi.grpc import Call, Code, Method, RefusedError, Streaming, Unary
from appliance.etcdapi.kv import answer_fault
from appliance.etcdapi.lease_service import LeaseService
from appliance.etcdapi.messages import Headers, key_value, parse_untrusted
from appliance.etcdapi.pb import v3election_pb2, v3lock_pb2
from appliance.etcdapi.statuses import refusal_of
from appliance.store import (
    CompactedError,
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    EventKind,
    KeyValue,
    Put,
    Range,
    RangeResult,
    SortOrder,
    SortTarget,
    Store,
    Txn,
    prefix_end,
)  # fmt: skip

SESSION_SECONDS = 60
BACKLOG_MAX = 1 << 20
_CLEAN_UP_SECONDS = 5.0


class Recipes:
    """The services v3lockpb.Lock and v3electionpb.Election."""

    def __init__(
        self, store: Store, headers: Headers, leases: LeaseService, access: Access, nursery: trio.Nursery
    ) -> None:
        self._store = store
        self._headers = headers
        self._leases = leases
        self._access = access
        self._nursery = nursery

    def methods(self) -> dict[bytes, Method]:
        """By path."""
        lock, election = b"/v3lockpb.Lock/", b"/v3electionpb.Election/"
        return {
            lock + b"Lock": self._later(self.lock),
            lock + b"Unlock": self._later(self.unlock),
            election + b"Campaign": self._later(self.campaign),
            election + b"Proclaim": self._later(self.proclaim),
            election + b"Leader": Unary(self.leader),
            election + b"Observe": Streaming(lambda call: _Observer(self, call, self._nursery)),
            election + b"Resign": self._later(self.resign),
        }

    async def lock(self, call: Call, message: bytes) -> bytes:
        """Returns when it is held; a caller who leaves before that leaves the queue."""
        request = parse_untrusted(v3lock_pb2.LockRequest, message)
        prefix, key, lease = await self._place(request.name, request.lease)
        created, _ = await self._take_place(call, key, b"", lease)
        await self._wait_turn(call, prefix, key, created)
        return v3lock_pb2.LockResponse(header=self._headers.at(self._store.revision), key=key).SerializeToString()

    async def unlock(self, call: Call, message: bytes) -> bytes:
        """Its key goes."""
        request = parse_untrusted(v3lock_pb2.UnlockRequest, message)
        delete = Delete(request.key)
        self._access.delete(call, delete)
        result = await self._store.delete(delete.key)
        return v3lock_pb2.UnlockResponse(header=self._headers.at(result.revision)).SerializeToString()

    async def campaign(self, call: Call, message: bytes) -> bytes:
        """Returns when elected."""
        request = parse_untrusted(v3election_pb2.CampaignRequest, message)
        prefix, key, lease = await self._place(request.name, request.lease)
        created, revision = await self._take_place(call, key, request.value, lease)
        await self._wait_turn(call, prefix, key, created)
        leader = v3election_pb2.LeaderKey(name=request.name, key=key, rev=created, lease=lease)
        return v3election_pb2.CampaignResponse(header=self._headers.at(revision), leader=leader).SerializeToString()

    async def proclaim(self, call: Call, message: bytes) -> bytes:
        """The leader says something else."""
        request = parse_untrusted(v3election_pb2.ProclaimRequest, message)
        leader = _leader_of(request)
        revision = await self._proclaim(call, leader.key, leader.rev, request.value, leader.lease)
        return v3election_pb2.ProclaimResponse(header=self._headers.at(revision)).SerializeToString()

    def leader(self, call: Call, message: bytes) -> bytes:
        """Who it is, by what they said."""
        request = parse_untrusted(v3election_pb2.LeaderRequest, message)
        try:
            kv, revision = self.first(call, request.name + b"/")
        except ApplianceError as exc:
            raise RefusedError(Code.UNKNOWN, refusal_of(exc).message) from exc  # as ``_Waiter``
        if kv is None:
            raise RefusedError(Code.UNKNOWN, "election: no leader")
        return self.leader_response(kv, revision)

    async def resign(self, call: Call, message: bytes) -> bytes:
        """Leader no more; whoever is not, is not."""
        request = parse_untrusted(v3election_pb2.ResignRequest, message)
        leader = _leader_of(request)
        txn = Txn((_created(leader.key, leader.rev),), (Delete(leader.key),))
        self._access.txn(call, txn)
        result = await self._store.txn(txn.compares, txn.success)
        return v3election_pb2.ResignResponse(header=self._headers.at(result.revision)).SerializeToString()

    # Of all of them

    def first(self, call: Call, prefix: bytes) -> tuple[KeyValue | None, int]:
        """The oldest key, and the revision at which it was that."""
        request = Range(prefix, prefix_end(prefix), limit=1, sort_target=SortTarget.CREATE, sort_order=SortOrder.ASCEND)
        self._access.range(call, request)
        result = self._store.read(request)
        return (result.kvs[0] if result.kvs else None), result.revision

    def leader_response(self, kv: KeyValue, revision: int) -> bytes:
        """For ``leader`` and ``observe``."""
        header = self._headers.at(revision)
        return v3election_pb2.LeaderResponse(header=header, kv=key_value(kv)).SerializeToString()

    @property
    def store(self) -> Store:
        """What is observed."""
        return self._store

    async def _place(self, name: bytes, lease: int) -> tuple[bytes, bytes, int]:
        if not lease:
            lease = await self._leases.session(SESSION_SECONDS)
        return name + b"/", b"%s/%x" % (name, lease), lease

    async def _take_place(self, call: Call, key: bytes, value: bytes, lease: int) -> tuple[int, int]:
        """In the queue, or found there with this value. Returns when the key was created, and the revision now."""
        txn = Txn((_created(key, 0),), (Put(key, value, lease),), (Range(key),))
        self._access.txn(call, txn)
        self._leases.attach(lease, key)
        result = await self._store.txn(txn.compares, txn.success, txn.failure)
        if result.succeeded:
            return result.revision, result.revision
        found = result.responses[0]
        assert isinstance(found, RangeResult)
        kv = found.kvs[0]
        if kv.value != value:
            await self._proclaim(call, key, kv.create_revision, value, lease)
        return kv.create_revision, result.revision

    async def _proclaim(self, call: Call, key: bytes, created: int, value: bytes, lease: int) -> int:
        txn = Txn((_created(key, created),), (Put(key, value, lease),))
        self._access.txn(call, txn)
        self._leases.attach(lease, key)
        result = await self._store.txn(txn.compares, txn.success)
        if not result.succeeded:
            raise RefusedError(Code.UNKNOWN, "election: not leader")
        return result.revision

    async def _wait_turn(self, call: Call, prefix: bytes, key: bytes, created: int) -> None:
        """Until nobody is before us. Gives the place up when that fails, or the caller leaves."""
        try:
            while True:
                before = Range(
                    prefix, prefix_end(prefix), limit=1, sort_target=SortTarget.CREATE, sort_order=SortOrder.DESCEND,
                    max_create_revision=created - 1,
                )  # fmt: skip
                self._access.range(call, before)
                found = self._store.read(before)
                if not found.kvs:
                    break
                await self._wait_deleted(found.kvs[0].key, found.revision + 1)
        except (ApplianceError, trio.Cancelled):
            with trio.CancelScope(shield=True), trio.move_on_after(_CLEAN_UP_SECONDS):
                await self._give_up(key, created)
            raise
        mine = self._store.read(Range(key)).kvs
        if not mine or mine[0].create_revision != created:
            raise RefusedError(Code.UNKNOWN, "mutex: session is expired")

    async def _give_up(self, key: bytes, created: int) -> None:
        try:
            await self._store.txn((_created(key, created),), (Delete(key),))
        except ApplianceError:
            return  # the lease will do it

    async def _wait_deleted(self, key: bytes, revision: int) -> None:
        try:
            async with self._store.watch(key, start_revision=revision) as watcher:
                async for batch in watcher:
                    if any(event.kind is EventKind.DELETE for event in batch.events):
                        return
        except CompactedError:
            return  # look again

    def _later(self, answer: Callable[[Call, bytes], Awaitable[bytes]]) -> Unary:
        def handle(call: Call, message: bytes) -> None:
            waiter = _Waiter()
            call.hold(waiter)
            self._nursery.start_soon(waiter.run, call, lambda: answer(call, message))

        return Unary(handle)


def _created(key: bytes, revision: int) -> Compare:
    return Compare(key, CompareTarget.CREATE, CompareResult.EQUAL, revision)


def _leader_of(request: v3election_pb2.ProclaimRequest | v3election_pb2.ResignRequest) -> v3election_pb2.LeaderKey:
    if not request.HasField("leader"):
        raise RefusedError(Code.UNKNOWN, '"leader" field must be provided')
    return request.leader


class _Waiter:
    """A unary call that is answered later, unless its caller leaves."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    async def run(self, call: Call, answer: Callable[[], Awaitable[bytes]]) -> None:
        with self._scope:
            try:
                call.reply(await answer())
            except ApplianceError as exc:
                call.refuse(Code.UNKNOWN, refusal_of(exc).message)  # as etcd's, which asks itself as a client

    def message(self, message: bytes) -> None:
        """There is but one."""

    def half_close(self) -> None:
        """There is but one."""

    def reset(self) -> None:
        """Nobody waits."""
        self._scope.cancel()

    def drained(self) -> None:
        """Nothing was held back."""


class _Observer:
    """Whoever leads, and what they say, as it changes."""

    def __init__(self, recipes: Recipes, call: Call, nursery: trio.Nursery) -> None:
        self._recipes = recipes
        self._call = call
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self._room = trio.Event()
        self._begun = False

    def message(self, message: bytes) -> None:
        """The one that says which election."""
        if self._begun:
            return
        self._begun = True
        try:
            request = parse_untrusted(v3election_pb2.LeaderRequest, message)
        except ApplianceError as exc:
            answer_fault(self._call, exc)
            return
        self._call.start()
        self._nursery.start_soon(self._run, request.name + b"/")

    async def _run(self, prefix: bytes) -> None:
        with self._scope:
            try:
                while True:
                    await self._follow_one(prefix)
            except ApplianceError:
                self._call.end()  # as etcd's

    async def _follow_one(self, prefix: bytes) -> None:
        """One leader, from first to last word."""
        kv, revision = self._recipes.first(self._call, prefix)
        try:
            if kv is None:
                await self._wait_for_any(prefix, revision + 1)
                return
            await self._tell(kv, revision)
            async with self._recipes.store.watch(kv.key, start_revision=revision + 1) as watcher:
                async for batch in watcher:
                    for event in batch.events:
                        if event.kind is EventKind.DELETE:
                            return
                        await self._tell(event.kv, event.kv.mod_revision)
        except CompactedError:
            return  # look again

    async def _wait_for_any(self, prefix: bytes, revision: int) -> None:
        async with self._recipes.store.watch(prefix, prefix_end(prefix), start_revision=revision) as watcher:
            async for batch in watcher:
                if any(event.kind is EventKind.PUT for event in batch.events):
                    return

    async def _tell(self, kv: KeyValue, revision: int) -> None:
        while self._call.backlog >= BACKLOG_MAX:
            await self._room.wait()
        self._call.send(self._recipes.leader_response(kv, revision))

    def half_close(self) -> None:
        """The client has said all it will; we go on."""

    def reset(self) -> None:
        """It is over."""
        self._scope.cancel()
        self._room.set()

    def drained(self) -> None:
        """The client has read all."""
        self._room.set()
        self._room = trio.Event()
