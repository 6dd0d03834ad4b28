"""Assembles programs for the kernel's BPF machine (bpf(2)): eight bytes a step, jumps by name. Pure.

Registers: 0 is the answer, 1 to 5 the arguments of a call (lost by it), 6 to 9 are kept, 10 is the top of the stack.
"""

from __future__ import annotations

import struct

STACK = 10
MAP_LOOKUP, LOAD_PACKET_BYTES = 1, 26  # functions of the kernel
_COMPARE = {"==": 0x10, ">": 0x20, ">=": 0x30, "&": 0x40, "!=": 0x50, "<": 0xA0}
_SIZES = {4: 0x00, 8: 0x18}
_FAR = 0x7FFF
_THE_MAP = 1  # in the place of a register: what follows is the descriptor of a map, which the loader knows


class TooLongError(ValueError):
    """A jump would go farther than the machine can."""


class Code:
    """Steps in the order of the calls; ``mark`` names a place to jump to, before or after the jump."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, int, int | str, int]] = []  # operation, registers, offset or mark, constant
        self._marks: dict[str, int] = {}
        self._names = 0

    def mark(self, name: str) -> None:
        """Here."""
        self._marks[name] = len(self._steps)

    def new_mark(self) -> str:
        """A name that nothing else has, for a place that comes later."""
        self._names += 1
        return f"place {self._names}"

    def leads_to(self, mark: str) -> bool:
        """Whether anything jumps there; the kernel takes no steps that nothing leads to."""
        return any(offset == mark for _, _, _, offset, _ in self._steps)

    def load(self, into: int, base: int, offset: int, size: int = 4) -> None:
        """From memory."""
        self._steps.append((0x61 | _SIZES[size], into, base, offset, 0))

    def store(self, base: int, offset: int, value: int) -> None:
        """Four bytes into memory."""
        self._steps.append((0x62, base, 0, offset, value))

    def add_at(self, base: int, offset: int, register: int) -> None:
        """To eight bytes in memory, whoever else does the same just now."""
        self._steps.append((0xDB, base, register, offset, 0))

    def set(self, register: int, value: int) -> None:
        """A constant, of up to 64 bits."""
        if value < 1 << 31:
            self._steps.append((0xB7, register, 0, 0, value))
        else:
            self._steps.append((0x18, register, 0, 0, _signed(value & 0xFFFFFFFF)))
            self._steps.append((0, 0, 0, 0, _signed(value >> 32)))

    def set_map(self, register: int) -> None:
        """The map, whose descriptor is put in when the program is loaded."""
        self._steps += [(0x18, register, _THE_MAP, 0, 0), (0, 0, 0, 0, 0)]

    def copy(self, register: int, other: int) -> None:
        """All 64 bits."""
        self._steps.append((0xBF, register, other, 0, 0))

    def add(self, register: int, value: int) -> None:
        """A constant, perhaps a negative one."""
        self._steps.append((0x07, register, 0, 0, value))

    def mask(self, register: int, value: int) -> None:
        """Keep those bits."""
        self._steps.append((0x57, register, 0, 0, value))

    def shift_right(self, register: int, bits: int) -> None:
        """Zeroes come in from the left."""
        self._steps.append((0x77, register, 0, 0, bits))

    def from_network(self, register: int, bits: int) -> None:
        """From the byte order of the network to that of the machine."""
        self._steps.append((0xDC, register, 0, 0, bits))

    def jump(self, mark: str) -> None:
        """Always."""
        self._steps.append((0x05, 0, 0, mark, 0))

    def jump_if(self, register: int, compare: str, value: int, mark: str) -> None:
        """The lower 32 bits, without a sign, against a constant."""
        self._steps.append((0x06 | _COMPARE[compare], register, 0, mark, _signed(value)))

    def jump_if_register(self, register: int, compare: str, other: int, mark: str) -> None:
        """All 64 bits."""
        self._steps.append((0x0D | _COMPARE[compare], register, other, mark, 0))

    def jump_if_null(self, register: int, mark: str) -> None:
        """A pointer that leads nowhere."""
        self._steps.append((0x15, register, 0, mark, 0))

    def call(self, function: int) -> None:
        """One of the kernel's."""
        self._steps.append((0x85, 0, 0, 0, function))

    def answer(self, value: int) -> None:
        """The end."""
        self.set(0, value)
        self._steps.append((0x95, 0, 0, 0, 0))

    def assemble(self) -> bytes:
        """As the kernel reads it. Raises TooLongError."""
        return b"".join(
            struct.pack("=BBhi", operation, other << 4 | register, self._distance(at, offset), constant)
            for at, (operation, register, other, offset, constant) in enumerate(self._steps)
        )

    def _distance(self, at: int, offset: int | str) -> int:
        if isinstance(offset, int):
            return offset
        distance = self._marks[offset] - at - 1
        if not -_FAR <= distance <= _FAR:
            raise TooLongError(f"a program of {len(self._steps)} steps")
        return distance


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
