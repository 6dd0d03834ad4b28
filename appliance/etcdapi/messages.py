"""Between etcd's messages and the store's words. Pure."""

from __future__ import annotations

from typing import TypeVar, assert_never

from google.protobuf.message import DecodeError, Message

from appliance.etcdapi.grpc import Code, RefusedError
from appliance.etcdapi.identity import Identity
from appliance.etcdapi.pb import kv_pb2, rpc_pb2
from appliance.etcdapi.statuses import refused
from appliance.etcdapi.unreadable import why_unreadable
from appliance.store import (
    Compare,
    CompareResult,
    CompareTarget,
    Delete,
    DeleteResult,
    KeyValue,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    SortOrder,
    SortTarget,
    Txn,
    TxnResult,
)  # fmt: skip

M = TypeVar("M", bound=Message)

_TARGETS = {
    CompareTarget.VERSION: "version", CompareTarget.CREATE: "create_revision", CompareTarget.MOD: "mod_revision",
    CompareTarget.VALUE: "value", CompareTarget.LEASE: "lease",
}  # fmt: skip


class Headers:
    """Answer headers; all but the revision is the same for ever, so it is encoded once."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        fixed = rpc_pb2.ResponseHeader(cluster_id=identity.cluster_id, member_id=identity.member_id)
        self._before = fixed.SerializeToString() + b"\x18"
        self._after = rpc_pb2.ResponseHeader(raft_term=identity.raft_term).SerializeToString()
        self._fixed_size = len(self._before) + len(self._after)
        self._newest = (-1, b"")

    def at(self, revision: int) -> rpc_pb2.ResponseHeader:
        """As a message."""
        it = self.identity
        return rpc_pb2.ResponseHeader(
            cluster_id=it.cluster_id, member_id=it.member_id, revision=revision, raft_term=it.raft_term
        )

    def alone(self, revision: int) -> bytes:
        """A whole answer that holds nothing but its header (field 1), encoded."""
        newest, encoded = self._newest
        if newest == revision:
            return encoded
        if revision < 128:
            number = bytes((revision,))
        elif revision < 16384:
            number = bytes((revision & 127 | 128, revision >> 7))
        elif revision < 2097152:
            number = bytes((revision & 127 | 128, revision >> 7 & 127 | 128, revision >> 14))
        else:
            number = varint(revision)
        encoded = b"\x0a" + bytes((self._fixed_size + len(number),)) + self._before + number + self._after
        self._newest = (revision, encoded)
        return encoded


def varint(value: int) -> bytes:
    """As protobuf writes a number."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def parse_untrusted(kind: type[M], data: bytes) -> M:
    """The message in ``data``. Raises RefusedError as grpc-go's codec does."""
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise RefusedError(Code.INTERNAL, f"grpc: error unmarshalling request: {why_unreadable(kind, data)}") from exc


def parse_next_untrusted(kind: type[M], data: bytes) -> M:
    """The same, of a stream's messages."""
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        text = f"grpc: failed to unmarshal the received message {why_unreadable(kind, data)}"
        raise RefusedError(Code.INTERNAL, text) from exc


def key_value(kv: KeyValue) -> kv_pb2.KeyValue:
    """On the wire."""
    return kv_pb2.KeyValue(
        key=kv.key, value=kv.value, create_revision=kv.create_revision, mod_revision=kv.mod_revision,
        version=kv.version, lease=kv.lease,
    )  # fmt: skip


# Requests, checked in etcd's order (v3rpc/key.go)


def range_request(message: rpc_pb2.RangeRequest) -> Range:
    """Raises RefusedError."""
    if not message.key:
        raise refused("empty key")
    if message.sort_order > 2 or message.sort_target > 4 or message.sort_order < 0 or message.sort_target < 0:
        raise refused("invalid sort option")
    return Range(
        message.key, message.range_end or None, message.revision, max(message.limit, 0), message.keys_only,
        message.count_only, SortTarget(message.sort_target), SortOrder(message.sort_order),
        message.min_mod_revision, message.max_mod_revision, message.min_create_revision, message.max_create_revision,
    )  # fmt: skip


def plain_put(message: bytes) -> Put | None:
    """Of a PutRequest with a key, a value and nothing else, in that order; None: read it with ``put_request``."""
    size = len(message)
    if size < 6 or message[0] != 0x0A:
        return None
    length, start = message[1], 2
    if length > 127:
        if message[2] > 127:
            return None
        length, start = length & 127 | message[2] << 7, 3
    middle = start + length
    if not length or middle + 3 > size or message[middle] != 0x12:
        return None
    length, begin = message[middle + 1], middle + 2
    if length > 127:
        if message[begin] > 127:
            return None
        length, begin = length & 127 | message[begin] << 7, begin + 1
    if not length or begin + length != size:
        return None
    return Put(message[start:middle], message[begin:])


