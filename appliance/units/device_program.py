"""Which devices a unit may open and make nodes of, as a program for its cgroup (systemd.resource-control(5)). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from appliance.units.bpf_code import Code

Node = tuple[str, int, int]  # "char" or "block", major, minor
Drivers = Sequence[tuple[str, str, int]]  # "char" or "block", name, major; of /proc/devices

_ENTRY = re.compile(r"(?P<name>/[^\s\0]+|(char|block)-\S+)(\s+(?P<access>[rwm]{1,3}))?")
_NUMBERS = re.compile(r"/dev/(char|block)/(\d{1,4}):(\d{1,7})")
_BITS = {"m": 1, "r": 2, "w": 4}  # linux/bpf.h: BPF_DEVCG_ACC_*
_ALL = 7
_TYPES = {"block": 1, "char": 2}
_TYPE, _ACCESS, _MAJOR, _MINOR = 2, 3, 4, 5  # registers


@dataclass(frozen=True)
class Rule:
    """What may be done with one device, or with all of a driver, or with all of a kind."""

    kind: str  # "char" or "block"
    major: int | None
    minor: int | None
    access: int  # bits


# What every program may need: null, zero, full, random, urandom, tty, ptmx; and its terminals, which it cannot make.
STANDARD = (
    *(Rule("char", 1, minor, _ALL) for minor in (3, 5, 7, 8, 9)),
    Rule("char", 5, 0, _ALL),
    Rule("char", 5, 2, _ALL),
    Rule("char", 136, None, _BITS["r"] | _BITS["w"]),
)


def entries_problem(entries: tuple[str, ...]) -> str | None:
    """Of ``device_allow``."""
    for entry in entries:
        if not _ENTRY.fullmatch(entry):
            return (
                f'found "{entry}", expected "/dev/NAME" or "char-DRIVER" or "block-DRIVER", and perhaps some of "rwm"'
            )
    return None


def path_of(entry: str) -> str:
    """Empty: it names a driver, or numbers."""
    name = entry.split()[0]
    return name if name.startswith("/") and not _NUMBERS.fullmatch(name) else ""


def rules_of(entries: Iterable[str], nodes: Mapping[str, Node], drivers: Drivers) -> Iterator[Rule]:
    """``nodes``: the devices at the paths; one that is not there, and a driver that the kernel lacks, allow nothing."""
    for entry in entries:
        name, _, access = entry.partition(" ")
        bits = sum(_BITS[letter] for letter in set(access.strip() or "rwm"))
        if numbers := _NUMBERS.fullmatch(name):
            yield Rule(numbers[1], int(numbers[2]), int(numbers[3]), bits)
        elif name.startswith("/"):
            if (node := nodes.get(name)) is not None:
                yield Rule(*node, bits)
        else:
            yield from _of_driver(name, bits, drivers)


def _of_driver(name: str, bits: int, drivers: Drivers) -> Iterator[Rule]:
    kind, _, pattern = name.partition("-")
    if pattern == "*":
        yield Rule(kind, None, None, bits)
    elif pattern.isdecimal():
        yield Rule(kind, int(pattern), None, bits)
    else:
        found = {major for its, driver, major in drivers if its == kind and fnmatchcase(driver, pattern)}
        yield from (Rule(kind, major, None, bits) for major in sorted(found))


def device_program(rules: Iterable[Rule]) -> bytes:
    """Over struct bpf_cgroup_dev_ctx: what no rule allows is refused."""
    code = Code()
    code.load(_TYPE, 1, 0)
    code.copy(_ACCESS, _TYPE)
    code.mask(_TYPE, 0xFFFF)
    code.shift_right(_ACCESS, 16)
    code.load(_MAJOR, 1, 4)
    code.load(_MINOR, 1, 8)
    for rule in dict.fromkeys(rules):
        other = code.new_mark()
        code.jump_if(_TYPE, "!=", _TYPES[rule.kind], other)
        if rule.access != _ALL:
            code.jump_if(_ACCESS, "&", _ALL & ~rule.access, other)
        if rule.major is not None:
            code.jump_if(_MAJOR, "!=", rule.major, other)
        if rule.minor is not None:
            code.jump_if(_MINOR, "!=", rule.minor, other)
        code.answer(1)
        code.mark(other)
    code.answer(0)
    return code.assemble()
