"""From sorted items to pages, in one pass: a tree's pages are appended as they fill, its branches above them."""

from __future__ import annotations

from collections.abc import Callable

from appliance.bolt import pages
from appliance.bolt.pages import (
    BUCKET,
    COUNT_MAX,
    ELEMENT_SIZE,
    HEADER,
    IS_BUCKET,
    KEY_SIZE_MAX,
    META_PAGES,
    PAGE_SIZE,
    VALUE_SIZE_MAX,
    BranchItem,
    LeafItem,
    Meta,
)  # fmt: skip


class Writer:
    """Gives whole pages to ``append``, the file's third page first; ``finish`` returns the first two.

    Several trees may be written at the same time.
    """

    def __init__(self, append: Callable[[bytes], None], *, page_size: int = PAGE_SIZE) -> None:
        assert page_size in pages.PAGE_SIZES
        self.page_size = page_size
        self.pages = META_PAGES
        self._append = append

    @property
    def size(self) -> int:
        """Of the file so far, its meta pages included."""
        return self.pages * self.page_size

    def tree(self) -> Tree:
        """A new one: for ``Tree.put_bucket``, or the root that ``finish`` is given."""
        return Tree(self)

    def leaf(self, items: list[LeafItem]) -> int:
        """For trees."""
        return self._add(pages.encode_leaf(self.pages, items, self.page_size))

    def branch(self, items: list[BranchItem]) -> int:
        """For trees."""
        return self._add(pages.encode_branch(self.pages, items, self.page_size))

    def _add(self, data: bytes) -> int:
        number = self.pages
        self._append(data)
        self.pages += len(data) // self.page_size
        return number

    def finish(self, root: Tree) -> bytes:
        """The last pages go out, and what this returns belongs at the file's beginning."""
        root_page = root.close()
        freelist = self._add(pages.encode_empty_freelist(self.pages, self.page_size))
        meta = Meta(self.page_size, root_page, 0, freelist, self.pages, 0)
        return b"".join(pages.encode_meta(number, meta._replace(txid=number)) for number in range(META_PAGES))


class Tree:
    """Keys must come in ascending order, each once."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._leaf: list[LeafItem] = []
        self._size = HEADER.size
        self._last = b""
        self._levels: list[_Level] = []  # branches, the lowest first

    def put(self, key: bytes, value: bytes) -> None:
        """One item. Raises ValueError for what bbolt could not hold."""
        self._put(key, value, 0)

    def put_bucket(self, key: bytes, bucket: Tree) -> None:
        """A tree that is complete; nothing may be put into it any more."""
        self._put(key, BUCKET.pack(bucket.close(), 0), IS_BUCKET)

    def _put(self, key: bytes, value: bytes, flags: int) -> None:
        if not key > self._last:
            raise ValueError(f"key {key!r} came behind {self._last!r}")
        if len(key) > KEY_SIZE_MAX or len(value) > VALUE_SIZE_MAX:
            raise ValueError(f"key of {len(key)} bytes, value of {len(value)}: too large for bbolt")
        size = ELEMENT_SIZE + len(key) + len(value)
        if self._leaf and (self._size + size > self._writer.page_size or len(self._leaf) == COUNT_MAX):
            self._flush()
        self._leaf.append((key, value, flags))
        self._size += size
        self._last = key

    def _flush(self) -> None:
        first = self._leaf[0][0]
        page = self._writer.leaf(self._leaf)
        self._leaf, self._size = [], HEADER.size
        self._climb(0, first, page)

    def _climb(self, level: int, key: bytes, page: int) -> None:
        if level == len(self._levels):
            self._levels.append(_Level(self._writer.page_size))
        full = self._levels[level].add(key, page)
        if full:
            self._climb(level + 1, full[0][0], self._writer.branch(full))

    def close(self) -> int:
        """The number of the root page."""
        if not self._levels:
            return self._writer.leaf(self._leaf)
        if self._leaf:
            self._flush()
        level = 0
        while True:
            items = self._levels[level].items
            if level == len(self._levels) - 1 and len(items) == 1:
                return items[0][1]
            self._climb(level + 1, items[0][0], self._writer.branch(items))
            level += 1


class _Level:
    """The branch page being filled. It keeps one item back, so that none ever has a single one."""

    def __init__(self, page_size: int) -> None:
        self.items: list[BranchItem] = []
        self._size = HEADER.size
        self._page_size = page_size

    def add(self, key: bytes, page: int) -> list[BranchItem]:
        """The items of a page that is full now, or none."""
        size = ELEMENT_SIZE + len(key)
        full: list[BranchItem] = []
        if len(self.items) > 2 and (self._size + size > self._page_size or len(self.items) == COUNT_MAX):
            full = self.items[:-1]
            self.items = self.items[-1:]
            self._size = HEADER.size + ELEMENT_SIZE + len(self.items[0][0])
        self.items.append((key, page))
        self._size += size
        return full
