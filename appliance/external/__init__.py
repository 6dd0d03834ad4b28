"""A real etcd, asked as the embedded store is: one Protocol, ``Keys``, over either.

``ExternalStore`` speaks etcd's JSON gateway to any of several endpoints; ``Embedded`` is the store of this process.
"""

from appliance.external.client import Credentials, ExternalStore, HeldLease
from appliance.external.face import ExternalFace
from appliance.external.keys import Embedded, Keys, Watch, migrate

__all__ = ["Credentials", "Embedded", "ExternalFace", "ExternalStore", "HeldLease", "Keys", "Watch", "migrate"]
