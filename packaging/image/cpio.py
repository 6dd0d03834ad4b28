"""An initramfs: newc cpio, byte for byte the same from the same input. No root, no cpio(1).

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat


class Cpio:
    """Add what shall be in it, parents come by themselves; ``finish`` gives the bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._inode = 1
        self._directories: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        """And its parents."""
        path = path.strip("/")
        if not path or path in self._directories:
            return
        self.directory(path.rpartition("/")[0])
        self._directories.add(path)
        self._entry(path, stat.S_IFDIR | mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file."""
        self.directory(path.strip("/").rpartition("/")[0])
        self._entry(path.strip("/"), stat.S_IFREG | mode, data)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._entry(path.strip("/"), stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """A node; making it in an archive takes no root."""
        self.directory(path.strip("/").rpartition("/")[0])
        self._entry(path.strip("/"), stat.S_IFCHR | mode, device=(major, minor))

    def finish(self) -> bytes:
        """Once, at the end."""
        self._inode = 0
        self._entry("TRAILER!!!", 0)
        return bytes(self._bytes + b"\0" * (-len(self._bytes) % 512))

    def _entry(self, path: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        numbers = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name), 0)
        self._inode += 1
        self._bytes += b"070701" + "".join(f"{number:08X}" for number in numbers).encode() + name
        self._bytes += b"\0" * (-len(self._bytes) % 4)
        self._bytes += data
        self._bytes += b"\0" * (-len(self._bytes) % 4)
