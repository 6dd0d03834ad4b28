"""The lot that this host drew once: with it and a version it finds its place in that version's waves."""

from __future__ import annotations

from appliance.errors import ApplianceError
from appliance.host import entropy, files

_SIZE_MAX = 256


def host_lot(path: str) -> str:
    """Read it, or draw it and keep it. Never raises: a host that cannot keep one is last in every wave."""
    try:
        if files.exists(path):
            return files.read_text(path, size_max=_SIZE_MAX).strip()
        lot = entropy.token(16)
        files.write_atomic(path, lot.encode() + b"\n", mode=0o600)
        return lot
    except ApplianceError:
        return ""
