"""The methods that ``dataclasses`` writes for a class are compiled when first called, not when the class is made.

A start of the node makes 220 such classes, and 1,200 methods by ``exec``, of which it calls a hundred: a third of its
time went there. ``_create_fn`` is no public name: where it is not the one we know (Python 3.11 and 3.12), nothing is
done, and all is as fast as before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

_KNOWN = ("name", "args", "body", "globals", "locals", "return_type")


def postpone() -> None:
    """From now on, in this process. Twice is fine."""
    create: Any = getattr(dataclasses, "_create_fn", None)
    code = getattr(create, "__code__", None)
    if code is not None and code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] == _KNOWN:
        dataclasses._create_fn = _postponed(create)  # type: ignore[attr-defined]
        dataclasses._process_class = _described(dataclasses._process_class)  # type: ignore[attr-defined]
        dataclasses._is_type = _looked_at(dataclasses._is_type)  # type: ignore[attr-defined]


def _described(process: Callable[..., Any]) -> Callable[..., Any]:
    """The built file has no docstrings, and a class without one is given the text of its signature, which is dear."""

    def process_described(cls: type, *given: Any, **named: Any) -> Any:
        if not cls.__doc__:
            cls.__doc__ = cls.__name__
        return process(cls, *given, **named)

    return process_described


def _looked_at(is_type: Callable[..., bool]) -> Callable[..., bool]:
    """Three times for each field it takes the text of a type to pieces, to find ClassVar, InitVar and KW_ONLY."""

    def is_type_looked_at(annotation: str, *more: Any) -> bool:
        return ("Var" in annotation or "KW_ONLY" in annotation) and is_type(annotation, *more)

    return is_type_looked_at


def _postponed(create: Callable[..., Any]) -> Callable[..., Any]:
    def create_late(name: str, args: Any, body: Any, **more: Any) -> Any:
        made: Any = None

        def late(self: Any, /, *given: Any, **named: Any) -> Any:
            nonlocal made
            method = made
            if method is None:
                method = create(name, args, body, **more)
                method.__qualname__ = late.__qualname__
                made = method
            for one in type(self).__mro__:  # the class is done with this one
                if one.__dict__.get(name) is late:
                    setattr(one, name, method)
            return method(self, *given, **named)

        late.__name__ = name
        late.__qualname__ = name
        return late

    return create_late
