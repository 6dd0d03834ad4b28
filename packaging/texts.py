#!/usr/bin/env python3
"""texts.py OUT: what dataclasses, attrs and typing would compile in each start, compiled (host/known_texts.py).

Run with -OO, as the built file runs, and with what makes a build reproducible.
"""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import marshal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from appliance.host.known_texts import name_of

ROOMS = ("lives", "api", "api.service", "units.units", "own_image", "own_slots", "machine.machine", "machine.network")


def collect() -> dict[bytes, bytes]:
    """Of a dataclass what makes its objects: few are ever compared or shown in a start."""
    found: dict[bytes, bytes] = {}
    compiled, create = builtins.compile, dataclasses._create_fn  # type: ignore[attr-defined]

    def keep(text: str, file: str, mode: str) -> Any:
        code = compiled(text, file, mode)
        canonical = marshal.loads(marshal.dumps(code))  # as if nobody else held its strings
        found[name_of(text, file, mode)] = marshal.dumps(canonical)
        return code

    def compile_kept(source: Any, filename: Any, mode: str, *more: Any, **named: Any) -> Any:
        if isinstance(source, str) and not more and not named:
            return keep(source, filename, mode)
        return compiled(source, filename, mode, *more, **named)

    def exec_kept(text: str, *places: Any) -> None:
        exec(keep(text, "<string>", "exec") if "def __init__(" in text else text, *places)

    builtins.compile = compile_kept
    dataclasses.exec = exec_kept  # type: ignore[attr-defined]
    assert create is dataclasses._create_fn  # type: ignore[attr-defined]  # not postponed: all are written now
    for room in ROOMS:
        importlib.import_module(f"appliance.{room}")
    builtins.compile = compiled
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(marshal.dumps(dict(sorted(collect().items()))))
