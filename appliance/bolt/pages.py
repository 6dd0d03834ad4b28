"""The bytes of a page (bbolt's page.go and db.go, format version 2, little endian)."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

PAGE_SIZE = 4096
META_PAGES = 2
PAGE_SIZES = tuple(1 << power for power in range(9, 17))
HEADER = Struct("<QHHI")  # id, flags, count, overflow: how many more pages belong to this one
ELEMENT_SIZE = 16
LEAF_ELEMENT = Struct("<IIII")  # flags, position from the element's begin, key size, value size
BRANCH_ELEMENT = Struct("<IIQ")  # position, key size, page
BUCKET = Struct("<QQ")  # root page (0: the page follows), sequence
_META = Struct("<IIIIQQQQQ")  # magic, version, page size, flags, root bucket, its sequence, freelist, pages, txid
_CHECKSUM = Struct("<Q")
META_SIZE = _META.size + _CHECKSUM.size

BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
IS_BUCKET = 0x01
MAGIC = 0xED0CDAED
VERSION = 2
KEY_SIZE_MAX = 32768
VALUE_SIZE_MAX = (1 << 31) - 2
COUNT_MAX = 0xFFFE  # 0xFFFF means something else in a freelist, bbolt refuses it everywhere

LeafItem = tuple[bytes, bytes, int]  # key, value, flags
BranchItem = tuple[bytes, int]  # first key of the page below, that page


class Meta(NamedTuple):
    """What a meta page says. ``pages`` is the number of pages of the file."""

    page_size: int
    root: int
    sequence: int
    freelist: int
    pages: int
    txid: int


def fnv64a(data: bytes) -> int:
    """The checksum of meta pages (FNV-1a, 64 bits)."""
    value = 0xCBF29CE484222325
    for octet in data:
        value = (value ^ octet) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def is_bolt(head: bytes) -> bool:
    """Whether a file that begins so (32 bytes suffice) claims to be bbolt's."""
    return len(head) >= 24 and head[16:20] == MAGIC.to_bytes(4, "little")


def encode_meta(number: int, meta: Meta) -> bytes:
    """A whole page."""
    body = _META.pack(MAGIC, VERSION, meta.page_size, 0, meta.root, meta.sequence, meta.freelist, meta.pages, meta.txid)
    page = HEADER.pack(number, META, 0, 0) + body + _CHECKSUM.pack(fnv64a(body))
    return page.ljust(meta.page_size, b"\0")


def decode_meta(page: bytes) -> Meta | None:
    """None when it does not hold."""
    if len(page) < HEADER.size + META_SIZE:
        return None
    magic, version, page_size, _, root, sequence, freelist, pages, txid = _META.unpack_from(page, HEADER.size)
    (checksum,) = _CHECKSUM.unpack_from(page, HEADER.size + _META.size)
    if magic != MAGIC or version != VERSION or page_size not in PAGE_SIZES:
        return None
    if checksum != fnv64a(page[HEADER.size : HEADER.size + _META.size]):
        return None
    return Meta(page_size, root, sequence, freelist, pages, txid)


def encode_leaf(number: int, items: Sequence[LeafItem], page_size: int) -> bytes:
    """A page, with as many more behind it as the items need."""
    elements: list[bytes] = []
    data: list[bytes] = []
    position = ELEMENT_SIZE * len(items)
    for at, (key, value, flags) in enumerate(items):
        elements.append(LEAF_ELEMENT.pack(flags, position - at * ELEMENT_SIZE, len(key), len(value)))
        data += (key, value)
        position += len(key) + len(value)
    return _page(number, LEAF, len(items), b"".join((*elements, *data)), page_size)


def encode_branch(number: int, items: Sequence[BranchItem], page_size: int) -> bytes:
    """The same for a page that points to others."""
    elements: list[bytes] = []
    data: list[bytes] = []
    position = ELEMENT_SIZE * len(items)
    for at, (key, below) in enumerate(items):
        elements.append(BRANCH_ELEMENT.pack(position - at * ELEMENT_SIZE, len(key), below))
        data.append(key)
        position += len(key)
    return _page(number, BRANCH, len(items), b"".join((*elements, *data)), page_size)


def encode_empty_freelist(number: int, page_size: int) -> bytes:
    """No page is free in a file that was written in one go."""
    return _page(number, FREELIST, 0, b"", page_size)


def _page(number: int, flags: int, count: int, body: bytes, page_size: int) -> bytes:
    count_of_pages = -(-(HEADER.size + len(body)) // page_size)
    return (HEADER.pack(number, flags, count, count_of_pages - 1) + body).ljust(count_of_pages * page_size, b"\0")
