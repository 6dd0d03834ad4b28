"""The appliance's own keys, wherever the store is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from appliance.errors import ApplianceError, CorruptError, UnavailableError
from appliance.external import Keys
from appliance.host.failpoint import reach
from appliance.store import Delete, Put, Range, prefix_end

T = TypeVar("T")
OURS = b"/appliance/"  # keys of ours in the store


class StoreKeeper:
    """What units and update keep for good, in the store below ``/appliance/``."""

    def __init__(self, keys: Keys, wait_outcome: Callable[[], Awaitable[None]]) -> None:
        """``wait_outcome``: until the store is open, or has failed to (then its own error is the answer)."""
        self._keys = keys
        self._wait_outcome = wait_outcome

    async def get(self, key: str) -> bytes | None:
        """The value."""
        await self._wait_outcome()
        kvs = (await _kept(self._keys.read(Range(OURS + key.encode())))).kvs
        return kvs[0].value if kvs else None

    async def put(self, key: str, value: bytes) -> None:
        """Durable when it returns."""
        await self._wait_outcome()
        reach(f"keep.{key}.before")
        await _kept(self._keys.put(Put(OURS + key.encode(), value)))
        reach(f"keep.{key}.after")

    async def delete(self, key: str) -> None:
        """A missing one is fine."""
        await self._wait_outcome()
        await _kept(self._keys.delete(Delete(OURS + key.encode())))

    async def list(self, prefix: str) -> dict[str, bytes]:
        """Every key that begins so."""
        await self._wait_outcome()
        whole = OURS + prefix.encode()
        kvs = (await _kept(self._keys.read(Range(whole, prefix_end(whole))))).kvs
        return {kv.key.removeprefix(OURS).decode(): kv.value for kv in kvs}


async def _kept(asked: Awaitable[T]) -> T:
    """Whatever a distant store has against us (a password, say): units run on, as when it is not there at all."""
    try:
        return await asked
    except (UnavailableError, CorruptError):
        raise
    except ApplianceError as error:
        raise UnavailableError(error.message) from error
