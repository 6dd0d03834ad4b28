"""What is kept beside the keys: facts, and among them the alarms; and the quota that raises one of them.

An alarm is a fact whose value says who raised it: we ourselves, or, by the word of a client, other members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from appliance.errors import ApplianceError, CorruptError
from appliance.store.faults import NoSpaceError
from appliance.store.frames import FACT
from appliance.store.hashing import hash_slices
from appliance.store.life import Engine, Life
from appliance.store.results import StoreStatus

Settled = Callable[[ApplianceError | None], None]
NO_SPACE = b"alarm/nospace"  # the quota was reached
CORRUPT = b"alarm/corrupt"  # something that was read is not what was written
ALARMS = (NO_SPACE, CORRUPT)
_OURSELVES = b"1"


class Keeping(Life):
    """The part of a ``Store`` that knows facts."""

    def facts(self, prefix: bytes) -> dict[bytes, bytes]:
        """What is kept beside the keys under names that begin so; what is still being written is there already."""
        return {name: value for name, value in self._reading().facts.items() if name.startswith(prefix)}

    def submit_facts(self, facts: Mapping[bytes, bytes], done: Settled, *, always: bool = False) -> None:
        """Keep them, an empty one no longer: all or none, without a revision. ``done`` is called once, when durable.

        They are in memory and in every checkpoint, so they should be small and few. ``always``: over the quota, too.
        """
        try:
            engine = self._engine_for_writing()
            if not always:
                self._check_room(engine, sum(len(name) + len(value) for name, value in facts.items() if value))
        except ApplianceError as exc:
            done(exc)
            return
        self._keep(engine, facts, done)

    @property
    def alarmed(self) -> bool:
        """Whether the quota was reached, and nobody has disarmed the alarm since."""
        return bool(self.quota) and NO_SPACE in self._reading().facts

    @property
    def corrupt(self) -> bool:
        """Whether damage was met, and nobody has disarmed the alarm since: clients may not write then."""
        engine = self._engine
        return engine is not None and CORRUPT in engine.tree.facts

    def alarms(self) -> list[tuple[bytes, int | None]]:
        """(which, member) of all that are raised; None is ourselves."""
        facts = self._reading().facts
        return [(kind, _member(word)) for kind in ALARMS for word in facts.get(kind, b"").split(b",") if word]

    def set_alarm(self, on: bool, done: Settled, *, kind: bytes = NO_SPACE, member: int | None = None) -> None:
        """Raise or disarm one, for good. What still is so raises it again at the next write, or read."""
        try:
            engine = self._engine_for_writing()
        except ApplianceError as exc:
            done(exc)
            return
        words = [word for word in engine.tree.facts.get(kind, b"").split(b",") if word and _member(word) != member]
        words += [_OURSELVES if member is None else b"m%d" % member] if on else []
        self._keep(engine, {kind: b",".join(words)}, done)

    def met_damage(self, exc: CorruptError) -> None:
        """Somebody was not given what was written: that is not forgotten."""
        engine = self._engine
        if engine is None or not self._accepting or CORRUPT in engine.tree.facts:
            return
        super().met_damage(exc)
        self._keep(engine, {CORRUPT: _OURSELVES}, lambda error: None)

    def _check_room(self, engine: Engine, wanted: int) -> None:
        """Raises NoSpaceError."""
        if not self.quota or not wanted:
            return
        tree = engine.tree
        if NO_SPACE not in tree.facts:
            log = tree.log
            size = log.size_bytes() + wanted
            if tree.in_flight is not None:
                size += tree.in_flight.size
            if log.open_batch is not None:
                size += log.open_batch.size
            if size <= self.quota:
                return
            self._keep(engine, {NO_SPACE: b"1"}, lambda error: None)
            self._tell("no-space", self._over_quota())
        raise NoSpaceError(f"cannot write to the store: {self._over_quota()}")

    def _over_quota(self) -> str:
        return f"its quota of {self.quota} bytes was reached; delete keys, compact, defragment and disarm the alarm"

    def _keep(self, engine: Engine, facts: Mapping[bytes, bytes], done: Settled) -> None:
        for name, value in facts.items():
            engine.tree.write(FACT, name, value, 0)
        batch = engine.committer.newest
        if batch is None:
            done(None)
            return
        batch.callbacks.append((done, None))
        engine.committer.kick()

    def done(self) -> dict[str, int]:
        """How many of each operation were done since it was opened."""
        tree = self._reading()
        return {"put": tree.puts, "delete": tree.deletes, "range": tree.ranges, "txn": tree.txns}

    def status(self) -> StoreStatus:
        """How it is; never raises."""
        engine = self._engine
        if engine is None:
            problem = "" if self._why_closed == "it is not open" else self._why_closed
            return StoreStatus("closed", problem, 0, 0, 0, len(self._hub), 0, 0, 0, 0, 0, 0)
        tree, committer, log = engine.tree, engine.committer, engine.tree.log
        problem = self._failed or committer.problem or committer.full or engine.upkeep.problem
        state = "failed" if self._failed or committer.problem else "full" if committer.full else "open"
        if state == "open" and self.alarmed:
            state, problem = "nospace", self._over_quota()
        elif state == "open" and self.corrupt:
            state = "corrupt"
            problem = problem or "damage was met: find it with `store check`, restore a backup, disarm the alarm"
        return StoreStatus(
            state, problem or "; ".join(self._notes), tree.durable_revision, tree.compacted_revision,
            tree.index.size - tree.index.dead, len(self._hub), committer.waiting(), len(log.segments),
            log.size_bytes(), committer.batches, committer.writes, engine.upkeep.checkpoint_revision,
        )  # fmt: skip

    async def hash(self, revision: int) -> int:
        """One number for all that was there at a revision. Nobody waits for it. Raises CompactedError."""
        slices = hash_slices(self._reading(), revision)
        while True:
            await trio.lowlevel.checkpoint()
            try:
                next(slices)
            except StopIteration as found:
                return int(found.value)
            except CorruptError as exc:
                self.met_damage(exc)
                raise


def _member(word: bytes) -> int | None:
    return int(word[1:]) if word.startswith(b"m") else None
