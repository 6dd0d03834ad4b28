"""Who may do what: the appliance's own keys are read-only for clients, the rest is up to authentication."""

from __future__ import annotations

from appliance.etcdapi.grpc import Call, Code, RefusedError
from appliance.store import Delete, Operation, Put, Txn, prefix_end


class Access:
    """Asked before every request. Each method raises RefusedError."""

    def __init__(self, reserved: bytes) -> None:
        self._reserved = reserved
        self._reserved_end = prefix_end(reserved) if reserved else b""

    def put(self, call: Call, request: Put) -> None:
        """One key."""
        if self._reserved and request.key.startswith(self._reserved):
            raise self._is_ours()

    def delete(self, call: Call, request: Delete) -> None:
        """A range."""
        if self._reserved and self._touches(request.key, request.range_end):
            raise self._is_ours()

    def txn(self, call: Call, request: Txn) -> None:
        """All that it may do, on either branch, however deep."""
        if self._reserved:
            self._check_writes(request)

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
