"""Paths that start a unit when something is there, or changes there: told by the kernel, never looked at in turn.

A path is watched as systemd does it: itself and every directory above it, so that one which is not there yet, or is
moved, or replaced, is seen when it comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from appliance.errors import ApplianceError, InputError, NotFoundError
from appliance.host import clock, file_marks
from appliance.host.inotify import (
    ATTRIBUTES,
    CREATED,
    DELETED,
    DELETED_SELF,
    MODIFIED,
    MOVED_FROM,
    MOVED_SELF,
    MOVED_TO,
    WRITTEN,
    Inotify,
    Watch,
)
from appliance.units.calling import CallUnit, told_by_path
from appliance.units.path_memory import PathMemory
from appliance.units.pictures import TriggerPicture
from appliance.units.timers import is_busy
from appliance.units.trigger_sections import PathSection

_LIMIT_SECONDS, _LIMIT_BURST = 2.0, 200  # systemd's
_APPEARS = CREATED | MOVED_TO | MOVED_SELF | DELETED_SELF
_INSIDE = CREATED | MOVED_TO | MOVED_FROM | DELETED | MOVED_SELF | DELETED_SELF | ATTRIBUTES
_CHANGES = WRITTEN | ATTRIBUTES | CREATED | DELETED | MOVED_TO | MOVED_FROM | MOVED_SELF | DELETED_SELF
_LOOKS_MAX = 10  # a tree that changes while we walk down it


@dataclass(kw_only=True)
class PathGround:
    """What all of them stand on."""

    inotify: Inotify
    memory: PathMemory
    call: CallUnit
    trouble: Callable[[str, str], None]


class _Condition:
    """One path and what is waited for there."""

    def __init__(self, kind: str, path: str, owner: Paths) -> None:
        self.kind = kind
        self.path = path
        self.mark = ""  # of the file, as it was when we last looked: for those that wait for a change
        self._owner = owner
        self._watches: list[Watch] = []

    @property
    def is_level(self) -> bool:
        """Whether it holds at one time or another, rather than being an event."""
        return self.kind in ("path_exists", "path_exists_glob", "directory_not_empty")

    def holds(self) -> bool:
        match self.kind:
            case "path_exists":
                return file_marks.exists(self.path)
            case "path_exists_glob":
                return file_marks.matches(self.path)
            case "directory_not_empty":
                return file_marks.has_entries(self.path)
            case _:
                return False

    def watch(self) -> None:
        """Put it under the kernel's eyes, with all directories above it. Raises ApplianceError."""
        before = self._watches
        self._watches = []
        try:
            for _ in range(_LOOKS_MAX):
                if self._walk():
                    break
        finally:
            for watch in before:
                self._owner.ground.inotify.remove(watch)

    def unwatch(self) -> None:
        for watch in self._watches:
            self._owner.ground.inotify.remove(watch)
        self._watches = []

    def _walk(self) -> bool:
        """False: something came while we walked, and is not watched yet."""
        inotify = self._owner.ground.inotify
        for watch in self._watches:
            inotify.remove(watch)
        self._watches = []
        path = file_marks.before_pattern(self.path) if self.kind == "path_exists_glob" else self.path
        parts = [part for part in path.split("/") if part]
        below = "/"
        for number in range(len(parts) + 1):
            last = number == len(parts)
            events = self._events() if last else _APPEARS
            name = parts[number] if not last else ""
            try:
                self._watches.append(inotify.add(below, events, self._told_of(name, last)))
            except (NotFoundError, InputError):
                return not file_marks.exists(below)
            below = f"{below.rstrip('/')}/{name}"
        return True

    def _events(self) -> int:
        match self.kind:
            case "path_changed":
                return _CHANGES
            case "path_modified":
                return _CHANGES | MODIFIED
            case "path_exists":
                return _APPEARS | ATTRIBUTES
            case _:
                return _INSIDE

    def _told_of(self, name: str, last: bool) -> Callable[[int, str], None]:
        def told(events: int, of: str) -> None:
            if events and not last and of != name and not events & (MOVED_SELF | DELETED_SELF):
                return  # something else in that directory
            self._owner.happened(self, structure=not last or bool(events & (MOVED_SELF | DELETED_SELF)) or not events)

        return told


