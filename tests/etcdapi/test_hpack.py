"""Against the hpack package as the peer."""

from __future__ import annotations

import contextlib

import pytest
from hpack import Encoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.etcdapi.hpack import Decoder, decode_huffman_untrusted

names = st.binary(min_size=1, max_size=20).map(bytes.lower)
headers = st.lists(st.tuples(names, st.binary(max_size=100)), max_size=8)


@given(st.binary(max_size=300))
def test_huffman_of_a_peer_reads_back(data: bytes) -> None:
    coded = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(data)
    assert decode_huffman_untrusted(coded) == data


@given(st.lists(headers, max_size=6), st.booleans())
def test_blocks_of_a_peer_read_back(blocks: list[list[tuple[bytes, bytes]]], huffman: bool) -> None:
    encoder, decoder = Encoder(), Decoder()
    for block in blocks:
        assert decoder.decode_untrusted(encoder.encode(block, huffman=huffman)) == block


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read(data: bytes) -> None:
    with contextlib.suppress(InputError):
        Decoder().decode_untrusted(data)


@pytest.mark.parametrize("block", [b"\x80", b"\xff\xff\xff\xff\xff\xff\xff", b"\x00\x05ab", b"\x40", b"\x3f\xe2\x1f"])
def test_broken_blocks(block: bytes) -> None:
    with pytest.raises(InputError):
        Decoder().decode_untrusted(block)


def test_a_bomb_costs_nothing_and_the_table_stays_right() -> None:
    encoder, decoder = Encoder(), Decoder(list_size_max=10_000)
    big = (b"x", b"y" * 3000)
    assert decoder.decode_untrusted(encoder.encode([big])) == [big]
    assert decoder.decode_untrusted(encoder.encode([big] * 10_000)) is None
    assert decoder.decode_untrusted(encoder.encode([big])) == [big]