def put_request(message: rpc_pb2.PutRequest) -> Put:
    """Raises RefusedError."""
    if not message.key:
        raise refused("empty key")
    if message.ignore_value and message.value:
        raise refused("value provided")
    if message.ignore_lease and message.lease:
        raise refused("lease provided")
    return Put(message.key, message.value, message.lease, message.prev_kv, message.ignore_value, message.ignore_lease)


def delete_request(message: rpc_pb2.DeleteRangeRequest) -> Delete:
    """Raises RefusedError."""
    if not message.key:
        raise refused("empty key")
    return Delete(message.key, message.range_end or None, message.prev_kv)


def txn_request(message: rpc_pb2.TxnRequest, most: int) -> Txn:
    """At most so many operations on the way down. Raises RefusedError. Duplicate keys are the store's to find."""
    operations = max(len(message.compare), len(message.success), len(message.failure))
    if operations > most:
        raise refused("too many operations")
    for compare in message.compare:
        if not compare.key:
            raise refused("empty key")
    return Txn(
        tuple(_compare(compare) for compare in message.compare),
        tuple(_operation(operation, most - operations) for operation in message.success),
        tuple(_operation(operation, most - operations) for operation in message.failure),
    )


def _compare(message: rpc_pb2.Compare) -> Compare:
    if not (0 <= message.target <= 4 and 0 <= message.result <= 3):
        raise RefusedError(Code.INVALID_ARGUMENT, "etcdserver: unknown compare")
    target = CompareTarget(message.target)
    operand: int | bytes = getattr(message, _TARGETS[target])
    return Compare(message.key, target, CompareResult(message.result), operand, message.range_end or None)


def _operation(message: rpc_pb2.RequestOp, most: int) -> Operation:
    match message.WhichOneof("request"):
        case "request_range":
            return range_request(message.request_range)
        case "request_put":
            return put_request(message.request_put)
        case "request_delete_range":
            return delete_request(message.request_delete_range)
        case "request_txn":
            return txn_request(message.request_txn, most)
        case _:
            raise refused("key not found")  # etcd's checkRequestOp says this of an empty operation


_ENVELOPE = 18  # an etcd measures the request as raft gets it: with an id, a tag and a length


def check_size(message: bytes, most: int) -> None:
    """Raises RefusedError for a write larger than etcd's --max-request-bytes."""
    if len(message) + _ENVELOPE > most:
        raise refused("request too large")


# Answers. Inner answers of a transaction have only the revision in their headers, as etcd's.


def range_response(result: RangeResult, header: rpc_pb2.ResponseHeader) -> rpc_pb2.RangeResponse:
    """On the wire."""
    return rpc_pb2.RangeResponse(
        header=header, kvs=[key_value(kv) for kv in result.kvs], more=result.more, count=result.count
    )


def put_response(result: PutResult, header: rpc_pb2.ResponseHeader) -> rpc_pb2.PutResponse:
    """On the wire."""
    return rpc_pb2.PutResponse(header=header, prev_kv=key_value(result.prev) if result.prev else None)


def delete_response(result: DeleteResult, header: rpc_pb2.ResponseHeader) -> rpc_pb2.DeleteRangeResponse:
    """On the wire."""
    return rpc_pb2.DeleteRangeResponse(
        header=header, deleted=result.deleted, prev_kvs=[key_value(kv) for kv in result.prev]
    )


def txn_response(result: TxnResult, header: rpc_pb2.ResponseHeader) -> rpc_pb2.TxnResponse:
    """On the wire."""
    return rpc_pb2.TxnResponse(
        header=header, succeeded=result.succeeded, responses=[_response(each) for each in result.responses]
    )


def _response(result: RangeResult | PutResult | DeleteResult | TxnResult) -> rpc_pb2.ResponseOp:
    header = rpc_pb2.ResponseHeader(revision=result.revision)
    match result:
        case RangeResult():
            return rpc_pb2.ResponseOp(response_range=range_response(result, header))
        case PutResult():
            return rpc_pb2.ResponseOp(response_put=put_response(result, header))
        case DeleteResult():
            return rpc_pb2.ResponseOp(response_delete_range=delete_response(result, header))
        case TxnResult():
            # an etcd says the revision of the outermost transaction only
            return rpc_pb2.ResponseOp(response_txn=txn_response(result, rpc_pb2.ResponseHeader()))
        case _:
            assert_never(result)
