"""File descriptors that a unit hands us to keep over its restart (FDSTORE=1 in sd_notify(3))."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import ApplianceError
from appliance.host import descriptors
from appliance.units.ground import Ground


@dataclass
class _Stored:
    name: str
    fd: int
    watched: bool


class FdStore:
    """Of one unit. The holder has copies, so they outlive us as well."""

    def __init__(self, unit_name: str, ground: Ground) -> None:
        self._unit_name = unit_name
        self._key = f"fdstore/{unit_name}"
        self._ground = ground
        self._stored: list[_Stored] = []

    def __len__(self) -> int:
        return len(self._stored)

    def named(self) -> tuple[tuple[str, int], ...]:
        """For the next start, oldest first."""
        return tuple((one.name, one.fd) for one in self._stored)

    def add(self, name: str, fds: list[int], *, most: int, poll: bool) -> None:
        """Takes them over; one that is there already, or one too many, is closed."""
        for fd in fds:
            if len(self._stored) >= most or any(descriptors.is_same(one.fd, fd) for one in self._stored):
                descriptors.close(fd)
                continue
            self._keep(name, fd, poll=poll)
            self._hold(name, fd)

    def remove(self, name: str) -> None:
        """All of that name."""
        self._forget([one for one in self._stored if one.name == name])

    def clear(self) -> None:
        """The unit is down, and not about to come up again."""
        self._forget(list(self._stored))

    def recall(self) -> None:
        """What an earlier supervisor was given."""
        if self._ground.holder is None:
            return
        try:
            found = self._ground.holder.take(self._key) if self._ground.holder.holds(self._key) else []
        except ApplianceError as exc:
            self._ground.on_trouble(self._unit_name, exc.message)
            return
        for name, fd in found:
            self._keep(name, fd, poll=True)

    def close(self) -> None:
        """Let go of ours; the holder keeps its copies."""
        for one in self._stored:
            self._close(one)
        self._stored.clear()

    def _keep(self, name: str, fd: int, *, poll: bool) -> None:
        stored = _Stored(name, fd, watched=False)
        self._stored.append(stored)
        if poll:  # when its other end is gone there is nothing to hand back
            stored.watched = self._ground.processes.poller.add_hangup(fd, lambda: self._forget([stored]))

    def _forget(self, those: list[_Stored]) -> None:
        for one in those:
            if one in self._stored:
                self._stored.remove(one)
                self._close(one)
        holder = self._ground.holder
        if holder is None or not those:
            return
        try:
            if self._stored:
                for name in {one.name for one in those}:
                    holder.drop(self._key, name)
                    for one in self._stored:
                        if one.name == name:
                            holder.put(self._key, name, one.fd)
            else:
                holder.drop(self._key)
        except ApplianceError as exc:
            self._ground.on_trouble(self._unit_name, exc.message)

    def _close(self, one: _Stored) -> None:
        if one.watched:
            self._ground.processes.poller.remove(one.fd)
        descriptors.close(one.fd)

    def _hold(self, name: str, fd: int) -> None:
        if self._ground.holder is None:
            return
        try:
            self._ground.holder.put(self._key, name, fd)
        except ApplianceError as exc:
            self._ground.on_trouble(self._unit_name, f"{exc.message}; a restart of the appliance would lose it")
