"""How watched files looked when a unit was last started for them: what changes while no daemon lives is not missed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

from appliance.errors import ApplianceError
from appliance.host import files

_BYTES_MAX = 1 << 20


class PathMemory:
    """A file for each ``[path]`` in the run directory; a daemon that ends in order takes it away."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def read_untrusted(self, name: str) -> Mapping[str, str]:
        """Marks by path; a file that is missing or garbage is as none."""
        try:
            found = json.loads(files.read_bytes(f"{self._directory}/{name}.json", size_max=_BYTES_MAX))
        except (ApplianceError, ValueError, RecursionError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {path: mark for path, mark in found.items() if isinstance(mark, str)}

    def write(self, name: str, marks: Mapping[str, str]) -> None:
        """Not for a power cut: the run directory does not outlive one. Raises UnavailableError, InputError."""
        files.make_directory(self._directory)
        files.write_atomic(f"{self._directory}/{name}.json", json.dumps(marks).encode(), mode=0o600, durable=False)

    def forget(self, name: str) -> None:
        """It is not watched any more."""
        with contextlib.suppress(ApplianceError):
            files.remove(f"{self._directory}/{name}.json")
