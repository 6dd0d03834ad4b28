"""The lot that this host drew once: with it and a version it finds its place in that version's waves."""

from __future__ import annotations

import hashlib

from appliance.errors import ApplianceError, InputError, NotFoundError
from appliance.host import clock, entropy, files
from appliance.host.layout import Layout
from appliance.update.product import Product

_SIZE_MAX = 256


def host_lot(path: str) -> str:
    """Read it, or draw it and keep it. Never raises: a host that cannot keep one is last in every wave."""
    try:
        if lot := _kept(path):
            return lot
        lot = entropy.token(16)
        files.write_atomic(path, lot.encode() + b"\n", mode=0o600)
        return lot
    except ApplianceError:
        return ""


def _kept(path: str) -> str:
    """Empty: there is none, or it was torn, and another is drawn."""
    try:
        lot = files.read_text(path, size_max=_SIZE_MAX).strip()
    except (NotFoundError, InputError):
        return ""
    return lot if lot.isascii() and lot.isprintable() else ""


def lock_identity(layout: Layout, product: Product) -> str:
    """As whom this host asks for a lock that others share: never the machine's id itself (machine-id(5))."""
    told = clock.machine_id() if layout.root == "/" else ""
    made = hashlib.sha256(f"appliance lock\0{told or host_lot(layout.wave_lot)}\0{layout.root}".encode()).hexdigest()[
        :32
    ]
    return made if not product.is_bundle else f"{made}-{product.name}"
