"""Prove every checksum and every way through the index, with the store not running. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import ApplianceError, CorruptError
from appliance.host.disk import Disk
from appliance.store import frames
from appliance.store.frames import DEAD, DELETE, LOCATION_MASK, OFFSET_MASK, SEGMENT_HEADER_SIZE
from appliance.store.index import Index
from appliance.store.opening import open_tree
from appliance.store.tree import Tree

PROBLEMS_MAX = 100


@dataclass(frozen=True)
class CheckReport:
    """``problems`` is empty when all is well; each names a file and byte, or a key."""

    revision: int
    compacted_revision: int
    keys: int
    segments: int
    records: int
    size_bytes: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check(disk: Disk) -> CheckReport:
    """Read all of it. Raises InputError for a newer format."""
    try:
        opened = open_tree(disk, segment_bytes=64 << 20, reserve_bytes=0, repair=False)
    except CorruptError as exc:
        return CheckReport(0, 0, 0, 0, 0, 0, (exc.message,), ())
    tree = opened.tree
    try:
        problems: list[str] = []
        records = _check_log(tree, problems)
        _check_index(tree, tree.index, problems)
        _check_index(tree, tree.settled, problems)
        return CheckReport(
            tree.revision, tree.compacted_revision, tree.index.size - tree.index.dead, len(tree.log.segments),
            records, tree.log.size_bytes(), tuple(problems[:PROBLEMS_MAX]), opened.notes,
        )  # fmt: skip
    finally:
        tree.log.close()


def _check_log(tree: Tree, problems: list[str]) -> int:
    records = 0
    for segment in tree.log.segments.values():
        try:
            for _, body in tree.log.frames_from(segment, SEGMENT_HEADER_SIZE):
                records += sum(1 for _ in frames.decode_records(body))
        except ApplianceError as exc:
            problems.append(exc.message)
    return records


def _check_index(tree: Tree, index: Index, problems: list[str]) -> None:
    before = b""
    for entry in index.scan(b"\0", b"\0"):
        at = entry & LOCATION_MASK
        where = f"{frames.segment_name(at >> frames.OFFSET_BITS)} byte {at & OFFSET_MASK}"
        try:
            record = tree.log.record(at)
        except ApplianceError as exc:
            key = _key_if_readable(tree, at)
            problems.append(f"key {key!r}: {exc.message}" if key else exc.message)
            continue
        if record.key <= before:
            problems.append(f"key {record.key!r} ({where}): the index has it behind {before!r}")
        if (record.kind == DELETE) and entry < DEAD:
            problems.append(f"key {record.key!r} ({where}): the index calls it live, the log deleted")
        before = record.key


def _key_if_readable(tree: Tree, at: int) -> bytes:
    try:
        return tree.log.key(at)[:256]
    except ApplianceError:
        return b""
