"""A store from changes that were kept in another form: they become a backup, which ``restore`` takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from appliance.host import entropy
from appliance.store import frames
from appliance.store.backing_up import END
from appliance.store.exporting import Change
from appliance.store.frames import COMPACT, DELETE, FACT, PUT

_FRAME_BYTES = 64 << 10


_NONE: Mapping[bytes, bytes] = MappingProxyType({})


def backup_of(
    changes: Iterable[Change], compacted_revision: int = 0, facts: Mapping[bytes, bytes] = _NONE
) -> Iterator[bytes]:
    """The chunks of a backup. Changes come in the order of revisions, those from before the compacted one too."""
    salt = bytes.fromhex(entropy.token(8))
    yield frames.encode_segment_header(frames.SegmentHeader(0, salt, 1, 0))
    packed = [frames.encode_record(FACT, name, value, 0) for name, value in facts.items()]
    sequence = count = size = last = 0
    for change in changes:
        if change.revision != last and size >= _FRAME_BYTES:  # whole revisions in a frame
            sequence, count = sequence + 1, count + len(packed)
            yield frames.encode_frame(b"".join(packed), sequence, salt)
            packed, size = [], 0
        last = change.revision
        if change.deleted:
            record = frames.encode_record(DELETE, change.key, b"", last)
        else:
            rest = (change.create_revision, change.version, change.lease)
            record = frames.encode_record(PUT, change.key, change.value, last, *rest)
        packed.append(record)
        size += len(record)
    if compacted_revision:
        packed.append(frames.encode_record(COMPACT, b"", b"", compacted_revision))
    if packed:
        sequence, count = sequence + 1, count + len(packed)
        yield frames.encode_frame(b"".join(packed), sequence, salt)
    end = frames.encode_record(END, b"", b"", max(last, compacted_revision, 1), version=count)
    yield frames.encode_frame(end, sequence + 1, salt)
