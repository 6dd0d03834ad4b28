"""OVMF's variables, written from outside before the machine starts."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le  # of authenticated variables (edk2, MdeModulePkg)


def add_variables(firmware: bytes, wanted: Iterable[tuple[str, uuid.UUID, int, bytes]]) -> bytes:
    """OVMF's variables, and behind them these: (name, whose, attributes, value)."""
    image = bytearray(firmware)
    at = image.index(STORE) + 28
    while image[at : at + 2] == b"\xaa\x55":
        name, data = struct.unpack_from("<II", image, at + 36)
        at = -(-(at + 60 + name + data) // 4) * 4
    made = struct.pack("<HBBBBBBIhBB", 2024, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0)  # EFI_TIME
    for variable, vendor, attributes, value in wanted:
        word = f"{variable}\0".encode("utf-16-le")
        head = struct.pack("<HBBIQ16sIII", 0x55AA, 0x3F, 0, attributes, 0, made, 0, len(word), len(value))
        entry = head + vendor.bytes_le + word + value
        assert image[at : at + len(entry)] == b"\xff" * len(entry), "there is no room for them"
        image[at : at + len(entry)] = entry
        at = -(-(at + len(entry)) // 4) * 4
    return bytes(image)
