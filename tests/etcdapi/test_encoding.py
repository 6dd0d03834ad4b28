"""What we write by hand is what google.protobuf writes, byte for byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.etcdapi.encoding import encode_event, encode_in_range, range_answer, varint
from appliance.etcdapi.grpc import RefusedError
from appliance.etcdapi.messages import key_value, parse_untrusted, plain_put, put_request
from appliance.etcdapi.pb import kv_pb2, rpc_pb2
from appliance.store import Event, EventKind, KeyValue, Put

NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, (1 << 63) - 1))
SIZES = st.one_of(st.binary(max_size=3), st.sampled_from([0, 127, 128, 16383, 16384, 70000]).map(bytes))
kvs = st.builds(KeyValue, SIZES, SIZES, NUMBERS, NUMBERS, NUMBERS, st.integers(-(1 << 63), (1 << 63) - 1))


@given(st.lists(kvs, max_size=3), st.booleans(), NUMBERS, st.integers(1, 1 << 40))
def test_a_range(found: list[KeyValue], more: bool, count: int, revision: int) -> None:
    header = rpc_pb2.ResponseHeader(cluster_id=5, revision=revision)
    expected = rpc_pb2.RangeResponse(header=header, kvs=map(key_value, found), more=more, count=count)
    first = rpc_pb2.RangeResponse(header=header).SerializeToString()
    ours = [
        encode_in_range(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in found
    ]
    assert range_answer(first, ours, more, count) == expected.SerializeToString()


@given(kvs, st.one_of(st.none(), kvs), st.sampled_from(EventKind))
def test_an_event(kv: KeyValue, prev: KeyValue | None, kind: EventKind) -> None:
    event = kv_pb2.Event(type=int(kind), kv=key_value(kv), prev_kv=key_value(prev) if prev else None)  # type: ignore[arg-type]
    assert encode_event(Event(kind, kv, prev)) == rpc_pb2.WatchResponse(events=[event]).SerializeToString()


@given(NUMBERS)
def test_a_number(number: int) -> None:
    expected = rpc_pb2.RangeResponse(count=number).SerializeToString()
    assert (b"\x20" + varint(number) if number else b"") == expected


puts = st.builds(rpc_pb2.PutRequest, key=SIZES, value=SIZES, lease=st.integers(0, 1), prev_kv=st.booleans())
octets = st.sampled_from([0x0A, 0x12, 0x18, 0x20, 0x00, 0x01, 0x02, 0x7F, 0x80, 0x81, 0xFF])
encoded = st.builds(rpc_pb2.PutRequest.SerializeToString, puts)
damaged = st.builds(
    lambda put, at, octet: put[:at] + bytes([octet]) + put[at + 1 :], encoded, st.integers(0, 9), octets
)


def means(message: bytes) -> Put | None:
    """By google.protobuf."""
    try:
        return put_request(parse_untrusted(rpc_pb2.PutRequest, message))
    except RefusedError:
        return None


@given(
    st.one_of(st.builds(rpc_pb2.PutRequest.SerializeToString, puts), damaged, st.lists(octets, max_size=9).map(bytes))
)
def test_a_plain_put_is_read_right_or_left_to_protobuf(message: bytes) -> None:
    assert plain_put(message) in (None, means(message))


def test_the_usual_put_is_plain() -> None:
    for key, value in ((1, 1), (127, 127), (128, 128), (256, 1024), (16383, 16383)):
        message = rpc_pb2.PutRequest(key=bytes(key), value=bytes(value)).SerializeToString()
        assert plain_put(message) == Put(bytes(key), bytes(value))
