"""Writing for a store that has its loop for itself: a lone writer's batch is written without a thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from appliance.store.log import Batch


class Alone:
    """A ``Writer``. ``call`` runs what is better done in a thread."""

    def __init__(self, call: Callable[[Callable[[Batch], None], Batch], Awaitable[object]]) -> None:
        self._call = call

    async def call(self, function: Callable[[Batch], None], batch: Batch, /) -> object:
        """See Writer."""
        return await self._call(function, batch)

    def call_now(self, function: Callable[[Batch], None], batch: Batch, /, *, patience: float) -> bool:
        """Until it is over, whatever that takes: nobody else would be served meanwhile."""
        function(batch)
        return True

    async def finish(self) -> object:
        """There is nothing to wait for."""
        raise AssertionError("a call on the spot is over when it returns")
