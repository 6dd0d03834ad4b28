"""Before a thorough compaction: the history that is kept, staged once more behind everything else.

Then no older segment is needed for it, and all of them may go. It is one frame, staged in one step, so that nothing is
written in between: from the first segment that is left the log has every revision once, in order. Until the others are
gone it has some twice; whoever reads on in order skips what is not newer than what came before.
"""

from __future__ import annotations

from collections.abc import Iterator

from appliance.store import frames
from appliance.store.frames import (
    BURIED,
    COMPACT,
    DELETE,
    DELETE_RANGE,
    LOCATION_MASK,
    OFFSET_BITS,
    OFFSET_MASK,
    PUT,
    SEGMENT_HEADER_SIZE,
    Record,
)  # fmt: skip
from appliance.store.tree import Tree

REWRITE_BYTES_MAX = 1 << 20  # of log to look through, with the loop waiting


def rewrite_history(tree: Tree) -> bool:
    """Stage it, in a new segment. Only when all is durable.

    False: nothing was staged, and the newest segments stay: there is too much, or what a range tombstone deleted.
    """
    compacted, log = tree.compacted_revision, tree.log
    if not compacted or tree.revision != tree.durable_revision:
        return False
    begin = tree.marks.before(compacted - 1)
    behind = [segment for number, segment in sorted(log.segments.items()) if number >= begin >> OFFSET_BITS]
    if sum(segment.end for segment in behind[1:]) > REWRITE_BYTES_MAX:
        return False
    if behind and behind[0].end - _first_offset(begin, behind[0].number) > REWRITE_BYTES_MAX:
        return False
    history = list(_history(tree, begin))
    if any(record.kind in (DELETE_RANGE, BURIED) for record in history):
        return False
    log.begin_segment()
    tree.write(COMPACT, b"", b"", compacted)
    newest: dict[bytes, int] = {}
    for record in history:
        key = record.key
        tree.write(
            record.kind, key, record.value, record.mod, create=record.create, version=record.version,
            lease=record.lease, prev=newest.get(key, record.prev),
        )  # fmt: skip
        newest[key] = tree.index.find(key) & LOCATION_MASK
    return True


def _first_offset(begin: int, number: int) -> int:
    return begin & OFFSET_MASK if begin >> OFFSET_BITS == number else SEGMENT_HEADER_SIZE


def _history(tree: Tree, begin: int) -> Iterator[Record]:
    log, seen = tree.log, 0
    for number, segment in sorted(log.segments.items()):
        if frames.location(number, segment.end) <= begin:
            continue
        for _, body in log.frames_from(segment, _first_offset(begin, number)):
            records = [record for _, record in frames.decode_records(body)]
            for record in records:
                if record.kind in (PUT, DELETE, DELETE_RANGE, BURIED) and record.mod > max(
                    seen, tree.compacted_revision - 1
                ):
                    yield record
            seen = max(seen, *(record.mod for record in records))
