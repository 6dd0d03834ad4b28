"""What a release's bytes are made of: chunks cut by content, the signed index that lists them, and where they lie.

A built binary is its own pack: it holds its files as many small zstd frames, and a chunk is a frame. So a module that
changed changes one frame, and a host fetches that one from the file itself. Anything else is cut by content and packed
into one file, chunk by chunk. Pure: bytes come from a callable, nothing here touches the machine.

Names are loaded when asked for: the daemon only reads footers, and needs no zstd for that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.payload.binary import FOOTER_SIZE, Footer, parse_footer
    from appliance.payload.cutting import Chunk, ReadAt, cut
    from appliance.payload.index import HASH_SIZE, INDEX_SIZE_MAX, Index, chunk_hash, format_index, parse_index
    from appliance.payload.packing import INDEXED_FROM_BYTES, Packer, average_for, plain
    from appliance.payload.ranges import Range, plan_ranges

_ROOMS = {
    "FOOTER_SIZE": "binary",
    "Footer": "binary",
    "parse_footer": "binary",
    "Chunk": "cutting",
    "ReadAt": "cutting",
    "cut": "cutting",
    "HASH_SIZE": "index",
    "INDEX_SIZE_MAX": "index",
    "Index": "index",
    "chunk_hash": "index",
    "format_index": "index",
    "parse_index": "index",
    "INDEXED_FROM_BYTES": "packing",
    "Packer": "packing",
    "average_for": "packing",
    "plain": "packing",
    "Range": "ranges",
    "plan_ranges": "ranges",
}

__all__ = [
    "FOOTER_SIZE",
    "HASH_SIZE",
    "INDEXED_FROM_BYTES",
    "INDEX_SIZE_MAX",
    "Chunk",
    "Footer",
    "Index",
    "Packer",
    "Range",
    "ReadAt",
    "average_for",
    "chunk_hash",
    "cut",
    "format_index",
    "parse_footer",
    "parse_index",
    "plain",
    "plan_ranges",
]


def __getattr__(name: str) -> Any:
    """Load the module that holds the name (PEP 562)."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
