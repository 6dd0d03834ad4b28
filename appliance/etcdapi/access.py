"""Who may do what: the appliance's own keys are read-only for clients, the rest is up to authentication."""

from __future__ import annotations

from appliance.etcdapi.auth import READ, WRITE, Auth
from appliance.etcdapi.grpc import Call, Code, RefusedError
from appliance.etcdapi.leases import Leases
from appliance.store import Delete, Operation, Put, Range, Txn, prefix_end


class Access:
    """Asked before every request. Each method raises RefusedError; which rights a request takes is etcd's rule."""

    def __init__(self, auth: Auth, leases: Leases, reserved: bytes) -> None:
        self.auth = auth
        self._leases = leases
        self._reserved = reserved
        self._reserved_end = prefix_end(reserved) if reserved else b""

    @property
    def enabled(self) -> bool:
        """Whether anybody is asked who they are."""
        return self.auth.book.enabled

    def known(self, call: Call) -> None:
        """Anybody, but not with a token that is none: that is refused whether authentication is on or off."""
        if call.token or self.auth.book.enabled:
            self.auth.caller(call)

    def root(self, call: Call) -> None:
        """Only who may do anything."""
        if self.auth.book.enabled:
            self.auth.require_root(self.auth.caller(call))
        elif call.token:
            self.auth.caller(call)

    def maintainer(self, call: Call) -> None:
        """As ``root``, in the words that an etcd has where its maintenance asks."""
        try:
            self.root(call)
        except RefusedError as exc:
            raise RefusedError(Code.UNKNOWN, exc.message.replace("etcdserver: ", "auth: ", 1)) from exc

    def only_with_auth(self, call: Call) -> None:
        """For strangers: nothing, until everybody has to say who they are."""
        if not self.auth.book.enabled:
            text = "etcdserver: permission denied: closed to the network until authentication is enabled"
            raise RefusedError(Code.PERMISSION_DENIED, text)

    def range(self, call: Call, request: Range) -> None:
        """Reading."""
        self.read(call, request.key, request.range_end)

    def read(self, call: Call, key: bytes, range_end: bytes | None) -> None:
        """Reading, or watching."""
        if self.auth.book.enabled:
            self.auth.require(self.auth.caller(call), key, range_end, READ)
        elif call.token:
            self.auth.caller(call)

    def put(self, call: Call, request: Put) -> None:
        """One key."""
        if self._reserved and request.key.startswith(self._reserved):
            raise self._is_ours()
        if self.auth.book.enabled:
            user = self.auth.caller(call)
            self._operation(user, request)
            if request.lease:
                self._lease(user, request.lease)
        elif call.token:
            self.auth.caller(call)

    def delete(self, call: Call, request: Delete) -> None:
        """A range."""
        if self._reserved and self._touches(request.key, request.range_end):
            raise self._is_ours()
        if self.auth.book.enabled:
            self._operation(self.auth.caller(call), request)
        elif call.token:
            self.auth.caller(call)

    def txn(self, call: Call, request: Txn) -> None:
        """All that it may do, on either branch, however deep."""
        if self._reserved:
            self._check_writes(request)
        if self.auth.book.enabled:
            self._operation(self.auth.caller(call), request)
        elif call.token:
            self.auth.caller(call)

    def revoke(self, call: Call, lease_id: int) -> None:
        """Ends a lease, which deletes its keys."""
        if self.auth.book.enabled:
            self._lease(self.auth.caller(call), lease_id)
        elif call.token:
            self.auth.caller(call)

    def _operation(self, user: str, operation: Operation) -> None:
        require = self.auth.require
        if isinstance(operation, Range):
            require(user, operation.key, operation.range_end, READ)
        elif isinstance(operation, Put):
            require(user, operation.key, None, WRITE)
            if operation.prev_kv:
                require(user, operation.key, None, READ)
        elif isinstance(operation, Delete):
            require(user, operation.key, operation.range_end, WRITE)
            if operation.prev_kv:
                require(user, operation.key, operation.range_end, READ)
        else:
            for compare in operation.compares:
                require(user, compare.key, compare.range_end, READ)
            for each in (*operation.success, *operation.failure):
                self._operation(user, each)

    def _lease(self, user: str, lease_id: int) -> None:
        for key in self._leases.keys_of(lease_id):
            self.auth.require(user, key, None, WRITE)

    def _check_writes(self, txn: Txn) -> None:
        operations: tuple[Operation, ...] = (*txn.success, *txn.failure)
        for operation in operations:
            if isinstance(operation, Put):
                if operation.key.startswith(self._reserved):
                    raise self._is_ours()
            elif isinstance(operation, Delete):
                if self._touches(operation.key, operation.range_end):
                    raise self._is_ours()
            elif isinstance(operation, Txn):
                self._check_writes(operation)

    def _touches(self, key: bytes, range_end: bytes | None) -> bool:
        if not range_end:
            return key.startswith(self._reserved)
        return key < self._reserved_end and (range_end == b"\0" or range_end > self._reserved)

    def _is_ours(self) -> RefusedError:
        text = f"etcdserver: permission denied: keys below {self._reserved.decode()} are the appliance's own"
        return RefusedError(Code.PERMISSION_DENIED, text)
