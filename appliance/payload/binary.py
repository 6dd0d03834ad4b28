"""The last bytes of a built binary (packaging/launcher/archive.h): where its payload lies, and its version."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from appliance.errors import InputError

FOOTER_SIZE = 168
_FOOTER = struct.Struct("<QQQ64s64s16s")
_MAGIC = b"APPLIANCE-PACK-1"


@dataclass(frozen=True)
class Footer:
    """Who a binary is."""

    payload_id: str
    version: str
    offset: int = 0  # of the payload in the file
    packed: int = 0  # its length there


def parse_footer(tail: bytes, *, file: str) -> Footer:
    """From the last FOOTER_SIZE bytes of ``file``. Raises InputError when it is no binary of ours."""
    if len(tail) == FOOTER_SIZE:
        offset, packed, _, payload_id, version, magic = _FOOTER.unpack(tail)
        if magic == _MAGIC:
            try:
                return Footer(payload_id.decode("ascii"), version.rstrip(b"\0").decode("ascii"), offset, packed)
            except UnicodeDecodeError:
                pass
    raise InputError(f"cannot read {file}: it is no appliance binary (no pack footer at its end)", where=file)
