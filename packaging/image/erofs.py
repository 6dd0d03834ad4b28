"""An erofs file system laid out for small updates, which mkfs.erofs is not: it strews inodes between the data, and each
says in which block its file begins. So one block more in one file changes some hundred places all over the image.

Here all inodes and directories lie at the beginning, in one piece, then the contents; what changes with each version
comes last in both. Large files are compressed in pieces cut by content, so that behind a change the same blocks come
again. Format: the kernel's fs/erofs/erofs_fs.h, lz4 in blocks of 4 KiB, full indexes. The same input gives the same
bytes.
"""

from __future__ import annotations

import ctypes
import io
import os
import stat
import struct
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pyfastcdc import FastCDC

BLOCK = 4096
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_INODE = struct.Struct("<HHHHIIIIHHI")
_ENTRY = struct.Struct("<QHBx")
_INDEX = struct.Struct("<HHI")
_MAGIC, _ZERO_PADDING = 0xE0F5E1E2, 1
_PLAIN, _COMPRESSED, _INLINE = 0, 1, 2  # how an inode's data lies
_HEAD, _NO_HEAD = 1, 2  # kinds of index entries; 0: stored as it is
_KINDS = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFLNK: 7}
_PIECE = 128 << 10  # about
_MAP_HEADER = 16
_ROOM = 64 << 10  # inodes end at a multiple: a few more of them do not move all the data
_LEVEL = 9


