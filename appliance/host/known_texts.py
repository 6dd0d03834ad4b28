"""Texts that libraries make up and compile in each start, compiled when the file was built (packaging/texts.py).

Dataclasses, attrs and typing write code for classes. Two hundred such texts took a tenth of the start. A text that is
not known is compiled as ever: of attrs many, which hold hashes that are others in each process.
"""

from __future__ import annotations

import builtins
import dataclasses
import marshal
import os
import sys
from _blake2 import blake2b  # hashlib would load OpenSSL
from typing import Any

_compile = builtins.compile
_texts: dict[bytes, bytes] = {}


def name_of(text: str, file: str, mode: str) -> bytes:
    """Under what it is kept."""
    return blake2b(f"{mode}\0{file}\0{text}".encode(), digest_size=16).digest()


def use() -> None:
    """Until ``forget``. Nothing to do where there are none, as from source."""
    path = f"{getattr(sys, '_MEIPASS', '')}/texts"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _texts.update(marshal.loads(os.read(file, os.fstat(file).st_size)))
    finally:
        os.close(file)
    builtins.compile = _compiled
    dataclasses.exec = _executed  # type: ignore[attr-defined]


def forget() -> None:
    """The start is over."""
    _texts.clear()
    builtins.compile = _compile
    vars(dataclasses).pop("exec", None)


def _compiled(source: Any, filename: Any, mode: str, *more: Any, **named: Any) -> Any:
    if isinstance(source, str) and not more and not named:
        code = _texts.get(name_of(source, filename, mode))
        if code is not None:
            return marshal.loads(code)
    return _compile(source, filename, mode, *more, **named)


def _executed(text: str, *places: Any) -> None:
    exec(_compiled(text, "<string>", "exec"), *places)
