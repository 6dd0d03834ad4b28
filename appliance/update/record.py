"""The slot record: which version runs, which is on trial, which are denied. Pure codec and pure changes.

The launcher reads it in C and spends the tries; the bytes are fixed by the contract in ``docs`` of that program:
two copies of 4096 bytes, ASCII lines, the last one a CRC of those before it, padded with newlines.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from typing import Literal

from appliance.errors import CorruptError

COPY_SIZE = 4096
DENIED_MAX = 40
SlotName = Literal["a", "b"]
SLOTS: tuple[SlotName, ...] = ("a", "b")
PRIORITY_TRIAL, PRIORITY_BLESSED, PRIORITY_FALLBACK = 3, 2, 1

SEQUENCE_MAX = 2**64 - 2

_VERSION = r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}"
_HASH = r"[0-9a-f]{64}"
_CHECK = re.compile(rb"^check ([0-9a-f]{8})\n", re.MULTILINE)
_SEQUENCE = re.compile(r"sequence ([0-9]{1,20})")
_BASE = re.compile(rf"base ({_HASH}|-)")
_SLOT = re.compile(
    rf"slot ([ab]) ({_VERSION}|-) ({_HASH}|-) priority=([0-9]{{1,3}}) tries=([0-9]{{1,3}}) blessed=([01])(?: .*)?"
)
_DEADLINE = re.compile(r"deadline ([0-9]{1,6})")
_DENIED = re.compile(rf"denied ({_VERSION}) ({_HASH})")


@dataclass(frozen=True)
class SlotEntry:
    """What the record says of one slot; empty version and sha256: it holds nothing."""

    version: str = ""
    sha256: str = ""
    priority: int = 0
    tries: int = 0
    blessed: bool = False

    @property
    def may_run(self) -> bool:
        """Whether the launcher may pick it."""
        return self.blessed or self.tries > 0

    @property
    def on_trial(self) -> bool:
        """Armed and not settled; its tries may be spent (then it died without a word)."""
        return bool(self.version) and not self.blessed and self.priority > 0


@dataclass(frozen=True)
class SlotRecord:
    """The whole record. Every change is a new record with the next sequence number; nothing here touches the disk."""

    sequence: int = 0
    base: str = ""
    a: SlotEntry = SlotEntry()
    b: SlotEntry = SlotEntry()
    deadline: int = 600
    denied: tuple[tuple[str, str], ...] = ()
    unknown: tuple[str, ...] = ()  # lines of a newer version, kept as they are

    def entry(self, slot: SlotName) -> SlotEntry:
        """The entry by name."""
        return self.a if slot == "a" else self.b

    def _with(self, slot: SlotName, entry: SlotEntry) -> SlotRecord:
        return replace(self, a=entry) if slot == "a" else replace(self, b=entry)

    def _next(self) -> SlotRecord:
        return replace(self, sequence=self.sequence + 1)

    def cleared(self, slot: SlotName) -> SlotRecord:
        """The slot holds nothing: said before its file is touched."""
        return self._with(slot, SlotEntry())._next()

    def armed(self, slot: SlotName, *, version: str, sha256: str, tries: int, deadline: int) -> SlotRecord:
        """The slot is to be started next, ``tries`` times at most. The commit point of an update."""
        allowed = tuple(denied for denied in self.denied if denied[0] != version and denied[1] != sha256)
        record = replace(self, deadline=deadline, denied=allowed)
        return record._with(slot, SlotEntry(version, sha256, PRIORITY_TRIAL, tries, False))._next()

    def spent(self, slot: SlotName) -> SlotRecord:
        """One try less: a start begins."""
        entry = self.entry(slot)
        return self._with(slot, replace(entry, tries=max(0, entry.tries - 1)))._next()

    def blessed_as(self, slot: SlotName) -> SlotRecord:
        """The slot proved itself; the other one stays as the fallback."""
        old = self.entry(other(slot))
        record = self._with(other(slot), replace(old, priority=PRIORITY_FALLBACK if old.blessed else 0, tries=0))
        return record._with(slot, replace(self.entry(slot), priority=PRIORITY_BLESSED, tries=0, blessed=True))._next()

    def condemned(self, slot: SlotName) -> SlotRecord:
        """The slot is never picked again, and its version never taken again."""
        bad, good = self.entry(slot), self.entry(other(slot))
        denied = self.denied
        if bad.version and bad.sha256:
            this = (bad.version, bad.sha256)
            denied = (*(item for item in denied if item != this), this)
        record = replace(self, denied=denied[-DENIED_MAX:])
        record = record._with(other(slot), replace(good, priority=PRIORITY_BLESSED if good.blessed else good.priority))
        return record._with(slot, replace(bad, priority=0, tries=0, blessed=False))._next()

    def seeded(self, slot: SlotName, *, version: str, sha256: str, base: str) -> SlotRecord:
        """A person dropped a binary: it is blessed by that, and what was on trial is dropped."""
        old = self.entry(other(slot))
        kept = replace(old, priority=PRIORITY_FALLBACK, tries=0) if old.blessed else SlotEntry()
        record = replace(self, base=base)._with(other(slot), kept)
        return record._with(slot, SlotEntry(version, sha256, PRIORITY_BLESSED, 0, True))._next()


def other(slot: SlotName) -> SlotName:
    """The slot that this one is not."""
    return "b" if slot == "a" else "a"


def pick(record: SlotRecord) -> SlotName | None:
    """The launcher's rule, for tests and for ``explain``: the highest priority that may run; on a tie, a."""
    able = [slot for slot in SLOTS if record.entry(slot).may_run]
    return max(able, key=lambda slot: record.entry(slot).priority, default=None)


