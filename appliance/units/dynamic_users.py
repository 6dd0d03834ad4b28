"""Users that exist only while a unit runs: a number from the range that systemd uses, too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from appliance.errors import ApplianceError, NotFoundError, UnavailableError
from appliance.host import files

UIDS = range(61184, 65520)
_BYTES_MAX = 1 << 20


class DynamicUsers:
    """Remembered in a file until the host boots, so that another unit is never given a number that is in use."""

    def __init__(
        self, path: str, has_account: Callable[[str | int], bool], in_use: Callable[[], frozenset[int]]
    ) -> None:
        self._path = path
        self._has_account = has_account
        self._in_use = in_use
        self._uids: dict[str, int] | None = None

    def uid_of(self, name: str) -> int | None:
        """The number for that name; None when there is an account of that name. Raises UnavailableError."""
        if self._uids is None:
            self._uids = self._read()
        if name not in self._uids:
            if self._has_account(name):
                return None
            self._uids[name] = self._find(name, frozenset(self._uids.values()) | self._in_use())
            files.write_atomic(self._path, json.dumps(self._uids).encode(), mode=0o644, durable=False)
        return self._uids[name]

    def _find(self, name: str, taken: frozenset[int]) -> int:
        """The same one for a name each time, unless it is taken: what the unit keeps on disk stays its own."""
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        for step in range(len(UIDS)):
            uid = UIDS[(start + step) % len(UIDS)]
            if uid not in taken and not self._has_account(uid):
                return uid
        raise UnavailableError(f"cannot find a dynamic user for {name}: {UIDS[0]} to {UIDS[-1]} are all taken")

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(files.read_text(self._path, size_max=_BYTES_MAX))
        except (NotFoundError, ValueError):
            return {}
        except ApplianceError as error:
            raise UnavailableError(f"cannot tell which dynamic users are taken: {error.message}") from error
        return (
            {str(name): uid for name, uid in found.items() if isinstance(uid, int)} if isinstance(found, dict) else {}
        )
