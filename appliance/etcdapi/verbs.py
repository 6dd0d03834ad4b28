"""All verbs over one store. Imported at the first connection: protobuf costs memory that an idle node keeps."""

from __future__ import annotations

from collections.abc import Callable

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi.access import Access
from appliance.etcdapi.auth import Auth
from appliance.etcdapi.auth_service import AuthService
from appliance.etcdapi.backend import Backend
from appliance.etcdapi.feeds import Feeds
from appliance.etcdapi.grpc import Call, Consumer, Method, Streaming, Unary, new_counts
from appliance.etcdapi.health import health_methods
from appliance.etcdapi.identity import Identity
from appliance.etcdapi.kv import KV
from appliance.etcdapi.lease_service import LeaseService
from appliance.etcdapi.leases import Leases
from appliance.etcdapi.member import VERSION, Member
from appliance.etcdapi.messages import Headers
from appliance.etcdapi.options import DEFAULTS, ApiOptions
from appliance.etcdapi.recipes import Recipes
from appliance.etcdapi.snapshot import SnapshotService
from appliance.etcdapi.statuses import refusal_of
from appliance.etcdapi.turns import Turns
from appliance.etcdapi.watch import WatchService
from appliance.store import Range, Store


class Verbs:
    """``methods`` by path; the tasks they need run in ``nursery``."""

    def __init__(
        self,
        store: Store,
        identity: Identity,
        nursery: trio.Nursery,
        flush: Callable[[], None],
        auth: Auth,
        options: ApiOptions = DEFAULTS,
        *,
        reserved: bytes = b"",
    ) -> None:
        self.store = store
        self.options = options
        self.turns = Turns(options.streams)
        self.headers = Headers(identity)
        backend = self.backend = Backend(store, flush)
        self.leases = Leases(self._still_attached, self._may_be_attached)
        self.access = Access(auth, self.leases, reserved)
        self.feeds = Feeds(store, nursery, flush)
        self.watch = WatchService(self.feeds, self.headers, self.access, progress_seconds=options.progress_seconds)
        self.lease = LeaseService(store, backend, self.headers, self.leases, self.access)
        found: dict[bytes, Method] = {
            **KV(store, backend, self.headers, self.leases, self.access, nursery, options.limits).methods(),
            **self.watch.methods(),
            **self.lease.methods(),
            **Member(store, self.headers, self.access, nursery).methods(),
            **Recipes(store, self.headers, self.lease, self.access, nursery).methods(),
            **AuthService(auth, store, self.headers, nursery).methods(),
            **health_methods(),
        }
        snapshot = SnapshotService(store, self.headers, self.leases.grants, VERSION, nursery).methods()
        found |= {path: _asking_first(method, self.access.maintainer) for path, method in snapshot.items()}
        self.methods = {path: _guarded(method) for path, method in found.items()}
        self.methods_with_auth_only = {
            path: _asking_first(method, self.access.only_with_auth) for path, method in self.methods.items()
        }
        nursery.start_soon(self.lease.expire)
        nursery.start_soon(self.watch.tell_progress)

    def _still_attached(self, key: bytes, lease_id: int) -> bool:
        try:
            kvs = self.store.read(Range(key, keys_only=True)).kvs
        except ApplianceError:
            return True  # a store that cannot be read now: the key stays a candidate
        return bool(kvs) and kvs[0].lease == lease_id

    def _may_be_attached(self, key: bytes, lease_id: int) -> bool:
        try:
            return self.store.may_hold(key, lease_id)
        except ApplianceError:
            return True


def _asking_first(method: Method, ask: Callable[[Call], None]) -> Method:
    """``ask`` raises RefusedError when the call may not be."""
    if isinstance(method, Unary):
        handle = method.handle

        def asked(call: Call, message: bytes) -> bytes | None:
            ask(call)
            return handle(call, message)

        return Unary(asked, method.counts)
    begin = method.open

    def asked_open(call: Call) -> Consumer:
        ask(call)
        return begin(call)

    return Streaming(asked_open, method.counts)


def _guarded(method: Method) -> Method:
    """Faults of the store become statuses here: the room's door."""
    if isinstance(method, Unary):
        handle = method.handle

        def guarded(call: Call, message: bytes) -> bytes | None:
            try:
                return handle(call, message)
            except ApplianceError as exc:
                raise refusal_of(exc) from exc

        return Unary(guarded, new_counts())
    begin = method.open

    def guarded_open(call: Call) -> Consumer:
        try:
            return begin(call)
        except ApplianceError as exc:
            raise refusal_of(exc) from exc

    return Streaming(guarded_open, new_counts())