class Paths:
    """``[path]`` of one file."""

    def __init__(self, name: str, target: str, section: PathSection, ground: PathGround) -> None:
        self.name = name
        self.target = target
        self.section = section
        self.ground = ground
        self.failed = ""
        self._armed = False
        self._busy = False
        self._last: float | None = None
        self._times: deque[float] = deque()
        self._conditions = [_Condition(kind, path, self) for kind, path in section.conditions()]

    def arm(self, state: str) -> None:
        """Begin to watch."""
        if self._armed or self.failed:
            return
        self._armed = True
        self._busy = is_busy(state)
        try:
            if self.section.make_directory:
                for condition in self._conditions:
                    if condition.kind not in ("path_exists", "path_exists_glob"):
                        file_marks.make_directory(condition.path, int(self.section.directory_mode, 8))
            for condition in self._conditions:
                condition.watch()
                condition.mark = file_marks.mark(condition.path)
        except ApplianceError as exc:
            self._fail(exc.message)
            return
        seen = self.ground.memory.read_untrusted(self.name)  # by a daemon that was killed
        changed = [one for one in self._conditions if seen.get(one.path, one.mark) != one.mark and not one.is_level]
        self._remember()
        if changed:
            self._call(changed[0])
        self._look()

    def release(self) -> None:
        """We go, and another daemon comes."""
        self._armed = False
        for condition in self._conditions:
            condition.unwatch()

    def disarm(self) -> None:
        """Watch no more."""
        if self._armed:
            self.ground.memory.forget(self.name)
        self._armed = False
        self.failed = ""
        for condition in self._conditions:
            condition.unwatch()

    def turned(self, state: str) -> None:
        """The unit came into that state: when it is over, what holds still starts it again."""
        was_busy, self._busy = self._busy, is_busy(state)
        if was_busy and not self._busy:
            self._look()

    def rested(self) -> None:
        """It did not come up, or is over: the next event counts."""
        self._busy = False

    def reset(self) -> None:
        """A person says: try again."""
        if self.failed:
            self.disarm()
        self._times.clear()

    def happened(self, condition: _Condition, *, structure: bool) -> None:
        """The kernel told something of that path, or (``structure``) of what lies above it."""
        if not self._armed:
            return
        before, condition.mark = condition.mark, file_marks.mark(condition.path)
        if structure:
            try:
                condition.watch()
            except ApplianceError as exc:
                self._fail(exc.message)
                return
            condition.mark = file_marks.mark(condition.path)
            if before == condition.mark and not condition.is_level:
                return
        if not condition.is_level:
            self._call(condition)
        else:
            self._look()

    def picture(self) -> TriggerPicture:
        """For whoever looks."""
        state = "failed" if self.failed else "off" if not self._armed else "running" if self._busy else "waiting"
        about = self.failed or ", ".join(f"{one.kind} {one.path}" for one in self._conditions)
        return TriggerPicture(kind="path", name=self.name, unit=self.target, state=state, about=about, last=self._last)

    def _look(self) -> None:
        if self._armed and not self._busy:
            for condition in self._conditions:
                if condition.is_level and condition.holds():
                    self._call(condition)
                    return

    def _call(self, condition: _Condition) -> None:
        if self._busy or not self._within_limit():  # what the unit itself changes must not start it for ever
            return
        self._busy = True
        self._last = clock.wall_seconds()
        self._remember()
        found = file_marks.matching(condition.path) if condition.kind == "path_exists_glob" else ()
        told = told_by_path(self.name, found[0] if found else condition.path)
        self.ground.call(self.target, f"{condition.kind} {condition.path}", told)

    def _remember(self) -> None:
        marks = {one.path: one.mark for one in self._conditions if not one.is_level}
        if marks:
            try:
                self.ground.memory.write(self.name, marks)
            except ApplianceError as exc:
                self.ground.trouble(self.name, exc.message)

    def _within_limit(self) -> bool:
        limit = self.section.trigger_limit
        seconds = limit.interval if limit is not None else _LIMIT_SECONDS
        burst = limit.burst if limit is not None else _LIMIT_BURST
        now = clock.monotonic_seconds()
        while self._times and self._times[0] <= now - seconds:
            self._times.popleft()
        self._times.append(now)
        if burst and len(self._times) > burst:
            self._fail(
                f"cannot go on: {self.target} was called more than {burst} times within {seconds:g} s "
                "(path.trigger_limit); appliance unit reset-failed begins anew"
            )
            return False
        return True

    def _fail(self, why: str) -> None:
        for condition in self._conditions:
            condition.unwatch()
        self._armed, self.failed = False, why
        self.ground.trouble(self.name, why)
