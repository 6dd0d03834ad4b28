"""Where the built file finds its modules: one archive of all that is not ours (packaging/modules.py), and our files.

It knows where each is without looking for it, and keeps the archive open: what is imported late is there although the
descriptors of this process, or the directory that it started from, have run out.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec  # importlib.machinery would load more, and not from here

TYPE_CHECKING = False  # as mypy reads it; typing itself is not loaded here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

_OURS = "appliance."
_PYC_HEADER = 16


class PackedModules:
    """For ``sys.meta_path``: finder and loader. What it does not know is left to those behind it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._file = os.open(f"{directory}/modules", os.O_RDONLY | os.O_CLOEXEC)
        length = int.from_bytes(os.pread(self._file, 8, 0), "little")
        self._begin = 8 + length
        self._index: dict[str, tuple[int, int, bool]] = marshal.loads(os.pread(self._file, length, 8))

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where it is, and its code as bytes, if it is one of ours."""
        entry: Any = self._index.get(name)
        if entry is None and (not name.startswith(_OURS) or (entry := self._read_ours(name)) is None):
            return None
        place, is_package = self._directory + "/" + name.replace(".", "/"), entry[2]
        origin = place + ("/__init__.py" if is_package else ".py")
        spec = ModuleSpec(name, self, origin=origin, loader_state=entry, is_package=is_package)  # type: ignore[arg-type]
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(place)
        return spec

    def _read_ours(self, name: str) -> tuple[bytes, None, bool] | None:
        place = self._directory + "/" + name.replace(".", "/")
        for path, is_package in ((place + ".pyc", False), (place + "/__init__.pyc", True)):
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                return os.read(file, os.fstat(file).st_size)[_PYC_HEADER:], None, is_package
            finally:
                os.close(file)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """As usual."""

    def exec_module(self, module: ModuleType) -> None:
        """Run its code, in it."""
        assert module.__spec__ is not None
        exec(self._code(module.__spec__.loader_state), vars(module))

    def _code(self, entry: Any) -> Any:
        at, length, _ = entry
        return marshal.loads(at if length is None else os.pread(self._file, length, self._begin + at))

    def get_resource_reader(self, name: str) -> Any:
        """The files that lie where the module would."""
        from importlib.readers import FileReader
        from types import SimpleNamespace

        return FileReader(SimpleNamespace(path=f"{self._directory}/{name.replace('.', '/')}/__init__.py"))  # type: ignore[arg-type]


def find_here() -> None:
    """In the built file; from source nothing is to be done."""
    directory = getattr(sys, "_MEIPASS", None)
    if directory is not None:
        sys.meta_path.insert(0, PackedModules(directory))
