"""Lease: grant, revoke, keep alive, time to live, list; and what happens when one is over."""

from __future__ import annotations

from collections.abc import Callable

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi.access import Access
from appliance.etcdapi.backend import Backend
from appliance.etcdapi.grpc import Call, Method, RefusedError, Streaming, Unary
from appliance.etcdapi.kv import answer_fault
from appliance.etcdapi.leases import ID_MAX, Lease, Leases
from appliance.etcdapi.messages import Headers, parse_next_untrusted, parse_untrusted
from appliance.etcdapi.pb import rpc_pb2
from appliance.etcdapi.statuses import refused
from appliance.host import entropy
from appliance.migration import LEASE_FACTS, LeaseGrant, decode_lease, fact_of
from appliance.store import Range, Store, Txn, TxnResult

BACKLOG_MAX = 1 << 20
_RETRY_SECONDS = 1.0
_SLICE_KEYS = 500


class LeaseService:
    """The service etcdserverpb.Lease."""

    def __init__(self, store: Store, backend: Backend, headers: Headers, leases: Leases, access: Access) -> None:
        self._access = access
        self._store = store
        self._backend = backend
        self._headers = headers
        self._leases = leases
        self._earlier = trio.Event()

    def methods(self) -> dict[bytes, Method]:
        """By path."""
        prefix = b"/etcdserverpb.Lease/"
        return {
            prefix + b"LeaseGrant": Unary(self.grant),
            prefix + b"LeaseRevoke": Unary(self.revoke),
            prefix + b"LeaseKeepAlive": Streaming(lambda call: KeepAlive(self, call)),
            prefix + b"LeaseTimeToLive": Unary(self.time_to_live),
            prefix + b"LeaseLeases": Unary(self.list),
        }

    def grant(self, call: Call, message: bytes) -> None:
        """A new one, durable before it is told."""
        request = parse_untrusted(rpc_pb2.LeaseGrantRequest, message)
        self._access.known(call)
        self._check_sound()
        lease = self.new(request.ID, request.TTL)

        def done(error: ApplianceError | None) -> None:
            if error is not None:
                self._leases.forget(lease)
                answer_fault(call, error)
                return
            header = self._headers.at(self._store.revision)
            answer = rpc_pb2.LeaseGrantResponse(header=header, ID=lease.id, TTL=lease.ttl)
            call.reply(answer.SerializeToString())

        self._backend.submit_facts(dict([fact_of(LeaseGrant(lease.id, lease.ttl))]), done)

    def new(self, lease_id: int, ttl: int) -> Lease:
        """``lease_id`` 0: any. Raises RefusedError."""
        if lease_id == 0:
            lease_id = int(entropy.token(8), 16) & ID_MAX or 1
        before = self._leases.next_due()
        lease = self._leases.grant(lease_id, ttl, now=trio.current_time())
        if lease.deadline < before:
            self._earlier.set()
        return lease

    async def session(self, ttl: int) -> int:
        """The id of a new one, durable."""
        lease = self.new(0, ttl)
        settled = trio.Event()
        faults: list[ApplianceError] = []

        def done(fault: ApplianceError | None) -> None:
            if fault is not None:
                self._leases.forget(lease)
                faults.append(fault)
            settled.set()

        self._backend.submit_facts(dict([fact_of(LeaseGrant(lease.id, lease.ttl))]), done)
        await settled.wait()
        if faults:
            raise faults[0]
        return lease.id

    def attach(self, lease_id: int, key: bytes) -> None:
        """A key is about to be put with it. Raises RefusedError."""
        self._leases.attach(lease_id, key)

    def revoke(self, call: Call, message: bytes) -> None:
        """Ends it, and its keys with it."""
        request = parse_untrusted(rpc_pb2.LeaseRevokeRequest, message)
        self._access.revoke(call, request.ID)
        self._check_sound()
        lease = self._leases.find(request.ID, now=float("-inf"))

        def done(fault: ApplianceError | None) -> None:
            if fault is not None:
                if lease is not None:
                    self._leases.restore(lease)
                    self._earlier.set()
                answer_fault(call, fault)
            else:
                call.reply(self._headers.alone(self._store.revision))

        self._end(request.ID, self._leases.remove(request.ID), done)

    def _check_sound(self) -> None:
        if self._store.corrupt:
            raise refused("corrupt")

    def _end(self, lease_id: int, deletion: Txn | None, done: Callable[[ApplianceError | None], None]) -> None:
        """In one batch: its keys go, and it is forgotten. What is staged in one go becomes durable together."""
        name, _ = fact_of(LeaseGrant(lease_id, 0))
        if deletion is None:
            self._backend.submit_facts({name: b""}, done)
            return

        faults: list[ApplianceError] = []

        def deleted(result: TxnResult | ApplianceError) -> None:
            if isinstance(result, ApplianceError):
                faults.append(result)
                done(result)
            else:
                done(None)

        self._backend.submit(deletion, 0, deleted)
        if not faults:
            self._backend.submit_facts({name: b""}, lambda fault: None)

    def keep_alive(self, lease_id: int) -> bytes:
        """Answer to one keep-alive."""
        ttl = self._leases.keep_alive(lease_id, now=trio.current_time())
        header = self._headers.at(self._store.revision)
        return rpc_pb2.LeaseKeepAliveResponse(header=header, ID=lease_id, TTL=ttl).SerializeToString()

    def time_to_live(self, call: Call, message: bytes) -> bytes:
        """What is left; -1 when it is gone."""
        request = parse_untrusted(rpc_pb2.LeaseTimeToLiveRequest, message)
        now = trio.current_time()
        header = self._headers.at(self._store.revision)
        lease = self._leases.find(request.ID, now=now)
        if lease is None:
            return rpc_pb2.LeaseTimeToLiveResponse(header=header, ID=request.ID, TTL=-1).SerializeToString()
        return rpc_pb2.LeaseTimeToLiveResponse(
            header=header, ID=lease.id, TTL=self._leases.remaining(lease, now=now), grantedTTL=lease.ttl,
            keys=self._leases.attached(lease) if request.keys else (),
        ).SerializeToString()  # fmt: skip

    def list(self, call: Call, message: bytes) -> bytes:
        """All there are."""
        parse_untrusted(rpc_pb2.LeaseLeasesRequest, message)
        statuses = [rpc_pb2.LeaseStatus(ID=lease_id) for lease_id in self._leases.ids()]
        header = self._headers.at(self._store.revision)
        return rpc_pb2.LeaseLeasesResponse(header=header, leases=statuses).SerializeToString()

    async def load(self) -> None:
        """Those from before a restart, and which keys are theirs. Before anybody may ask."""
        now = trio.current_time()
        facts = self._store.facts(LEASE_FACTS)
        for value in facts.values():
            self._leases.load(decode_lease(value), now=now)
        key = b"\0"
        while facts:
            found = self._store.read(Range(key, b"\0", limit=_SLICE_KEYS, keys_only=True))
            for kv in found.kvs:
                if kv.lease:
                    self._leases.load_key(kv.lease, kv.key)
            if not found.more:
                return
            key = found.kvs[-1].key + b"\0"
            await trio.lowlevel.checkpoint()

    async def expire(self) -> None:
        """Revoke those whose time is over, as they come up."""
        while True:
            for lease_id in self._leases.due(now=trio.current_time()):
                await self._expire(lease_id)
            with trio.move_on_at(self._leases.next_due()):
                await self._earlier.wait()
            self._earlier = trio.Event()

    async def _expire(self, lease_id: int) -> None:
        try:
            deletion = self._leases.remove(lease_id)
        except RefusedError:
            return  # somebody revoked it meanwhile
        while True:
            finished = trio.Event()
            faults: list[ApplianceError | None] = []

            def done(
                fault: ApplianceError | None,
                faults: list[ApplianceError | None] = faults,
                finished: trio.Event = finished,
            ) -> None:
                faults.append(fault)
                finished.set()

            self._end(lease_id, deletion, done)
            await finished.wait()
            if faults[0] is None:
                return
            await trio.sleep(_RETRY_SECONDS)  # the store cannot write now; nothing tells when it can again


class KeepAlive:
    """One stream of keep-alives."""

    def __init__(self, service: LeaseService, call: Call) -> None:
        self._service = service
        self._call = call

    def message(self, message: bytes) -> None:
        """Answered one by one."""
        try:
            request = parse_next_untrusted(rpc_pb2.LeaseKeepAliveRequest, message)
            if self._call.backlog > BACKLOG_MAX:
                raise refused("too many requests")
            self._call.send(self._service.keep_alive(request.ID))
        except ApplianceError as exc:
            answer_fault(self._call, exc)

    def half_close(self) -> None:
        """The client is done."""
        self._call.end()

    def reset(self) -> None:
        """Nothing is held."""

    def drained(self) -> None:
        """Nothing was held back."""
