"""System call filters (seccomp): from names to a program that the kernel runs before every call. Pure.

One program per unit, made when it starts: for each architecture the calls are cut into ranges with the same answer,
found by binary search; calls whose arguments matter are looked at in blocks of their own. A call of an architecture
that is not allowed is answered as systemd does: the process is killed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from appliance.units.filter_program import ALLOW, KILL, Argument, Choice, assemble, refuse_with

_X32_BIT = 0x40000000
ARCHITECTURES: Mapping[str, tuple[int, str]] = {  # our name -> the kernel's number, the table of names
    "x86-64": (0xC000003E, "X86_64"),
    "x86": (0x40000003, "X86"),
    "arm64": (0xC00000B7, "AARCH64"),
    "arm": (0x40000028, "ARM"),
}
LOCAL: Mapping[str, tuple[str, ...]] = {  # of the machine -> what its kernel may run, the native one first
    "x86_64": ("x86-64", "x86"),
    "aarch64": ("arm64", "arm"),
}
ERRNO_MAX = 4095


@dataclass(frozen=True)
class Rule:
    """One call gets that answer, when all of these arguments are so (none: always)."""

    call: str
    answer: int
    arguments: tuple[Argument, ...] = ()


@dataclass
class Filter:
    """What is to be refused, as it is collected from the sandbox's settings."""

    rules: list[Rule] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)  # of the calls that system_calls names
    otherwise: int = ALLOW  # of those it does not name
    architectures: tuple[str, ...] | None = None  # None: all that the machine has

    def refuse(self, calls: Iterable[str], code: int = errno.EPERM) -> None:
        """These calls, whatever their arguments."""
        self.rules += [Rule(call, refuse_with(code)) for call in calls]

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is to be refused."""
        return not self.rules and not self.answers and self.otherwise == ALLOW and self.architectures is None


@cache
def numbers(architecture: str) -> Mapping[str, int]:
    """Name to number of every system call of that architecture."""
    from appliance.units import system_call_numbers

    found, at = {}, 0
    for word in getattr(system_call_numbers, ARCHITECTURES[architecture][1]).split():
        if word.isdigit():
            at = int(word)
        else:
            found[word] = at
            at += 1
    return found


@cache
def is_known(name: str) -> bool:
    """Whether any architecture has a call of that name."""
    return any(name in numbers(architecture) for architecture in ARCHITECTURES)


@cache
def calls_of(name: str) -> frozenset[str]:
    """The calls of a group with those of the groups in it, or the call itself."""
    if not name.startswith("@"):
        return frozenset({name})
    from appliance.units.system_call_groups import GROUPS

    return frozenset().union(*(calls_of(one) for one in GROUPS[name].split()))


@cache
def group_names() -> tuple[str, ...]:
    """Of all groups."""
    from appliance.units.system_call_groups import GROUPS

    return tuple(GROUPS)


def error_number(name: str) -> int | None:
    """1 for EPERM; a number from 1 to 4095 means itself."""
    found = getattr(errno, name, None) if name.startswith("E") else None
    if found is None and name.isdigit() and 1 <= int(name) <= ERRNO_MAX:
        found = int(name)
    return found


def call_problem(text: str) -> str | None:
    """What is wrong with one entry of ``system_calls``: [~]NAME or [~]@GROUP, with :ERRNO perhaps."""
    name, colon, code = text.removeprefix("~").partition(":")
    if name.startswith("@"):
        if name not in group_names():
            return f'found the group "{name}", expected one of {" ".join(group_names())}'
    elif not is_known(name):
        return f'found "{name}", which is no system call that this version knows'
    if colon and code != "kill" and error_number(code) is None:
        return f'found the error "{code}", expected a name such as EPERM, a number up to {ERRNO_MAX}, or "kill"'
    return None


def read_calls(entries: Sequence[str], filter_: Filter, default: int) -> None:
    """``system_calls`` as systemd reads SystemCallFilter=: the first entry says whether the list allows or forbids.

    Later entries with the other sign take back. ``default`` answers what is refused and says nothing else.
    """
    if not entries:
        return
    allows = not entries[0].startswith("~")
    answers: dict[str, int] = {}
    for entry in entries:
        name, colon, code = entry.removeprefix("~").partition(":")
        said = default if not colon else KILL if code == "kill" else refuse_with(error_number(code) or errno.EPERM)
        is_minus = entry.startswith("~")
        for call in calls_of(name):
            if allows:
                if is_minus and not colon:
                    answers.pop(call, None)
                else:
                    answers[call] = said if colon else ALLOW
            elif is_minus:
                answers[call] = said
            else:
                answers.pop(call, None)
    if allows:
        for call in calls_of("@default"):
            answers.setdefault(call, ALLOW)
    filter_.answers, filter_.otherwise = answers, default if allows else ALLOW


def compile_filter(filter_: Filter, machine: str) -> bytes:
    """The program, as struct sock_filter[]. ``machine`` is that of uname(2), one of LOCAL."""
    local = LOCAL[machine]
    allowed = filter_.architectures
    wanted = [one for one in local if allowed is None or one in allowed or ("native" in allowed and one == local[0])]
    trees: dict[int, list[tuple[int, Choice]]] = {}
    for architecture in wanted:
        known = numbers(architecture)
        ranges: dict[int, Choice] = {}
        for call, answer in filter_.answers.items():
            if call in known:
                ranges[known[call]] = Choice(answer)
        for rule in filter_.rules:
            if rule.call not in known:
                continue
            before = ranges.get(known[rule.call], Choice(filter_.otherwise))
            ranges[known[rule.call]] = before.stricter(rule.answer, rule.arguments)
        trees[ARCHITECTURES[architecture][0]] = _as_ranges(ranges, filter_.otherwise, native=architecture == "x86-64")
    return assemble(trees)


def _as_ranges(choices: Mapping[int, Choice], otherwise: int, *, native: bool) -> list[tuple[int, Choice]]:
    """(first number, choice) of each run of calls with the same one. The x32 calls of x86-64 are none."""
    result = [(0, Choice(otherwise))]

    def begin(number: int, choice: Choice) -> None:
        if result[-1][0] == number:
            result.pop()
        if not result or result[-1][1] != choice:
            result.append((number, choice))

    for number in sorted(choices):
        begin(number, choices[number])
        begin(number + 1, Choice(otherwise))
    if native:
        begin(_X32_BIT, Choice(refuse_with(errno.ENOSYS)))
    return result