@dataclass
class _Node:
    """A file, directory or link."""

    name: bytes
    mode: int
    late: bool
    data: bytes = b""  # of a directory: filled in when the places of all inodes are known
    children: list[_Node] = field(default_factory=list)
    parent: _Node | None = None
    size: int = 0
    extents: list[tuple[int, bytes | None]] = field(default_factory=list)  # (begin, compressed; None: as it is)
    at: int = 0  # of the inode
    block: int = 0  # of its data, whole blocks
    tail: int = 0  # bytes behind the inode

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def blocks(self) -> int:
        if self.extents:
            return len(self.extents)
        return (self.size - self.tail + BLOCK - 1) // BLOCK

    @property
    def room(self) -> int:
        """What the inode takes."""
        if self.extents:
            return _INODE.size + _MAP_HEADER + _INDEX.size * ((self.size + BLOCK - 1) // BLOCK)
        return _INODE.size + self.tail


def write_erofs(
    tree: Path, out: Path, *, identity: uuid.UUID, epoch: int, late: Callable[[str], bool], fast: bool = False
) -> None:
    """``late``: whether the file of that path changes with every version. All belongs to root."""
    root = _read(tree, b"", "", late)
    root.parent = root
    nodes = list(_all(root))
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        for node, extents in zip(nodes, workers.map(lambda one: _compress(one, fast), nodes), strict=True):
            node.extents = extents
    directories = [node for node in nodes if node.is_directory]
    files = sorted((node for node in nodes if not node.is_directory), key=lambda node: node.late)
    at = 1024 + _SUPERBLOCK.size
    for node in directories + files:
        at = _place(node, at)
    block = -(-at // BLOCK)
    for node in directories:
        node.block, block = block, block + node.blocks
    block = -(-block * BLOCK // _ROOM) * _ROOM // BLOCK
    for node in files:
        node.block, block = block, block + node.blocks
    for node in directories:
        node.data = _directory(node)
    image = bytearray(block * BLOCK)
    counts = (len(nodes), epoch, 0, block, 0, 0)
    _SUPERBLOCK.pack_into(
        image, 1024, _MAGIC, 0, 0, 12, 0, root.at // 32, *counts, identity.bytes, b"", _ZERO_PADDING, 0, 0, 0, 0, 0, 0,
        0, 0,
    )  # fmt: skip
    for number, node in enumerate(directories + files, 1):
        _write(image, node, number)
    out.write_bytes(image)


def _read(path: Path, name: bytes, inner: str, late: Callable[[str], bool]) -> _Node:
    mode = path.lstat().st_mode
    node = _Node(name, mode, late(inner))
    if stat.S_ISLNK(mode):
        node.data = os.readlink(path).encode()
    elif stat.S_ISREG(mode):
        node.data = path.read_bytes()
    elif stat.S_ISDIR(mode):
        for child in sorted(path.iterdir(), key=lambda one: one.name.encode()):
            node.children.append(_read(child, child.name.encode(), f"{inner}/{child.name}".lstrip("/"), late))
            node.children[-1].parent = node
    else:
        raise AssertionError(f"{path} is no file, directory or link")
    node.size = _directory_size(node) if stat.S_ISDIR(mode) else len(node.data)
    return node


def _all(node: _Node) -> Iterator[_Node]:
    yield node
    for child in node.children:
        yield from _all(child)


def _place(node: _Node, at: int) -> int:
    """Give the inode its place, at ``at`` or behind. What lies behind an inode may not cross into another block."""
    if node.is_directory or stat.S_ISLNK(node.mode):
        node.tail = node.size % BLOCK
        if node.tail > BLOCK - _INODE.size:
            node.tail = 0
    at = -(-at // 32) * 32
    if node.tail and at % BLOCK + node.room > BLOCK:
        at = -(-at // BLOCK) * BLOCK
    node.at = at
    return at + node.room


# -- directories -------------------------------------------------------------------------------------------------------


def _entries(node: _Node) -> list[list[tuple[bytes, _Node]]]:
    """By name, block by block."""
    named = [(b".", node), (b"..", node.parent or node), *((child.name, child) for child in node.children)]
    blocks: list[list[tuple[bytes, _Node]]] = [[]]
    used = 0
    for name, child in sorted(named, key=lambda one: one[0]):
        if used + _ENTRY.size + len(name) > BLOCK:
            blocks.append([])
            used = 0
        blocks[-1].append((name, child))
        used += _ENTRY.size + len(name)
    return blocks


def _directory_size(node: _Node) -> int:
    blocks = _entries(node)
    return (len(blocks) - 1) * BLOCK + sum(_ENTRY.size + len(name) for name, _ in blocks[-1])


def _directory(node: _Node) -> bytes:
    made = bytearray()
    for entries in _entries(node):
        made += bytes(-len(made) % BLOCK)
        at = _ENTRY.size * len(entries)
        for name, child in entries:
            made += _ENTRY.pack(child.at // 32, at, _KINDS[stat.S_IFMT(child.mode)])
            at += len(name)
        made += b"".join(name for name, _ in entries)
    assert len(made) == node.size
    return bytes(made)


# -- contents ----------------------------------------------------------------------------------------------------------

_lz4 = ctypes.CDLL("liblz4.so.1")
_lz4.LZ4_sizeofStateHC.restype = ctypes.c_int


def _compress(node: _Node, fast: bool) -> list[tuple[int, bytes | None]]:
    """Where each block's worth begins, and what it is; nothing when the file is no shorter by that."""
    if not stat.S_ISREG(node.mode) or node.size <= BLOCK:
        return []
    source = ctypes.create_string_buffer(node.data, len(node.data))
    begin, block = ctypes.addressof(source), ctypes.create_string_buffer(BLOCK)
    state = ctypes.create_string_buffer(_lz4.LZ4_sizeofStateHC())
    extents: list[tuple[int, bytes | None]] = []
    cuts = [*_cuts(node.data), node.size]
    at = 0
    while at < node.size:
        while cuts[0] <= at or (cuts[0] // BLOCK == at // BLOCK and cuts[0] < node.size):  # one may begin in a block
            del cuts[0]
        length = cuts[0] - at
        taken = ctypes.c_int(length)
        place = ctypes.c_void_p(begin + at)
        if fast:
            size = _lz4.LZ4_compress_destSize(place, block, ctypes.byref(taken), BLOCK)
        else:
            size = _lz4.LZ4_compress_HC_destSize(state, place, block, ctypes.byref(taken), BLOCK, _LEVEL)
        assert size > 0
        if taken.value > BLOCK:
            extents.append((at, block.raw[:size]))
            at += taken.value
        else:
            extents.append((at, None))
            at += min(BLOCK, length)
        if len(extents) > 32 and len(extents) * BLOCK > at:  # it is compressed already
            return []
    return extents if len(extents) * BLOCK < node.size else []


def _cuts(data: bytes) -> list[int]:
    if len(data) <= 2 * _PIECE:
        return []
    return [chunk.offset for chunk in FastCDC(_PIECE).cut_stream(io.BytesIO(data))][1:]


def _indexes(node: _Node) -> bytes:
    """One entry for each 4 KiB of the file: what begins in it, and where; or how far before it that was."""
    made = bytearray()
    begins = {begin // BLOCK: number for number, (begin, _) in enumerate(node.extents)}
    assert len(begins) == len(node.extents)
    heads = [*sorted(begins), -(-node.size // BLOCK)]
    last = node.size // BLOCK if node.size % BLOCK else -1
    for head, following in pairwise(heads):
        number = begins[head]
        begin, packed = node.extents[number]
        made += _INDEX.pack(_HEAD if packed is not None else 0, begin % BLOCK, node.block + number)
        for cluster in range(head + 1, following):
            if cluster == last:  # it ends where the file does
                made += _INDEX.pack(0, node.size % BLOCK, 0)
            else:
                made += _INDEX.pack(_NO_HEAD, 0, cluster - head | (following - cluster) << 16)
    return bytes(made)


def _write(image: bytearray, node: _Node, number: int) -> None:
    layout = _COMPRESSED if node.extents else _INLINE if node.tail else _PLAIN
    links = 2 + sum(child.is_directory for child in node.children) if node.is_directory else 1
    place = len(node.extents) if node.extents else node.block
    _INODE.pack_into(image, node.at, layout << 1, 0, node.mode, links, node.size, 0, place, number, 0, 0, 0)
    behind, start = node.at + _INODE.size, node.block * BLOCK
    if node.extents:
        indexes = _indexes(node)
        image[behind + _MAP_HEADER : behind + _MAP_HEADER + len(indexes)] = indexes
        for index, (begin, packed) in enumerate(node.extents):
            if packed is None:
                end = node.extents[index + 1][0] if index + 1 < len(node.extents) else node.size
                data = node.data[begin:end]
                image[start + index * BLOCK : start + index * BLOCK + len(data)] = data
            else:  # at the block's end
                image[start + (index + 1) * BLOCK - len(packed) : start + (index + 1) * BLOCK] = packed
        return
    whole = node.size - node.tail
    image[start : start + whole] = node.data[:whole]
    image[behind : behind + node.tail] = node.data[whole:]
