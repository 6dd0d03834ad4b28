"""Which units start by themselves: what a person enabled, disabled and masked. One small file beside the store.

It needs no daemon and no store: ``unit enable`` works on a host that is down, and a power cut leaves old or new.
A unit that is not named here is enabled when it has a file, and not when it is an instance that others only name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from appliance.errors import CorruptError, InputError, NotFoundError
from appliance.host import files
from appliance.host.layout import Layout

VERBS = ("enable", "disable", "mask", "unmask")
_SIZE_MAX = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Enablement:
    """Names, as a person gave them."""

    enabled: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()

    def after(self, verb: str, names: Iterable[str]) -> Enablement:
        """As it is once these are enabled, disabled, masked or unmasked."""
        some = frozenset(names)
        match verb:
            case "enable":
                return replace(self, enabled=self.enabled | some, disabled=self.disabled - some)
            case "disable":
                return replace(self, enabled=self.enabled - some, disabled=self.disabled | some)
            case "mask":
                return replace(self, masked=self.masked | some)
            case "unmask":
                return replace(self, masked=self.masked - some)
        raise InputError(f'cannot do "{verb}": expected {", ".join(VERBS)}')

    def word(self, name: str, *, implied: bool = False) -> str:
        """``enabled``, ``disabled``, ``masked``, or ``static``: up only when something names it."""
        if name in self.masked:
            return "masked"
        if name in self.disabled:
            return "disabled"
        return "static" if implied and name not in self.enabled else "enabled"


def enablement_file(layout: Layout) -> str:
    """Where it is kept."""
    return f"{layout.state}/units/enablement.json"


def read_enablement(path: str) -> Enablement:
    """Empty when there is no such file. Raises CorruptError, and InputError when it may not be read."""
    try:
        found: Any = json.loads(files.read_bytes(path, size_max=_SIZE_MAX))
    except NotFoundError:
        return Enablement()
    except (ValueError, RecursionError) as exc:
        raise CorruptError(f"cannot read {path}: {exc}", where=path) from exc
    lists = [found.get(key, []) if isinstance(found, dict) else None for key in ("enabled", "disabled", "masked")]
    if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists):
        raise CorruptError(f"cannot read {path}: it holds no lists of names", where=path)
    enabled, disabled, masked = (frozenset(one or ()) for one in lists)
    return Enablement(enabled=enabled, disabled=disabled, masked=masked)


def change_enablement(path: str, verb: str, names: Iterable[str]) -> Enablement:
    """Durable on return. Raises ConflictError when another process is at it this moment."""
    held = files.lock(f"{path}.lock")
    try:
        after = read_enablement(path).after(verb, names)
        lists = {"enabled": after.enabled, "disabled": after.disabled, "masked": after.masked}
        text = json.dumps({"version": 1, **{key: sorted(some) for key, some in lists.items()}}, indent=1)
        files.write_atomic(path, text.encode() + b"\n")
    finally:
        held.release()
    return after
