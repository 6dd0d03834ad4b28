"""Running a store in a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from appliance.host.disk import Disk
from appliance.store import Sizes, Store

SMALL = Sizes(segment_bytes=3000, reserve_bytes=1024, checkpoint_records=40)


async def inline(function: Callable[..., Any], *args: Any) -> Any:
    """Instead of a thread: a checkpoint, then the call. Same order every time."""
    await trio.lowlevel.checkpoint()
    return function(*args)


def new_store(disk: Disk, sizes: Sizes = SMALL, **options: Any) -> Store:
    return Store(disk, sizes=sizes, in_thread=inline, **options)


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[Store]:
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(_start, store, stopping))
        yield store
        stopping.set()


async def _start(store: Store, stopping: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
    await store.run(stopping=stopping, task_status=task_status)
