"""From pages to sorted items. The file may come from anywhere: nothing in it is believed, and no walk is endless."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import unpack_from

from appliance.bolt.pages import (
    BRANCH,
    BUCKET,
    ELEMENT_SIZE,
    HEADER,
    IS_BUCKET,
    LEAF,
    META_PAGES,
    META_SIZE,
    PAGE_SIZES,
    Meta,
    decode_meta,
    is_bolt,
)  # fmt: skip
from appliance.errors import CorruptError, InputError

_DEPTH_MAX = 48  # branches have two children at least
_PAGE_BYTES_MAX = 1 << 30
Read = Callable[[int, int], bytes]  # (size, offset) -> bytes, fewer only at the end


class Reader:
    """A whole database. ``name`` is what messages call it; ``size`` bytes of it may be asked of ``read``."""

    def __init__(self, read: Read, size: int, name: str = "the database") -> None:
        self.name = name
        self._read = read
        self.meta = self._newest_meta(size)
        if self.meta.pages * self.meta.page_size > size:
            wanted = self.meta.pages * self.meta.page_size
            raise CorruptError(f"cannot read {name}: it has {size} bytes of {wanted}: cut off", where=name)
        self.root = Bucket(self, self.meta.root, b"")

    def _newest_meta(self, size: int) -> Meta:
        head = self._read(HEADER.size + META_SIZE, 0)
        found = [meta for meta in (decode_meta(head),) if meta]
        for page_size in (found[0].page_size,) if found else PAGE_SIZES:
            second = decode_meta(self._read(HEADER.size + META_SIZE, page_size))
            if second and second.page_size == page_size:
                found.append(second)
        if not found:
            if is_bolt(head):
                raise CorruptError(f"cannot read {self.name}: no meta page holds", where=self.name)
            raise InputError(f"cannot read {self.name}: it is no bbolt database", where=self.name)
        return max(found, key=lambda meta: meta.txid)

    def bucket(self, name: bytes) -> Bucket | None:
        """One of the buckets in the root; None: there is none of that name."""
        return self.root.bucket(name)

    def page(self, number: int) -> bytes:
        """With all that overflowed from it. Raises CorruptError."""
        page_size, count = self.meta.page_size, self.meta.pages
        if not META_PAGES <= number < count:
            raise self.corrupt(number, f"it is not among the {count} pages")
        data = self._read(page_size, number * page_size)
        if len(data) < page_size:
            raise self.corrupt(number, f"{len(data)} bytes of {page_size}")
        own, _, _, overflow = HEADER.unpack_from(data)
        if own != number:
            raise self.corrupt(number, f"it calls itself page {own}")
        if overflow:
            if number + overflow >= count or overflow * page_size > _PAGE_BYTES_MAX:
                raise self.corrupt(number, f"{overflow} more pages cannot belong to it")
            data += self._read(overflow * page_size, (number + 1) * page_size)
        return data

    def corrupt(self, page: int, why: str) -> CorruptError:
        """Says which page."""
        return CorruptError(f"cannot read {self.name}: page {page}: {why}", where=self.name)


class Bucket:
    """A tree of items, and of buckets."""

    def __init__(self, reader: Reader, root: int, inline: bytes) -> None:
        self._reader = reader
        self._root = root
        self._inline = inline

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) in the keys' order, without those that are buckets. Raises CorruptError."""
        return ((key, value) for key, value, flags in self._walk() if not flags & IS_BUCKET)

    def buckets(self) -> Iterator[tuple[bytes, Bucket]]:
        """The others."""
        for key, value, flags in self._walk():
            if flags & IS_BUCKET:
                yield key, self._opened(key, value)

    def bucket(self, name: bytes) -> Bucket | None:
        """None: there is none of that name."""
        for key, value, flags in self._walk():
            if key == name and flags & IS_BUCKET:
                return self._opened(key, value)
        return None

    def _opened(self, key: bytes, value: bytes) -> Bucket:
        if len(value) < BUCKET.size:
            raise self._reader.corrupt(self._root, f"bucket {key!r} has no root")
        root, _ = BUCKET.unpack_from(value)
        if not root and len(value) < BUCKET.size + HEADER.size:
            raise self._reader.corrupt(self._root, f"bucket {key!r} has no page")
        return Bucket(self._reader, root, b"" if root else value[BUCKET.size :])

    def _walk(self) -> Iterator[tuple[bytes, bytes, int]]:
        reader, last = self._reader, b""
        seen = 0
        if not self._root:
            yield from self._leaf(self._inline, 0, last)
            return
        below = [iter((self._root,))]
        while below:
            number = next(below[-1], None)
            if number is None:
                below.pop()
                continue
            seen += 1
            if seen > reader.meta.pages or len(below) > _DEPTH_MAX:
                raise reader.corrupt(number, "the tree goes in circles")
            page = reader.page(number)
            if page[8] & BRANCH:
                below.append(self._children(page, number))
            elif page[8] & LEAF:
                for item in self._leaf(page, number, last):
                    last = item[0]
                    yield item
            else:
                raise reader.corrupt(number, "it is neither branch nor leaf")

    def _children(self, page: bytes, number: int) -> Iterator[int]:
        numbers = self._numbers(page, number)
        return (low | high << 32 for low, high in zip(numbers[2::4], numbers[3::4], strict=True))

    def _leaf(self, page: bytes, number: int, last: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        numbers = iter(self._numbers(page, number))
        begin = HEADER.size
        for flags, position, key_size, value_size in zip(numbers, numbers, numbers, numbers, strict=True):
            middle = begin + position + key_size
            end = middle + value_size
            if end > len(page):
                raise self._reader.corrupt(number, f"byte {begin}: the item does not fit")
            key = page[begin + position : middle]
            if not key > last:
                raise self._reader.corrupt(number, f"key {key!r} stands behind {last!r}")
            yield key, page[middle:end], flags
            last = key
            begin += ELEMENT_SIZE

    def _numbers(self, page: bytes, number: int) -> tuple[int, ...]:
        count = HEADER.unpack_from(page)[2]
        if HEADER.size + count * ELEMENT_SIZE > len(page):
            raise self._reader.corrupt(number, f"{count} items do not fit")
        return unpack_from(f"<{count * 4}I", page, HEADER.size)
