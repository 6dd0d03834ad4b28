"""From files to a tree: checkpoint, then replay of what is behind it. A torn tail is cut, any other tear is refused.

Only one frame is ever being written, and the one before it was durable. So a frame that does not hold is a torn tail
exactly when no frame that holds comes after it; else the middle of the log was damaged, and nobody may guess.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import CorruptError
from appliance.host.disk import Disk, DiskFile
from appliance.store import checkpoint as checkpoints
from appliance.store import frames
from appliance.store.checkpoint import Checkpoint
from appliance.store.frames import FRAME_HEADER_SIZE, OFFSET_BITS, OFFSET_MASK, SEGMENT_HEADER_SIZE, SegmentHeader
from appliance.store.log import Batch, Log, Segment
from appliance.store.tree import Tree

RESTORING = "restoring"  # a file that is there while a restore is under way
_WINDOW = 4 << 20


@dataclass(frozen=True)
class Opened:
    """``notes``: what a person should hear of (a copy of the checkpoint that does not hold, a tail that was cut)."""

    tree: Tree
    replayed: int
    checkpoint_revision: int
    notes: tuple[str, ...]


class _Opening:
    def __init__(self, disk: Disk, log: Log, *, repair: bool) -> None:
        self.disk = disk
        self.log = log
        self.tree = Tree(log)
        self.repair = repair
        self.replayed = 0
        self.last_frame: tuple[Segment, int, bytes] | None = None
        self.notes: list[str] = []

    def open(self) -> Opened:
        names = self.disk.names()
        numbers = sorted(n for n in map(frames.segment_number, names) if n is not None)
        if RESTORING in names:
            path = self.disk.path(RESTORING)
            raise CorruptError(f"cannot open {self.disk.path('')}: a restore was cut off; run it again", where=path)
        checkpoint, problems = checkpoints.read_checkpoint(self.disk, names)
        self.notes += problems
        if checkpoint is not None:
            first = self._load(checkpoint, numbers)
        else:
            first = 1
            if numbers[:1] not in ([], [1]):
                why = problems[0] if problems else "the checkpoint is missing"
                raise CorruptError(
                    f"cannot open {self.disk.path('')}: the log begins with segment {numbers[0]}, which needs a "
                    f"checkpoint: {why}; restore a backup",
                    where=self.disk.path(checkpoints.NAMES[0]),
                )
        self._replay([number for number in numbers if number >= first])
        if self.repair:
            self._tidy(names)
        tree, log = self.tree, self.log
        tree.durable_revision = tree.revision
        log.durable_end = frames.location(log.next_segment, log.next_offset)
        return Opened(tree, self.replayed, checkpoint.revision if checkpoint else 0, tuple(self.notes))

    def _load(self, checkpoint: Checkpoint, numbers: list[int]) -> int:
        tree, log = self.tree, self.log
        tree.revision = checkpoint.revision
        tree.compacted_revision = checkpoint.compacted_revision
        tree.tombstones = checkpoint.tombstones
        tree.facts = checkpoint.facts
        tree.marks = checkpoint.marks
        checkpoints.load_index(tree.index, checkpoint.index)
        checkpoints.load_index(tree.settled, checkpoint.settled)
        active = checkpoint.position >> OFFSET_BITS
        for counts in checkpoint.segments:
            file, header = self._open_segment(counts.number)
            if header is None or file.size() < counts.end:
                raise self._corrupt(counts.number, 0 if header is None else file.size(), "the checkpoint knows of more")
            log.segments[counts.number] = Segment(
                counts.number, header.salt, file, counts.end, counts.end, counts.records, counts.dropped,
                counts.last_revision,
            )  # fmt: skip
        for number in numbers:
            if number < active and number not in log.segments and self.repair:
                self.disk.remove(frames.segment_name(number))  # given back by compaction, which was cut off here
        log.next_segment, log.next_offset = active, checkpoint.position & OFFSET_MASK
        log.next_sequence = checkpoint.next_sequence
        return active

    def _open_segment(self, number: int) -> tuple[DiskFile, SegmentHeader | None]:
        name = frames.segment_name(number)
        file = self.disk.open(name)
        header = frames.decode_segment_header(file.read(SEGMENT_HEADER_SIZE, 0), self.disk.path(name))
        if header is not None and header.number != number:
            raise self._corrupt(number, 0, f"it calls itself segment {header.number}")
        return file, header

    def _replay(self, numbers: list[int]) -> None:
        log = self.log
        for position, number in enumerate(numbers):
            is_last = position == len(numbers) - 1
            segment = log.segments.get(number)
            if segment is None:
                segment = self._meet_segment(number, numbers[position - 1] if position else 0, is_last=is_last)
                if segment is None:
                    return
                log.next_segment, log.next_offset = number, SEGMENT_HEADER_SIZE
            self._replay_segment(segment, log.next_offset)
            log.next_offset = segment.end

    def _meet_segment(self, number: int, before: int, *, is_last: bool) -> Segment | None:
        """A segment that the checkpoint does not know; None when its making was cut off."""
        log = self.log
        file, header = self._open_segment(number)
        if header is None:
            if is_last and not file.read(SEGMENT_HEADER_SIZE, SEGMENT_HEADER_SIZE).strip(b"\0"):
                file.close()
                if self.repair:
                    self.disk.remove(frames.segment_name(number))
                return None
            raise self._corrupt(number, 0, "the segment's header does not hold")
        if number != before + 1:
            raise self._corrupt(before + 1, 0, "the file is missing")
        end = log.segments[before].end if before else 0
        if header.previous_end != end:
            raise self._corrupt(before, end, f"a frame was expected here, the segment ends at {header.previous_end}")
        segment = Segment(number, header.salt, file, filled=SEGMENT_HEADER_SIZE)
        log.segments[number] = segment
        return segment

    def _replay_segment(self, segment: Segment, offset: int) -> None:
        size = segment.file.size()
        if offset > size:
            raise self._corrupt(segment.number, size, "the file is shorter than the checkpoint says")
        while True:
            header = frames.decode_frame_header(segment.file.read(FRAME_HEADER_SIZE, offset))
            if header is None or offset + FRAME_HEADER_SIZE + header.length > size:
                break
            body = segment.file.read(header.length, offset + FRAME_HEADER_SIZE)
            if not frames.frame_is_whole(header, body, segment.salt):
                break
            if header.sequence != self.log.next_sequence:
                why = f"frame {header.sequence} stands where {self.log.next_sequence} was expected"
                raise self._corrupt(segment.number, offset, why)
            segment.end = segment.filled = offset + FRAME_HEADER_SIZE + header.length
            self._apply_frame(segment, offset, header.sequence, body)
            self.last_frame = (segment, offset, body)
            offset = segment.end
        segment.end = segment.filled = offset
        later = self._frame_after(segment, offset, size)
        if later is not None:
            raise self._corrupt(segment.number, offset, f"the frame does not hold, but the one at byte {later} does")

    def _apply_frame(self, segment: Segment, offset: int, sequence: int, body: bytes) -> None:
        tree = self.tree
        batch = Batch(segment.number, offset, sequence, tree.revision)
        begin = frames.location(segment.number, offset + FRAME_HEADER_SIZE)
        records = 0
        for at, record in frames.decode_records(body):
            tree.apply(batch, begin + at, record.kind, record.key, record.value, record.mod, record.prev)
            records += 1
        tree.account(batch, records)
        self.replayed += records
        self.log.next_sequence = sequence + 1

    def _frame_after(self, segment: Segment, offset: int, size: int) -> int | None:
        at = offset + 1
        while at < size:
            window = segment.file.read(_WINDOW + FRAME_HEADER_SIZE, at)
            found = window.find(frames.FRAME_MAGIC)
            while 0 <= found < _WINDOW:
                header = frames.decode_frame_header(window, found)
                if header is not None and at + found + FRAME_HEADER_SIZE + header.length <= size:
                    body = segment.file.read(header.length, at + found + FRAME_HEADER_SIZE)
                    if frames.frame_is_whole(header, body, segment.salt):
                        return at + found
                found = window.find(frames.FRAME_MAGIC, found + 1)
            at += _WINDOW
        return None

    def _tidy(self, names: list[str]) -> None:
        """Cut the torn tail, and make what was replayed durable: the one who wrote it may have died before the sync."""
        for name in names:
            if name.endswith(".new"):
                self.disk.remove(name)
        segment = self.log.segments.get(self.log.next_segment)
        if segment is None:
            return
        size = segment.file.size()
        if size > segment.end:
            if segment.file.read(FRAME_HEADER_SIZE, segment.end).strip(b"\0"):
                path = self.disk.path(frames.segment_name(segment.number))
                self.notes.append(f"cut a torn tail off {path} at byte {segment.end}")
            segment.file.truncate(segment.end)
        if self.last_frame is not None:
            # After a failed sync the kernel may call pages clean that never reached the disk: write them anew.
            last, offset, body = self.last_frame
            last.file.write(frames.encode_frame(body, self.log.next_sequence - 1, last.salt), offset)
            last.file.sync()
        self.disk.sync_names()

    def _corrupt(self, number: int, offset: int, why: str) -> CorruptError:
        return self.log.corrupt(frames.location(number, offset), why)


def open_tree(disk: Disk, *, segment_bytes: int, reserve_bytes: int, repair: bool = True) -> Opened:
    """Raises CorruptError (which byte of which file), InputError (newer format). No ``repair``: nothing is written."""
    log = Log(disk, segment_bytes=segment_bytes, reserve_bytes=reserve_bytes)
    try:
        return _Opening(disk, log, repair=repair).open()
    except BaseException:
        log.close()
        raise
