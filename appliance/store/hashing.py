"""One number for all keys and values of a revision: equal wherever they are equal, compacted in between or not."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Generator

from appliance.store.faults import CompactedError
from appliance.store.frames import LOCATION_MASK
from appliance.store.tree import Tree

_SLICE_KEYS = 100
_SLICE_BYTES = 1 << 20


def hash_slices(tree: Tree, revision: int) -> Generator[None, None, int]:
    """Pauses after each slice; what is written meanwhile makes no difference. Raises CompactedError."""
    value, key = zlib.crc32(b"key"), b"\0"  # an empty store's is not 0, which the wire leaves away
    firsts = tree.index.firsts
    while True:
        if revision < tree.compacted_revision:
            kept = tree.compacted_revision
            raise CompactedError(f"cannot hash revision {revision}: kept from revision {kept} on", kept)
        following = bisect_right(firsts, key)  # not more than one chunk of the index: dead entries cost time too
        end = firsts[following] if following < len(firsts) else b"\0"
        seen = size = 0
        for entry in tree.scan(key, end, revision):
            kv = tree.key_value(entry & LOCATION_MASK)
            numbers = b"%d,%d,%d,%d" % (kv.create_revision, kv.mod_revision, kv.version, kv.lease)
            for part in (kv.key, kv.value, numbers):
                value = zlib.crc32(b"%d:" % len(part) + part, value)
            seen, size, key = seen + 1, size + len(kv.value), kv.key + b"\0"
            if seen == _SLICE_KEYS or size >= _SLICE_BYTES:
                break
        else:
            if end == b"\0":
                return value
            key = end
        yield
