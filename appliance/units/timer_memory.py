"""What timers remember, and where: for this boot in the run directory, what must last below the state directory."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from appliance.errors import ApplianceError, NotFoundError
from appliance.host import files

_BYTES_MAX = 4096


@dataclass
class Memory:
    """Of one timer. All but the two wall times are seconds of the clock that only goes forward; 0: never."""

    active: float = 0.0  # since when it counts
    active_wall: float = 0.0
    triggered: float = 0.0  # when it last called
    last: float = 0.0  # the same by the wall clock
    started: float = 0.0  # when the unit last began to start, whoever asked
    rested: float = 0.0  # when it was last over
    pending: float = 0.0  # 1: it called, and the unit did not start yet


class TimerFiles:
    """A file for each timer here, and of the persistent ones there. A file that cannot be read is as none."""

    def __init__(self, run: str, state: str) -> None:
        self._run = run
        self._state = state

    def read(self, name: str, boot_id: str) -> Memory | None:
        """What an earlier daemon of this boot left."""
        found = _read_untrusted(f"{self._run}/{name}.json")
        if found.get("boot") != boot_id:
            return None
        values = {key: found.get(key, 0.0) for key in asdict(Memory())}
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()):
            return None
        return Memory(**{key: float(value) for key, value in values.items()})

    def write(self, name: str, memory: Memory, boot_id: str) -> None:
        """Not for a power cut: it is of this boot. Raises UnavailableError, InputError."""
        files.make_directory(self._run)
        data = json.dumps({"version": 1, "boot": boot_id, **asdict(memory)}).encode()
        files.write_atomic(f"{self._run}/{name}.json", data, mode=0o600, durable=False)

    def forget(self, name: str) -> None:
        """The timer does not count any more."""
        _remove(f"{self._run}/{name}.json")

    def last_run(self, name: str) -> float | None:
        """When it last ran, in whichever boot that was; seconds since 1970."""
        last = _read_untrusted(f"{self._state}/{name}.json").get("last")
        return float(last) if isinstance(last, int | float) and not isinstance(last, bool) else None

    def stamp(self, name: str, last: float) -> None:
        """Durable. Raises UnavailableError, InputError."""
        files.make_directory(self._state)
        files.write_atomic(f"{self._state}/{name}.json", json.dumps({"version": 1, "last": last}).encode(), mode=0o600)

    def startup(self, boot_id: str, now: float) -> float:
        """When the appliance came up: of a killed one's successor, when the first one did."""
        found = _read_untrusted(f"{self._run}/.startup")
        seconds = found.get("seconds")
        if found.get("boot") == boot_id and isinstance(seconds, float):
            return seconds
        try:
            files.make_directory(self._run)
            data = json.dumps({"boot": boot_id, "seconds": float(now)}).encode()
            files.write_atomic(f"{self._run}/.startup", data, mode=0o600, durable=False)
        except ApplianceError:
            pass  # then a successor counts from its own start
        return now

    def forget_startup(self) -> None:
        """It stops in order: the next start is a new one."""
        _remove(f"{self._run}/.startup")


def _read_untrusted(path: str) -> dict[str, Any]:
    try:
        found = json.loads(files.read_bytes(path, size_max=_BYTES_MAX))
    except NotFoundError:
        return {}
    except (ApplianceError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _remove(path: str) -> None:
    with contextlib.suppress(ApplianceError):  # it is of this boot only
        files.remove(path)
