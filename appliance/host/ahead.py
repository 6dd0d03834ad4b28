"""One thing is made while the one before it is used: reading and hashing beside writing, on a second processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(source: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same things, each made by a helping thread while its forerunner is used. What it raises comes through."""
    from concurrent.futures import ThreadPoolExecutor  # late: most commands never read a large file

    with ThreadPoolExecutor(1, "ahead") as helping:

        def things() -> Iterator[T]:
            end = object()
            coming = helping.submit(next, source, end)
            while (thing := coming.result()) is not end:
                coming = helping.submit(next, source, end)
                yield thing  # type: ignore[misc]  # not ``end``

        yield things()
