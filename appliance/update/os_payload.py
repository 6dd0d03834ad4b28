"""The payload of our own OS: a header, the image of the root partition, the kernel image. Pure, over pieces of bytes.

``APPLIANCE-OS-1`` and a JSON object on two lines, filled with newlines up to 4,096 bytes; the root, a multiple of 4,096
bytes; the kernel image up to the end.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from appliance.errors import UntrustedError

MAGIC = b"APPLIANCE-OS-1\n"
HEADER_SIZE = 4096


@dataclass(frozen=True, kw_only=True)
class OsHeader:
    """Sizes in bytes; ``identity``: the UUID in the root's dm-verity header."""

    version: str
    root_size: int
    kernel_size: int
    identity: str
    roothash: str

    def encode(self) -> bytes:
        """HEADER_SIZE bytes."""
        text = MAGIC + json.dumps(asdict(self), sort_keys=True).encode() + b"\n"
        assert len(text) <= HEADER_SIZE
        return text.ljust(HEADER_SIZE, b"\n")

    @property
    def kernel_at(self) -> int:
        """Where the kernel image begins."""
        return HEADER_SIZE + self.root_size

    @property
    def length(self) -> int:
        """Of the whole payload."""
        return self.kernel_at + self.kernel_size


def decode_header(data: bytes) -> OsHeader:
    """From the first HEADER_SIZE bytes. Raises UntrustedError."""
    if len(data) < HEADER_SIZE or not data.startswith(MAGIC):
        raise UntrustedError("cannot use the payload: it is not an OS image of ours")
    try:
        value = json.loads(data[len(MAGIC) : HEADER_SIZE])
        header = OsHeader(**{name: value[name] for name in OsHeader.__dataclass_fields__})
    except (ValueError, KeyError, TypeError) as exc:
        raise UntrustedError(f"cannot use the payload: its header is not ours: {exc}") from exc
    sizes = (header.root_size, header.kernel_size)
    if not all(type(size) is int and size > 0 for size in sizes) or header.root_size % HEADER_SIZE:
        raise UntrustedError(f"cannot use the payload: its header gives the sizes {sizes}")
    return header
