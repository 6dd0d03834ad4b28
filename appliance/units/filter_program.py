"""Assembles system call filters: classic BPF over struct seccomp_data (seccomp(2)). Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KILL = 0x80000000
ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_LOAD, _AND, _JUMP, _EQUAL, _GREATER_EQUAL, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06
_CALL_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_LENGTH_MAX = 4096


def refuse_with(code: int) -> int:
    """The answer that makes the call fail with that error."""
    return _ERRNO | code


@dataclass(frozen=True)
class Argument:
    """Holds when the lower 32 bits of that argument, masked, are ``value``; with ``is_not``, when they are not."""

    index: int
    mask: int
    value: int
    is_not: bool = False


@dataclass(frozen=True)
class Choice:
    """An answer, and stricter ones that go before it where the arguments are so."""

    answer: int
    cases: tuple[tuple[tuple[Argument, ...], int], ...] = ()

    def stricter(self, answer: int, arguments: tuple[Argument, ...]) -> Choice:
        """With one more rule. What is refused already stays as it is."""
        if self.answer != ALLOW:
            return self
        if not arguments:
            return Choice(answer)
        return Choice(self.answer, (*self.cases, (arguments, answer)))


def assemble(architectures: Mapping[int, Sequence[tuple[int, Choice]]]) -> bytes:
    """By the number of the architecture: (first call, choice) of each range, the first from 0."""
    code: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, _ARCHITECTURE_AT)]
    for number, ranges in architectures.items():
        part = [(_LOAD, 0, 0, _CALL_AT), *_search(ranges)]
        code += [(_EQUAL, 1, 0, number), (_JUMP, 0, 0, len(part)), *part]
    code.append((_RETURN, 0, 0, KILL))
    assert len(code) <= _LENGTH_MAX, "a filter of more than 4096 steps"
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def _search(ranges: Sequence[tuple[int, Choice]]) -> list[tuple[int, int, int, int]]:
    if len(ranges) == 1:
        return _choose(ranges[0][1])
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    return [(_GREATER_EQUAL, 0, 1, ranges[middle][0]), (_JUMP, 0, 0, len(low)), *low, *high]


def _choose(choice: Choice) -> list[tuple[int, int, int, int]]:
    code: list[tuple[int, int, int, int]] = []
    for arguments, answer in choice.cases:
        tests: list[tuple[int, int, int, int]] = []
        left = 4 * len(arguments)
        for one in arguments:
            left -= 4
            out = (_JUMP, 0, 0, left + 1)  # over what is left of the tests and the answer
            skip_if_equal = (0, 1) if one.is_not else (1, 0)
            tests += [
                (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * one.index),
                (_AND, 0, 0, one.mask),
                (_EQUAL, *skip_if_equal, one.value),
                out,
            ]
        code += [*tests, (_RETURN, 0, 0, answer)]
    code.append((_RETURN, 0, 0, choice.answer))
    return code
