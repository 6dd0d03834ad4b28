"""What this host has seen of a repository: the versions of its metadata, the keys behind them, the last time known.

It is what keeps a lost or torn cache from being an open door for a rollback. So it is kept twice, each copy with a
checksum, and a damaged one is mended from the other without a person. If both are damaged, what is left is the cache
(signed, so python-tuf compares with it), the trust root, the time at which this version was made, and the rule that
nothing older than what runs is taken: that is less, it is said, and updates go on.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from appliance.errors import ApplianceError, NotFoundError
from appliance.host import files

_SIZE_MAX = 1 << 20
_TIME_MAX = 253402300800.0  # the year 10000
_COPY_SECONDS = 86400.0  # the copy's time may lie so far behind: it is written seldom


class Seen:
    """Both copies. ``value`` holds "keys", "versions", "time", or nothing; ``damage`` says what was found wrong."""

    def __init__(self, directory: str) -> None:
        self._file, self._copy_file = directory + "/seen.json", directory + "/seen-copy.json"
        self.damage = ""
        first, why = _read(self._file)
        second, why_copy = _read(self._copy_file)
        self._written, self._copy = first, second
        self.value = first or second or {}
        if why or why_copy or (second and not first):
            way = "mended from the other copy" if self.value else "lost: what is cached and signed counts"
            self.damage = f"what was seen of the repository: {why or why_copy or f'{self._file} is gone'}; {way}"

    def keep(self, value: dict[str, Any]) -> None:
        """Durable when it returns, one after the other, and only what changed."""
        if value != self._written:
            files.write_atomic(self._file, _format(value))
            self._written = value
        if not self._copy or not _alike(value, self._copy):
            files.write_atomic(self._copy_file, _format(value))
            self._copy = value
        self.value = value


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    near = abs(float(one["time"]) - float(other["time"])) < _COPY_SECONDS
    return near and {**one, "time": 0} == {**other, "time": 0}


def _format(value: dict[str, Any]) -> bytes:
    return json.dumps({**value, "check": _check(value)}).encode()


def _check(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: str) -> tuple[dict[str, Any], str]:
    """What it holds, and why it cannot be used; nothing of both: it is not there."""
    try:
        data = files.read_bytes(path, size_max=_SIZE_MAX)
    except NotFoundError:
        return {}, ""
    except ApplianceError as exc:
        return {}, exc.message
    try:
        return _parse(json.loads(data)), ""
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as exc:
        return {}, f"{path} cannot be read ({str(exc)[:100]})"


def _parse(found: dict[str, Any]) -> dict[str, Any]:
    check = found.pop("check", None)  # older versions wrote none
    keys, versions, time = found["keys"], found["versions"], found.get("time", 0)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its keys are no list of names")
    if not all(type(number) is int and number >= 0 for number in versions.values()):
        raise ValueError("its versions are no numbers")
    if type(time) not in (int, float) or not math.isfinite(time) or not 0 <= time < _TIME_MAX:
        raise ValueError("its time is none")
    if check is not None and check != _check(found):
        raise ValueError("its checksum does not fit")
    return {**found, "time": time}
