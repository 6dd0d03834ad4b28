"""etcd's own words of refusal: clients compare these texts (api/v3rpc/rpctypes/error.go). Pure."""

from __future__ import annotations

from appliance.errors import (
    ApplianceError,
    ConflictError,
    CorruptError,
    InputError,
    NotFoundError,
    UnavailableError,
)  # fmt: skip
from appliance.etcdapi.grpc import Code, RefusedError
from appliance.store import (
    CompactedError,
    DuplicateKeyError,
    EmptyKeyError,
    FutureRevisionError,
    KeyNotFoundError,
    NoSpaceError,
    TooLargeError,
    TooManyOperationsError,
)  # fmt: skip

_I, _F, _N, _U = Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.UNAVAILABLE

STATUSES: dict[str, tuple[Code, str]] = {
    "empty key": (_I, "etcdserver: key is not provided"),
    "key not found": (_I, "etcdserver: key not found"),
    "value provided": (_I, "etcdserver: value is provided"),
    "lease provided": (_I, "etcdserver: lease is provided"),
    "too many operations": (_I, "etcdserver: too many operations in txn request"),
    "duplicate key": (_I, "etcdserver: duplicate key given in txn request"),
    "invalid client api version": (_I, "etcdserver: invalid client api version"),
    "invalid sort option": (_I, "etcdserver: invalid sort option"),
    "compacted": (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    "future revision": (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    "no space": (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
    "lease not found": (_N, "etcdserver: requested lease not found"),
    "lease exists": (_F, "etcdserver: lease already exists"),
    "lease ttl too large": (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL"),
    "watch canceled": (Code.CANCELLED, "etcdserver: watch canceled"),
    "member exists": (_F, "etcdserver: member ID already exist"),
    "peer url exists": (_F, "etcdserver: Peer URLs already exists"),
    "member not enough started": (_F, "etcdserver: re-configuration failed due to not enough started members"),
    "member bad urls": (_I, "etcdserver: given member URLs are invalid"),
    "member not found": (_N, "etcdserver: member not found"),
    "member not learner": (_F, "etcdserver: can only promote a learner member"),
    "learner not ready": (_F, "etcdserver: can only promote a learner member which is in sync with leader"),
    "too many learners": (_F, "etcdserver: too many learner members in cluster"),
    "cluster id mismatch": (_F, "etcdserver: cluster ID mismatch"),
    "request too large": (_I, "etcdserver: request is too large"),
    "too many requests": (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests"),
    "root user missing": (_F, "etcdserver: root user does not exist"),
    "root role missing": (_F, "etcdserver: root user does not have root role"),
    "user exists": (_F, "etcdserver: user name already exists"),
    "user empty": (_I, "etcdserver: user name is empty"),
    "user not found": (_F, "etcdserver: user name not found"),
    "role exists": (_F, "etcdserver: role name already exists"),
    "role not found": (_F, "etcdserver: role name not found"),
    "role empty": (_I, "etcdserver: role name is empty"),
    "authentication failed": (_I, "etcdserver: authentication failed, invalid user ID or password"),
    "permission not given": (_I, "etcdserver: permission not given"),
    "permission denied": (Code.PERMISSION_DENIED, "etcdserver: permission denied"),
    "role not granted": (_F, "etcdserver: role is not granted to the user"),
    "permission not granted": (_F, "etcdserver: permission is not granted to the role"),
    "auth disabled": (_F, "etcdserver: authentication is not enabled"),
    "invalid auth token": (Code.UNAUTHENTICATED, "etcdserver: invalid auth token"),
    "invalid auth management": (_I, "etcdserver: invalid auth management"),
    "auth revision old": (_I, "etcdserver: revision of auth store is old"),
    "no leader": (_U, "etcdserver: no leader"),
    "not leader": (_F, "etcdserver: not leader"),
    "leader changed": (_U, "etcdserver: leader changed"),
    "not capable": (_U, "etcdserver: not capable"),
    "stopped": (_U, "etcdserver: server stopped"),
    "timeout": (_U, "etcdserver: request timed out"),
    "unhealthy": (_U, "etcdserver: unhealthy cluster"),
    "corrupt": (Code.DATA_LOSS, "etcdserver: corrupt cluster"),
    "bad leader transferee": (_F, "etcdserver: bad leader transferee"),
    "no downgrade": (_F, "etcdserver: no inflight downgrade job"),
    "wrong downgrade version": (_I, "etcdserver: wrong downgrade target version format"),
    "invalid downgrade version": (_I, "etcdserver: invalid downgrade target version"),
    "member not supported": (
        _F,
        "etcdserver: this store has one member and takes no other: to have more, start a cluster of etcd from its "
        "snapshot (etcdctl snapshot save, then etcdctl snapshot restore)",
    ),
    "no downgrade to": (
        _F, "etcdserver: this store has no older version: start an etcd of that version from its snapshot"
    ),
}  # fmt: skip


def refused(name: str) -> RefusedError:
    """The error that answers with this status."""
    return RefusedError(*STATUSES[name])


_FAULTS: tuple[tuple[type[ApplianceError], str], ...] = (
    (CompactedError, "compacted"),
    (FutureRevisionError, "future revision"),
    (EmptyKeyError, "empty key"),
    (DuplicateKeyError, "duplicate key"),
    (TooManyOperationsError, "too many operations"),
    (TooLargeError, "request too large"),
    (KeyNotFoundError, "key not found"),
    (NoSpaceError, "no space"),
)
_KINDS: tuple[tuple[type[ApplianceError], Code], ...] = (
    (NotFoundError, Code.NOT_FOUND),
    (InputError, Code.INVALID_ARGUMENT),
    (ConflictError, Code.FAILED_PRECONDITION),
    (UnavailableError, Code.UNAVAILABLE),
    (CorruptError, Code.DATA_LOSS),
)


def refusal_of(exc: ApplianceError) -> RefusedError:
    """What a fault of the store is called on the wire: this room's door."""
    if isinstance(exc, RefusedError):
        return exc
    for fault, name in _FAULTS:
        if isinstance(exc, fault):
            return refused(name)
    for kind, code in _KINDS:
        if isinstance(exc, kind):
            return RefusedError(code, f"etcdserver: {exc.message}")
    return RefusedError(Code.UNKNOWN, f"etcdserver: {exc.message}")
