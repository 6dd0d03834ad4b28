"""Our bytes are those that protobuf writes; what is no such thing is refused with ValueError, nothing else."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from appliance.etcdapi.pb import kv_pb2
from appliance.migration.etcd_layout import (
    LeaseGrant,
    decode_change,
    decode_lease,
    decode_revision,
    encode_change,
    encode_lease,
    encode_revision,
)  # fmt: skip
from appliance.store import Change

NUMBERS = st.integers(1, (1 << 63) - 1)
PUTS = st.builds(
    lambda revision, sub, key, value, back, version, lease: Change(
        revision, sub, key, False, value, max(revision - back, 1), version, lease
    ),
    NUMBERS, st.integers(0, 300), st.binary(min_size=1), st.binary(max_size=300), st.integers(0, 300), NUMBERS,
    st.one_of(st.just(0), NUMBERS),
)  # fmt: skip
DELETES = st.builds(
    lambda revision, sub, key: Change(revision, sub, key, True), NUMBERS, NUMBERS, st.binary(min_size=1)
)


@given(st.one_of(PUTS, DELETES))
def test_a_change_there_and_back(change: Change) -> None:
    revision, value = encode_change(change)
    assert decode_change(revision, value) == change
    if not change.deleted:
        message = kv_pb2.KeyValue(
            key=change.key, value=change.value, create_revision=change.create_revision, mod_revision=change.revision,
            version=change.version, lease=change.lease,
        )  # fmt: skip
        assert value == message.SerializeToString()


@given(st.builds(LeaseGrant, NUMBERS, NUMBERS))
def test_a_lease_there_and_back(lease: LeaseGrant) -> None:
    assert decode_lease(encode_lease(lease)[1]) == lease


@given(PUTS, PUTS)
def test_revisions_sort_as_their_bytes(one: Change, other: Change) -> None:
    assert (one[:2] < other[:2]) == (encode_revision(*one[:2]) < encode_revision(*other[:2]))


@given(st.binary(max_size=40), st.one_of(st.binary(max_size=60), PUTS.map(lambda put: encode_change(put)[1][:-1])))
def test_garbage(revision: bytes, value: bytes) -> None:
    for decode in (lambda: decode_revision(revision), lambda: decode_lease(value)):
        with contextlib.suppress(ValueError):
            decode()
    with contextlib.suppress(ValueError):
        decode_change(encode_revision(7), value)
