"""A real etcd, asked as the embedded store is: one Protocol, ``Keys``, over either.

``ExternalStore`` speaks etcd's JSON gateway to any of several endpoints; ``Embedded`` is the store of this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.external.keys import Embedded, Keys, Watch, migrate

if TYPE_CHECKING:
    from appliance.external.client import Credentials, ExternalStore, HeldLease
    from appliance.external.face import ExternalFace

__all__ = ["Credentials", "Embedded", "ExternalFace", "ExternalStore", "HeldLease", "Keys", "Watch", "migrate"]
_PLACES = {"Credentials": "client", "ExternalFace": "face", "ExternalStore": "client", "HeldLease": "client"}


def __getattr__(name: str) -> Any:
    """On first use: most nodes have their store with them."""
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"appliance.external.{_PLACES[name]}"), name)
    raise AttributeError(name)
