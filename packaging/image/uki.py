"""A unified kernel image: sections appended to systemd's EFI stub. The same input gives the same bytes.

Formats: Microsoft's PE/COFF specification, UAPI.5 (unified kernel image). Debian 12 has no ukify.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

_SECTION = struct.Struct("<8sIIIIIIHHI")
_READABLE_DATA = 0x40000040


def build_uki(stub: bytes, sections: Mapping[str, bytes]) -> bytes:
    """The stub with these sections behind its own, in order; the kernel (".linux") goes last."""
    image = bytearray(stub)
    pe = struct.unpack_from("<I", image, 0x3C)[0]
    assert image[pe : pe + 4] == b"PE\0\0", "the stub is no PE file"
    count, optional_size = struct.unpack_from("<H", image, pe + 6)[0], struct.unpack_from("<H", image, pe + 20)[0]
    optional = pe + 24
    assert struct.unpack_from("<H", image, optional)[0] == 0x20B, "the stub is no PE32+ file"
    section_alignment, file_alignment = struct.unpack_from("<II", image, optional + 32)
    headers_size = struct.unpack_from("<I", image, optional + 60)[0]
    table = optional + optional_size
    end = raw_end = 0
    first_raw = headers_size
    for index in range(count):
        _, size, address, raw_size, raw_at = struct.unpack_from("<8sIIII", image, table + 40 * index)
        end, raw_end = max(end, address + size), max(raw_end, raw_at + raw_size)
        first_raw = min(first_raw, raw_at or first_raw)
    assert table + 40 * (count + len(sections)) <= first_raw, "the stub has no room for so many sections"
    image[pe + 12 : pe + 20] = bytes(8)  # its symbols, which would lie between
    del image[raw_end:]
    added = 0
    for index, (name, data) in enumerate(sections.items(), count):
        address = _up(end, max(section_alignment, 4096))
        image += bytes(-len(image) % file_alignment)
        at = len(image)
        image += data + bytes(-len(data) % file_alignment)
        size = len(image) - at
        header = (name.encode(), len(data), address, size, at, 0, 0, 0, 0, _READABLE_DATA)
        _SECTION.pack_into(image, table + 40 * index, *header)
        end, added = address + len(data), added + size
    struct.pack_into("<H", image, pe + 6, count + len(sections))
    struct.pack_into("<I", image, optional + 8, struct.unpack_from("<I", image, optional + 8)[0] + added)
    struct.pack_into("<I", image, optional + 56, _up(end, section_alignment))
    struct.pack_into("<I", image, optional + 64, 0)  # the checksum, which EFI does not read
    return bytes(image)


def read_sections(image: bytes) -> dict[str, bytes]:
    """The sections of a PE file, by name."""
    pe = struct.unpack_from("<I", image, 0x3C)[0]
    count, optional_size = struct.unpack_from("<H", image, pe + 6)[0], struct.unpack_from("<H", image, pe + 20)[0]
    found = {}
    for index in range(count):
        name, size, _, _, at = struct.unpack_from("<8sIIII", image, pe + 24 + optional_size + 40 * index)
        found[name.rstrip(b"\0").decode()] = image[at : at + size]
    return found


def sum_image(image: bytes) -> int:
    """CRC-32 of all but what is signed apart or comes later: the command line, the signature and its place, the PE sum.

    init/loader.c sums what lies on the disk in the same way.
    """
    whole = bytearray(image)
    pe = struct.unpack_from("<I", whole, 0x3C)[0]
    count, optional_size = struct.unpack_from("<H", whole, pe + 6)[0], struct.unpack_from("<H", whole, pe + 20)[0]
    whole[pe + 24 + 64 : pe + 24 + 68] = bytes(4)
    whole[pe + 24 + 144 : pe + 24 + 152] = bytes(8)
    end = 0
    for index in range(count):
        name, _, _, size, at = struct.unpack_from("<8sIIII", whole, pe + 24 + optional_size + 40 * index)
        end = max(end, at + size)
        if name == b".cmdline":
            whole[at : at + size] = bytes(size)
    return zlib.crc32(whole[:end])


def _up(number: int, step: int) -> int:
    return (number + step - 1) // step * step
