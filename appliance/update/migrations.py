"""What changes between schemas of our data, forward and back. Each works on a directory that is a copy.

A schema is a number (``version.SCHEMA``). There is one so far, so there is nothing to migrate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Migration:
    """From ``schema`` - 1 to ``schema``, and back. Raises ApplianceError: nothing but the copy was touched."""

    schema: int
    forward: Callable[[str], None]
    back: Callable[[str], None]


MIGRATIONS: tuple[Migration, ...] = ()
