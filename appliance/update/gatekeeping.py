"""The gates between a fetched version and its switch: hold, window, loop breaker, users, lock.

An automatic update waits for all of them, and is asked again when the one that is shut opens. A person's is refused
(exit code 6); who says ``--now`` knows about window and holds. The lock binds everybody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from appliance.errors import ApplianceError, NotYetError, UnavailableError
from appliance.host import clock, entropy, files, terminals
from appliance.host.terminals import Terminal
from appliance.schema import format_duration
from appliance.update.cluster_lock import Claim, ClusterLock, claim_of, claim_to_json, parse_claim
from appliance.update.fleetlock import FleetLock
from appliance.update.holds import Hold, hold_of_file, holds_to_json, parse_holds, with_hold
from appliance.update.memory import Memory
from appliance.update.policy import format_time
from appliance.update.rollout import Goal
from appliance.update.settings import UpdateSettings
from appliance.update.windows import DAY_SECONDS, open_until, opens_at

_KEY = "gates"
_LOCK_WAIT_FIRST, _LOCK_WAIT_MAX = 10.0, 600.0
_RELEASE_WAIT_FIRST, _RELEASE_WAIT_MAX = 1.0, 300.0
_HOLD_FILE_MAX = 4096
REBOOT_GRACE = 300.0


@dataclass(frozen=True, kw_only=True)
class Shut:
    """A gate that is shut, and when it opens by itself (seconds since 1970), if it does."""

    gate: str
    reason: str
    opens: float | None = None


@dataclass(kw_only=True)
class Doorway:
    """What the gates ask of the world; tests have their own."""

    identity: Callable[[], str]
    holds_directory: str
    ends_machine: bool = False  # a switch is a reboot
    product: str = ""  # named to people
    publish: Callable[..., None] = lambda *_, **__: None
    lock: ClusterLock = field(default_factory=FleetLock)
    wall: Callable[[], float] = clock.wall_seconds
    people: Callable[[], Sequence[Terminal]] = terminals.logged_in
    tell: Callable[[Sequence[Terminal], str], int] = terminals.tell


class Gatekeeper:
    """One product's gates. What must outlive us is one value in the memory."""

    def __init__(self, memory: Memory, settings: Callable[[], UpdateSettings], doorway: Doorway) -> None:
        self._memory = memory
        self._settings = settings
        self._door = doorway
        self._loaded = False
        self._held: tuple[Hold, ...] = ()
        self._switches: tuple[float, ...] = ()
        self._tripped = False
        self._claim: Claim | None = None  # what we may hold
        self._known_time = 0.0
        self._warned: tuple[str, float] | None = None  # of which version, and when
        self._refusals = 0
        self._greeted = False  # the server knows that we hold nothing
        self._busy = trio.Lock()  # the lock is asked for, or given back
        self._want_back = False
        self._wake_send, self._wake = trio.open_memory_channel[None](1)
        self.waiting: Shut | None = None
        self.lock_problem = ""

    # --- what is known ---

    def time_here(self) -> float:
        """The host's clock, unless signed metadata knows better."""
        return max(self._door.wall(), self._known_time)

    def know_time(self, seconds: float) -> None:
        """It is at least that late."""
        self._known_time = seconds if seconds > self._door.wall() else 0.0

    def forget_waiting(self) -> None:
        """A new attempt begins."""
        self.waiting = None

    async def _load(self) -> None:
        """Raises UnavailableError: who held updates back is in the store, so nothing passes without it."""
        if self._loaded:
            return
        kept = await self._memory.read_value(_KEY)
        self._held = parse_holds(kept.get("holds"))
        switches = kept.get("switches")
        self._switches = tuple(float(one) for one in switches) if isinstance(switches, list) else ()
        self._tripped = bool(kept.get("tripped"))
        self._claim = parse_claim(kept.get("claim"))
        self._loaded = True

    async def _keep(self, **changes: Any) -> None:
        """Durable when it returns, and only then so here."""
        held, switches = changes.get("held", self._held), changes.get("switches", self._switches)
        tripped, claim = changes.get("tripped", self._tripped), changes.get("claim", self._claim)
        await self._memory.write_value(
            _KEY,
            {
                "holds": holds_to_json(held), "switches": list(switches), "tripped": tripped,
                "claim": claim_to_json(claim) if claim else None,
            },
        )  # fmt: skip
        self._held, self._switches, self._tripped, self._claim = held, switches, tripped, claim

    # --- holds ---

    def holds(self) -> tuple[Hold, ...]:
        """Those in force: of people, and of files."""
        now = self.time_here()
        return tuple(hold for hold in (*self._held, *self._files()) if hold.holds(now))

    def _files(self) -> tuple[Hold, ...]:
        directory, found = self._door.holds_directory, []
        with contextlib.suppress(ApplianceError):
            for name in sorted(files.list_directory(directory))[:100] if files.exists(directory) else ():
                path = f"{directory}/{name}"
                with contextlib.suppress(ApplianceError):
                    about = files.file_stat(path)
                    if not name.startswith(".") and not about.is_directory:
                        text = files.read_bytes(path, size_max=_HOLD_FILE_MAX).decode(errors="replace")
                        found.append(hold_of_file(name, text, about.modified_seconds))
        return tuple(found)

    async def hold(self, hold: Hold) -> None:
        """Durable when it returns. Raises UnavailableError."""
        await self._load()
        now = self.time_here()
        await self._keep(held=with_hold((one for one in self._held if one.holds(now)), hold))

    async def unhold(self, name: str) -> bool:
        """End that one (all of people's, without a name); False: there was none. Raises UnavailableError."""
        await self._load()
        kept = tuple(one for one in self._held if name and one.name != name)
        found = any(one.holds(self.time_here()) for one in self._held if one not in kept)
        await self._keep(held=kept)
        if name and (path := f"{self._door.holds_directory}/{name}") and files.exists(path):
            files.remove(path)
            found = True
        return found

    # --- each gate ---

    def hold_gate(self) -> Shut | None:
        """Somebody holds updates back."""
        holds = self.holds()
        if not holds:
            return None
        last = max(holds, key=lambda hold: hold.until)
        said = "; ".join(f"{hold.name}: {hold.why} (until {format_time(hold.until)})" for hold in holds)
        return Shut(gate="hold", reason=said, opens=last.until)

    def window_gate(self) -> Shut | None:
        """No window is open."""
        settings, now = self._settings(), self.time_here()
        if settings.strategy == "manual" or not settings.window:
            return None
        windows = settings.windows()
        if open_until(windows, now) is not None:
            return None
        opens = opens_at(windows, now)
        return Shut(
            gate="window", opens=opens,
            reason=f"the next window opens at {format_time(opens)}" if opens else "no window ever opens",
        )  # fmt: skip

    def loop_gate(self) -> Shut | None:
        """There were too many switches within a day: something goes round in circles, and a person should look."""
        if not self._tripped:
            return None
        count = len(self._recent())
        return Shut(gate="loop", reason=f"{count} switches within a day: none by itself until a person applies one")

    def _recent(self) -> tuple[float, ...]:
        now = self.time_here()
        return tuple(one for one in self._switches if abs(now - one) < DAY_SECONDS)

    def lock_gate(self) -> Shut | None:
        """As far as was tried: whether others hold it, only the server knows."""
        if self._settings().strategy != "lock" or not self.lock_problem:
            return None
        opens = self.waiting.opens if self.waiting and self.waiting.gate == "lock" else None
        return Shut(gate="lock", reason=self.lock_problem, opens=opens)

    def grace(self) -> float:
        """How long people on terminals are given."""
        said = self._settings().user_grace
        return (REBOOT_GRACE if self._door.ends_machine else 0.0) if said is None else said

    def users_gate(self, version: str, *, warn: bool = False) -> Shut | None:
        """People on terminals were warned, and have some time."""
        if (grace := self.grace()) <= 0 or not (people := self._door.people()):
            return None
        now = self.time_here()
        if self._warned is None or self._warned[0] != version or now < self._warned[1] - 60:
            if not warn:
                return None
            self._warned = (version, now)
            what = "this machine restarts with" if self._door.ends_machine else f"{self._door.product} switches to"
            said = f"appliance: {what} version {version} in {format_duration(grace)} (appliance update hold --for 2h)"
            self._door.tell(people, said)
        opens = self._warned[1] + grace
        if now >= opens:
            return None
        names = ", ".join(sorted({one.user for one in people}))
        return Shut(gate="users", reason=f"{names} on {len(people)} terminals warned", opens=opens)

    def _first_shut(self, goal: Goal) -> Shut | None:
        if goal.now:
            return None
        found = [self.hold_gate(), self.window_gate(), self.loop_gate() if goal.automatic else None]
        return next((one for one in found if one is not None), None)

    # --- all of them ---

    async def go_through(self, goal: Goal, version: str) -> None:
        """Until all are open and the lock is ours. Raises NotYetError; ``waiting`` says which, and until when."""
        await self._load()
        self._raise(self._first_shut(goal))
        if goal.automatic:
            self._raise(self.users_gate(version, warn=True))
        elif people := self._door.people() if self.grace() > 0 else ():
            self._door.tell(people, f"appliance: a person switches {self._door.product} to version {version} now")
        if claim := claim_of(self._settings(), self._door.identity()):
            await self._take(claim)
            try:
                self._raise(self._first_shut(goal))  # it may have taken long
            except NotYetError:
                self._release()
                raise
        await self._count(goal)

    def _raise(self, shut: Shut | None) -> None:
        if shut is None:
            return
        if self.waiting != shut:
            self._door.publish("update", "waiting", reason=shut.reason, gate=shut.gate)
        self.waiting = shut
        until = f", opens at {format_time(shut.opens)}" if shut.opens and shut.gate != "window" else ""
        raise NotYetError(f"cannot switch yet: {shut.gate}: {shut.reason}{until}")

    async def _take(self, claim: Claim) -> None:
        async with self._busy:
            self._want_back = False
            if self._claim not in (None, claim):
                await self._give_back()
            await self._keep(claim=claim)
            try:
                await self._door.lock.take(claim)
            except (NotYetError, UnavailableError) as exc:
                wait = min(_LOCK_WAIT_MAX, _LOCK_WAIT_FIRST * 2.0 ** min(self._refusals, 10))
                self._refusals += 1
                self.lock_problem = exc.message
                opens = self.time_here() + wait * entropy.uniform(0.75, 1.25)
                self._raise(Shut(gate="lock", reason=exc.message, opens=opens))
            self._refusals, self.lock_problem = 0, ""

    async def _count(self, goal: Goal) -> None:
        """A switch follows. Too many of ours in a day, and the next waits for a person; theirs begins anew."""
        if not goal.automatic:
            return await self._keep(switches=(self.time_here(),), tripped=False)
        recent = self._recent()
        if len(recent) >= self._settings().switches_a_day:
            await self._keep(switches=recent, tripped=True)
            self._release()
            self._raise(self.loop_gate())
        await self._keep(switches=(*recent, self.time_here()))

    # --- afterwards ---

    async def remember(self) -> None:
        """What was kept. Never raises: without a store nothing passes, and it is tried again."""
        with contextlib.suppress(ApplianceError):
            await self._load()

    async def settle(self) -> None:
        """Nothing is under way: a lock that we may hold is given back (by ``run``, as long as that takes).

        After a start it is, whatever we know of it, as FleetLock asks for: what we knew may have been lost with a disk.
        """
        await self.remember()
        if self._loaded and not self._greeted:
            self._greeted = True
            if self._claim is None and (claim := claim_of(self._settings(), self._door.identity())):
                with contextlib.suppress(ApplianceError):
                    await self._keep(claim=claim)
        if self._claim is not None:
            self._release()

    def _release(self) -> None:
        self._want_back = True
        with contextlib.suppress(trio.WouldBlock):
            self._wake_send.send_nowait(None)

    @property
    def holds_lock(self) -> bool:
        """As far as we know."""
        return self._claim is not None

    async def run(self) -> None:
        """Give locks back, again and again until it is done; for ever."""
        while True:
            await self._wake.receive()
            wait = _RELEASE_WAIT_FIRST
            while not await self._given_back():
                await trio.sleep(wait * entropy.uniform(0.75, 1.25))
                wait = min(_RELEASE_WAIT_MAX, wait * 2)

    async def _given_back(self) -> bool:
        async with self._busy:
            if not self._want_back:
                return True  # it was taken again meanwhile
            try:
                await self._give_back()
            except ApplianceError as exc:
                self.lock_problem = exc.message
                return False
            self._want_back = False
            return True

    async def _give_back(self) -> None:
        if self._claim is not None:
            await self._door.lock.give_back(self._claim)
            self.lock_problem = ""
            await self._keep(claim=None)