def format_copy(record: SlotRecord) -> bytes:
    """One copy, COPY_SIZE bytes. The oldest denied versions go when there is no room for all."""
    lines = [f"appliance-slots 1\nsequence {record.sequence}\nbase {record.base or '-'}\n"]
    for name in SLOTS:
        entry = record.entry(name)
        lines.append(
            f"slot {name} {entry.version or '-'} {entry.sha256 or '-'} "
            f"priority={entry.priority} tries={entry.tries} blessed={int(entry.blessed)}\n"
        )
    lines.append(f"deadline {record.deadline}\n")
    lines.extend(line + "\n" for line in record.unknown)
    denied = [f"denied {version} {sha256}\n" for version, sha256 in record.denied[-DENIED_MAX:]]
    room = COPY_SIZE - sum(map(len, lines)) - len("check 01234567\n")
    while sum(map(len, denied)) > room:
        del denied[0]
    body = "".join((*lines, *denied)).encode("ascii")
    return (body + b"check %08x\n" % zlib.crc32(body)).ljust(COPY_SIZE, b"\n")


def parse_copy(data: bytes) -> SlotRecord | None:
    """The record in one copy; None when it is not whole, which is what a power cut leaves.

    Nothing after the check line counts: to the launcher, too, what was lost or torn there was only padding.
    """
    check = _CHECK.search(data)
    body = data[: check.start()] if check else b""
    if len(data) != COPY_SIZE or not check or int(check[1], 16) != zlib.crc32(body) or not body.isascii():
        return None
    first, *lines = body.decode("ascii").split("\n")[:-1]
    if first != "appliance-slots 1":
        return None
    record, entries, seen = SlotRecord(), dict[str, SlotEntry](), set[str]()
    denied, unknown = list[tuple[str, str]](), list[str]()
    for line in lines:
        word = line.partition(" ")[0]
        if match := _SLOT.fullmatch(line):
            word = match[1]
            empty = match[2] == "-" or match[3] == "-"
            entries[word] = SlotEntry(
                "" if empty else match[2], "" if empty else match[3], int(match[4]), int(match[5]), match[6] == "1"
            )
        elif match := _SEQUENCE.fullmatch(line):
            record = replace(record, sequence=int(match[1]))
        elif match := _BASE.fullmatch(line):
            record = replace(record, base="" if match[1] == "-" else match[1])
        elif match := _DEADLINE.fullmatch(line):
            record = replace(record, deadline=int(match[1]))
        elif match := _DENIED.fullmatch(line):
            denied.append((match[1], match[2]))
            continue
        elif word in ("sequence", "base", "deadline", "slot", "denied") or not word:
            return None
        else:
            unknown.append(line)
            continue
        if word in seen:
            return None
        seen.add(word)
    if seen != {"sequence", "base", "deadline", "a", "b"} or record.sequence > SEQUENCE_MAX:
        return None
    return replace(record, a=entries["a"], b=entries["b"], denied=tuple(denied[-DENIED_MAX:]), unknown=tuple(unknown))


def read_record(data: bytes) -> tuple[SlotRecord | None, int]:
    """The record in the file's bytes, and the number (0, 1) of the copy to overwrite first next time.

    None when there is no file yet. Raises CorruptError when neither copy is whole.
    """
    if not data:
        return None, 1
    data = data.ljust(2 * COPY_SIZE, b"\0")  # cut off in its padding: whole, as the launcher sees it too
    copies = [parse_copy(data[start : start + COPY_SIZE]) for start in (0, COPY_SIZE)]
    first, second = copies
    if first is None and second is None:
        raise CorruptError("cannot read the slot record: neither copy is whole")
    if first is None or (second is not None and second.sequence > first.sequence):
        return second, 0
    return first, 1
