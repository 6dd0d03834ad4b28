"""Versions and their order (semver's: 1.2.0-rc.1 < 1.2.0 < 1.10.0; +build is ignored)."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from appliance.errors import InputError

_SHAPE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9}){0,3})(?:-([0-9A-Za-z.-]{1,64}))?(?:\+([0-9A-Za-z.-]{1,64}))?")
_LENGTH_MAX = 64  # as much as a built binary's footer holds


@functools.total_ordering
@dataclass(frozen=True, eq=False)
class Version:
    """A parsed version; ``text`` is as written."""

    text: str
    numbers: tuple[int, ...]
    pre: tuple[tuple[int, int, str], ...] | None

    def _order(self) -> tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...]]:
        return self.numbers, 1 if self.pre is None else 0, self.pre or ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._order() == other._order()

    def __lt__(self, other: Version) -> bool:
        return self._order() < other._order()

    def __hash__(self) -> int:
        return hash(self._order())

    def __str__(self) -> str:
        return self.text


def parse_version(text: str) -> Version:
    """Raises InputError that says what a version looks like."""
    match = _SHAPE.fullmatch(text)
    pre_parts, build_parts = (match[number].split(".") if match and match[number] else [] for number in (2, 3))
    if (
        not match
        or len(text) > _LENGTH_MAX
        or "" in (*pre_parts, *build_parts)
        or any(part.isdigit() and part != str(int(part)) for part in pre_parts)  # semver 2.0.0, 9: no leading zeros
    ):
        raise InputError(f"cannot read version {text[:80]!r}: it must look like 1.2.3 or 1.2.3-rc.1")
    numbers = tuple(int(part) for part in match[1].split("."))
    pre = None
    if match[2] is not None:
        pre = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre_parts)
    return Version(text, numbers + (0,) * (4 - len(numbers)), pre)
