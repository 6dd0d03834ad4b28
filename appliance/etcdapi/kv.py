"""KV: Range, Put, DeleteRange, Txn, Compact."""

from __future__ import annotations

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi.access import Access
from appliance.etcdapi.backend import Backend
from appliance.etcdapi.encoding import encode_in_range, range_answer
from appliance.etcdapi.grpc import Call, Method, Unary
from appliance.etcdapi.leases import Leases
from appliance.etcdapi.messages import (
    Headers,
    check_size,
    delete_request,
    delete_response,
    parse_untrusted,
    plain_put,
    put_request,
    put_response,
    range_request,
    range_response,
    txn_request,
    txn_response,
)
from appliance.etcdapi.pb import rpc_pb2
from appliance.etcdapi.statuses import refusal_of, refused
from appliance.store import DeleteResult, Limits, PutResult, Store, TxnResult, is_change


class KV:
    """The service etcdserverpb.KV over a store."""

    def __init__(
        self, store: Store, backend: Backend, headers: Headers, leases: Leases, access: Access, nursery: trio.Nursery,
        limits: Limits,
    ) -> None:  # fmt: skip
        self._limits = limits
        self._zero_compacted = False
        self._store = store
        self._access = access
        self._backend = backend
        self._headers = headers
        self._leases = leases
        self._nursery = nursery
        self._compacting: dict[int, None] = {}

    def methods(self) -> dict[bytes, Method]:
        """By path."""
        prefix = b"/etcdserverpb.KV/"
        return {
            prefix + b"Range": Unary(self.range),
            prefix + b"Put": Unary(self.put),
            prefix + b"DeleteRange": Unary(self.delete_range),
            prefix + b"Txn": Unary(self.txn),
            prefix + b"Compact": Unary(self.compact),
        }

    def range(self, call: Call, message: bytes) -> bytes:
        """What is durable."""
        request = range_request(parse_untrusted(rpc_pb2.RangeRequest, message))
        if self._access.enabled:
            self._store.check(request)
        self._access.range(call, request)
        plain = self._store.read_plain(request, encode_in_range)
        if plain is not None:
            kvs, more, count, revision = plain
            return range_answer(self._headers.alone(revision), kvs, more, count)
        result = self._store.read(request)
        return range_response(result, self._headers.at(result.revision)).SerializeToString()

    def put(self, call: Call, message: bytes) -> None:
        """One key."""
        size = len(message)
        check_size(message, self._limits.request_bytes)
        request = plain_put(message) or put_request(parse_untrusted(rpc_pb2.PutRequest, message))
        if self._access.enabled:
            self._store.check(request)
        self._access.put(call, request)
        self._check_sound()
        if request.lease:
            self._leases.attach(request.lease, request.key)

        def done(result: PutResult | ApplianceError) -> None:
            if isinstance(result, ApplianceError):
                answer_fault(call, result)
            elif result.prev is None:
                call.reply(self._headers.alone(result.revision))
            else:
                call.reply(put_response(result, self._headers.at(result.revision)).SerializeToString())
            self._backend.leave(size)

        self._backend.submit_put(request, size, done)

    def delete_range(self, call: Call, message: bytes) -> None:
        """Keys; nothing deleted makes no revision."""
        check_size(message, self._limits.request_bytes)
        request = delete_request(parse_untrusted(rpc_pb2.DeleteRangeRequest, message))
        if self._access.enabled:
            self._store.check(request)
        self._access.delete(call, request)
        self._check_sound()

        def done(result: TxnResult | ApplianceError) -> None:
            if isinstance(result, ApplianceError):
                answer_fault(call, result)
                return
            only = result.responses[0]
            assert isinstance(only, DeleteResult)
            call.reply(delete_response(only, self._headers.at(result.revision)).SerializeToString())

        self._backend.submit(request, len(message), done)

    def txn(self, call: Call, message: bytes) -> None:
        """All or nothing."""
        check_size(message, self._limits.request_bytes)
        request = txn_request(parse_untrusted(rpc_pb2.TxnRequest, message), self._limits.operations)
        if self._access.enabled:
            self._store.check(request)
        self._access.txn(call, request)
        if is_change(request):
            self._check_sound()

        def done(result: TxnResult | ApplianceError) -> None:
            if isinstance(result, ApplianceError):
                answer_fault(call, result)
            else:
                call.reply(txn_response(result, self._headers.at(result.revision)).SerializeToString())

        self._backend.submit(request, len(message), done, self._leases.attach)

    def _check_sound(self) -> None:
        """As an etcd: with a CORRUPT alarm only reads go on."""
        if self._store.corrupt:
            raise refused("corrupt")

    def compact(self, call: Call, message: bytes) -> None:
        """Forget what was before."""
        request = parse_untrusted(rpc_pb2.CompactionRequest, message)
        self._access.known(call)
        self._check_sound()
        revision = request.revision
        if revision > self._store.revision:
            raise refused("future revision")
        if revision == 0 == self._store.compacted_revision and not self._zero_compacted:
            self._zero_compacted = True  # an etcd takes it, once
            call.reply(self._headers.alone(self._store.revision))
            return
        if revision <= self._store.compacted_revision or revision in self._compacting:
            raise refused("compacted")
        self._compacting[revision] = None

        async def compact() -> None:
            try:
                await self._store.compact(revision, physical=request.physical)
            except ApplianceError as exc:
                answer_fault(call, exc)
            else:
                call.reply(self._headers.alone(self._store.revision))
            finally:
                self._compacting.pop(revision, None)

        self._nursery.start_soon(compact)


def answer_fault(call: Call, fault: ApplianceError) -> None:
    """The status that says it."""
    refusal = refusal_of(fault)
    call.refuse(refusal.code, refusal.message)
