"""Classes whose methods are compiled late behave like all dataclasses; and a start compiles few of them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CASES = """
import copy, dataclasses, functools, inspect, json, pickle, sys
if sys.argv[1] == "late":
    from appliance.late_methods import postpone
    postpone()
    postpone()
from dataclasses import dataclass, field
from typing import ClassVar

@dataclass(frozen=True, kw_only=True)
class Frozen:
    a: int
    b: tuple = ()
    c: list = field(default_factory=list, compare=False)

@dataclass(order=True)
class Ordered:
    a: int
    b: str = "x"

@dataclass(frozen=True, slots=True)
class Slotted:
    a: int
    me: object = None

@dataclass
class Child(Ordered):
    c: int = 3
    def __post_init__(self):
        self.seen = self.a + self.c

@dataclass(eq=False)
class Same:
    self: int

@dataclass
class Own:
    a: int
    def __repr__(self):
        return "own"

@dataclass
class Marked:
    a: "int"
    b: "ClassVar[int]" = 5
    c: "dataclasses.InitVar[int]" = 6
    _: "dataclasses.KW_ONLY"
    d: "str" = "x"
    def __post_init__(self, c):
        self.given = c

class Plain(Ordered):
    def __init__(self):
        super().__init__(7)

def what(do):
    try:
        return repr(do())
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"

def delete(it, name):
    delattr(it, name)

told = []
for _ in range(2):  # the first call, and those after it
    told += [what(do) for do in (
        lambda: Frozen(a=1), lambda: Frozen(1), lambda: Frozen(), lambda: Frozen(a=1, z=2),
        lambda: Frozen(a=1) == Frozen(a=1, c=[2]), lambda: Frozen(a=1) == Frozen(a=2), lambda: Frozen(a=1) == 1,
        lambda: hash(Frozen(a=1)) == hash(Frozen(a=1)), lambda: {Frozen(a=1): 2}[Frozen(a=1)],
        lambda: setattr(Frozen(a=1), "a", 2), lambda: setattr(Frozen(a=1), "z", 2), lambda: delete(Frozen(a=1), "a"),
        lambda: Ordered(1) < Ordered(2), lambda: sorted([Ordered(2), Ordered(1, "z")]), lambda: Ordered(1) >= 3,
        lambda: hash(Ordered(1)), lambda: Ordered(1, b="y"), lambda: Ordered("1", "2", "3"),
        lambda: Slotted(1), lambda: Slotted(1, Slotted(2)), lambda: setattr(Slotted(1), "a", 2),
        lambda: hash(Slotted(3)), lambda: Slotted(1) == Slotted(1), lambda: copy.deepcopy(Slotted(1)),
        lambda: pickle.loads(pickle.dumps(Frozen(a=5))),
        lambda: Child(1).seen, lambda: Child(1) == Ordered(1), lambda: Child(1, "b", 4), lambda: Plain(),
        lambda: [one.name for one in dataclasses.fields(Marked)], lambda: Marked(1, 2, d="z").given,
        lambda: Marked(1, 2, "z"), lambda: Marked.__doc__ is None,
        lambda: Same(self=4).self, lambda: Same(4) == Same(4), lambda: Own(1), lambda: Own(a=2).a,
        lambda: dataclasses.replace(Frozen(a=1), a=2), lambda: dataclasses.asdict(Child(1)),
        lambda: Frozen.__init__.__qualname__, lambda: Ordered.__eq__.__qualname__, lambda: Slotted.__match_args__,
    )]
    looped = Ordered(1)
    looped.b = looped
    told.append(repr(looped))
print(json.dumps(told))
"""

STARTED = """
import dataclasses, sys
from appliance.late_methods import postpone
create, compiled = dataclasses._create_fn, []
def counted(name, args, body, *, globals=None, locals=None, return_type=dataclasses.MISSING):
    compiled.append(name)
    return create(name, args, body, globals=globals, locals=locals, return_type=return_type)
dataclasses._create_fn = counted
postpone()
import appliance.lives
made = sum(dataclasses.is_dataclass(thing) for name, module in sys.modules.items() if name.startswith("appliance.")
           for thing in vars(module).values() if getattr(thing, "__module__", "") == name)
print(made, len(compiled))
"""


def run(code: str, *words: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True).stdout


def test_they_are_what_dataclasses_are() -> None:
    late, plain = json.loads(run(CASES, "late")), json.loads(run(CASES, "plain"))
    assert len(plain) > 70
    for number, (ours, theirs) in enumerate(zip(late, plain, strict=True)):
        assert ours == theirs, f"case {number}"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="dataclasses compiles one text per class there")
def test_a_start_compiles_few() -> None:
    made, compiled = map(int, run(STARTED).split())
    assert made > 100
    assert compiled < made  # there are five or six to each
