"""The two slots of a user's bundle: directories a and b, and the link ``current``, which is what runs.

The record is that of our own slots. A version is unpacked beside its slot, read back and compared as a whole, then
gets the slot's name; arming is one write of the record; the switch is one renaming of the link.
"""

from __future__ import annotations

from appliance.errors import ConflictError, UnavailableError, UntrustedError
from appliance.host import files, trees
from appliance.host.bundle import Bundle
from appliance.host.failpoint import reach
from appliance.host.slots import SlotCalls
from appliance.update.record import SlotEntry, SlotName, SlotRecord, pick
from appliance.update.slots import BinarySlot, Slot, Slots


class BundleSlots(Slots):
    """``running`` is where ``current`` leads; before the first version that is b, which is empty."""

    beside = True

    def __init__(self, calls: SlotCalls, directory: str) -> None:
        super().__init__(calls, directory)

    def file(self, slot: SlotName) -> str:
        """Its tree."""
        return f"{self.directory}/{slot}"

    def load(self) -> SlotRecord:
        """As ever; a record that is lost is an empty one: what is fetched next is put in its place."""
        self.record = super().load() or SlotRecord()
        return self.record

    def running_slot(self, bundle: Bundle) -> SlotName | None:
        """Where ``current`` leads."""
        return "a" if trees.link_target(f"{self.directory}/current") == "a" else "b"

    def slot(self, name: SlotName) -> Slot:
        """One of the two."""
        return BundleSlot(self, name)

    def seed(self, source: str, *, version: str, base: str) -> SlotName:
        """Nobody drops a bundle as a file."""
        raise ConflictError(f"cannot seed a slot with {source}: a bundle comes from its repository")

    def holds(self, name: SlotName) -> bool:
        """Whether the tree is, byte by byte, what the record says."""
        entry = (self.record or SlotRecord()).entry(name)
        if not entry.sha256 or not files.is_directory(self.file(name)):
            return False
        return trees.measure_tree(self.file(name))[0] == entry.sha256

    def spend(self, slot: SlotName) -> None:
        """One try less."""
        record = self.load()
        entry = record.entry(slot)
        if entry.on_trial and entry.tries:
            self.put(record.spent(slot))

    def settle(self) -> SlotName | None:
        """Let ``current`` lead to what the record says; None: to nothing, for nothing may run."""
        record = self.load()
        link = trees.link_target(f"{self.directory}/current")
        now: SlotName | None = "a" if link == "a" else "b" if link == "b" else None
        if now is not None and record.entry(now).on_trial:
            return now
        wanted = pick(record)
        if wanted is None:
            self._calls.remove(f"{self.directory}/current")
            self._calls.sync_directory(self.directory)
        elif wanted != now:
            self._point_current(wanted)
            reach("bundle.switch.pointed")
            if record.entry(wanted).on_trial:
                self.spend(wanted)
        return wanted

    def point_current(self, slot: SlotName) -> None:
        """``settle`` does."""


class BundleSlot(BinarySlot):
    """A or b: a directory tree. Arming, blessing and condemning are those of a binary."""

    def __init__(self, slots: BundleSlots, name: SlotName) -> None:
        super().__init__(slots, name)
        self._tree = slots.file(name)
        self._fresh = self._tree + ".tmp"
        self._gone = self._tree + ".gone"

    def clear(self) -> None:
        """Make sure that nothing starts from it, then empty it."""
        if trees.link_target(f"{self._slots.directory}/current") == self.name and self._filled():
            raise ConflictError(f"cannot clear slot {self.name}: it runs")
        record = self._slots.load() or SlotRecord()
        if record.entry(self.name) != SlotEntry():
            self._slots.put(record.cleared(self.name))
        reach("bundle.clear.record")
        self._calls.make_directory(self._slots.directory)
        if files.is_directory(self._tree):
            files.remove_tree(self._gone)
            self._calls.rename(self._tree, self._gone)  # half a tree never bears the name
            self._calls.sync_directory(self._slots.directory)
        files.remove_tree(self._gone)
        files.remove_tree(self._fresh)

    def _filled(self) -> bool:
        entry = (self._slots.load() or SlotRecord()).entry(self.name)
        return bool(entry.version) and entry.priority > 0

    def write(self, source: str) -> None:
        """Unpack the fetched file beside it."""
        files.remove_tree(self._fresh)
        reach("bundle.write.piece")
        try:
            trees.unpack_tree(source, self._fresh)
        except (UnavailableError, UntrustedError):
            files.remove_tree(self._fresh)  # of no use, and on a full disk in everybody's way
            raise

    def verify(self, *, sha256: str, length: int) -> None:
        """Read the tree back as the file that it came from; compare; give it its name. Raises UntrustedError."""
        trees.forget_cached(self._fresh)
        found, size = trees.measure_tree(self._fresh)
        if (found, size) != (sha256, length):
            files.remove_tree(self._fresh)
            raise UntrustedError(
                f"cannot use slot {self.name}: read back {size} bytes with sha256 {found}, signed are {length} bytes "
                f"with sha256 {sha256}",
                where=self._fresh,
            )
        reach("bundle.verify.read")
        self._calls.rename(self._fresh, self._tree)
        self._calls.sync_directory(self._slots.directory)
