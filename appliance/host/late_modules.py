"""Modules that are loaded when something in them is first asked for, not when they are imported.

Trio and our own rooms import what few nodes ever use and what is dear to load: OpenSSL's tables, IDNA's, decompressors.
As importlib.util.LazyLoader does, but safe with threads, which that of Python 3.11.2 is not (python/cpython 114763).
"""

from __future__ import annotations

import sys
from _frozen_importlib import ModuleSpec, module_from_spec  # importlib.util would load more
from _thread import RLock
from types import ModuleType
from typing import Any

# Only such as nobody looks into while importing them, and which never import us.
LATE = (
    "bz2", "calendar", "glob", "hashlib", "hmac", "idna", "ipaddress", "lzma", "shlex", "shutil", "ssl", "textwrap",
    "tokenize",
)  # fmt: skip
_lock = RLock()
_loading: set[str] = set()


class _Late(ModuleType):
    """Becomes the module, in place, at the first name that it lacks."""

    def __getattr__(self, name: str) -> Any:
        with _lock:
            if name == "__path__" or self.__name__ in _loading:  # what it asks of itself meanwhile is not there
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
            if self.__class__ is _Late:
                _load(self)
        return getattr(self, name)


def postpone(names: tuple[str, ...] = LATE) -> None:
    """From now on, in this process: those not loaded yet. What cannot be found is left to whoever imports it."""
    for name in names:
        if name not in sys.modules and (spec := _find(name)) is not None:
            module = module_from_spec(spec)
            module.__class__ = _Late
            sys.modules[name] = module


def _find(name: str) -> ModuleSpec | None:
    return next(filter(None, (finder.find_spec(name, None) for finder in sys.meta_path)), None)


def _load(module: ModuleType) -> None:
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    before = dict(vars(module))
    _loading.add(module.__name__)
    try:
        module.__spec__.loader.exec_module(module)
        module.__class__ = ModuleType
    except BaseException:  # as if nobody had asked: whoever asks next tries again
        vars(module).clear()
        vars(module).update(before)
        raise
    finally:
        _loading.discard(module.__name__)
