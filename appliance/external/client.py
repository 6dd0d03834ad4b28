"""A real etcd as the store: any of its endpoints, by the JSON gateway.

What may be asked twice is asked again elsewhere when an endpoint fails; a write whose fate is unknown is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from appliance.errors import ApplianceError, InputError, UnavailableError
from appliance.external import wire
from appliance.external.connection import Connection, NotSentError, parse_endpoint
from appliance.host import files
from appliance.store import (
    CompactedError,
    Compare,
    Delete,
    DeleteResult,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchBatch,
)  # fmt: skip

if TYPE_CHECKING:
    import ssl

ANSWER_SECONDS = 30.0
_IDLE_MAX = 4
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_READ_ROUNDS = 3
_UNAVAILABLE, _UNAUTHENTICATED = 14, wire.UNAUTHENTICATED


@dataclass(frozen=True)
class Credentials:
    """Paths of files, and whom to be. TLS needs an https:// endpoint."""

    ca_file: str = ""  # empty: whom the system trusts
    cert_file: str = ""
    key_file: str = ""
    user: str = ""
    password: str = ""
    password_file: str = ""  # read whenever we have to say who we are


class ExternalStore:
    """See Keys. ``endpoints`` are URLs; the one that answered last is asked first."""

    def __init__(self, endpoints: Sequence[str], credentials: Credentials | None = None) -> None:
        if not endpoints:
            raise InputError("cannot use an external store: it has no endpoints")
        for endpoint in endpoints:
            parse_endpoint(endpoint)
        self._endpoints = list(endpoints)
        self._credentials = credentials or Credentials()
        self._idle: list[Connection] = []
        self._tls: ssl.SSLContext | None = None
        self._token = ""

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """A service's main: there is nothing to do but to let the connections go in the end."""
        task_status.started()
        await stopping.wait()
        await self.aclose()

    async def aclose(self) -> None:
        """Let the connections go."""
        while self._idle:
            await self._idle.pop().aclose()

    # Asking

    async def read(self, request: Range) -> RangeResult:
        """See Keys."""
        answer = await self._ask("kv/range", wire.range_request(request), f"read {request.key!r}", again=True)
        return wire.range_result(answer)

    async def put(self, request: Put) -> PutResult:
        """See Keys."""
        return wire.put_result(await self._ask("kv/put", wire.put_request(request), f"put {request.key!r}"))

    async def delete(self, request: Delete) -> DeleteResult:
        """See Keys."""
        answer = await self._ask("kv/deleterange", wire.delete_request(request), f"delete {request.key!r}")
        return wire.delete_result(answer)

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation]
    ) -> TxnResult:
        """See Keys."""
        txn = Txn(tuple(compares), tuple(success), tuple(failure))
        return wire.txn_result(await self._ask("kv/txn", wire.txn_request(txn), "run a transaction"))

    async def compact(self, revision: int) -> None:
        """See Keys."""
        await self._ask("kv/compaction", {"revision": str(revision)}, f"compact revision {revision}")

    async def status(self) -> dict[str, Any]:
        """What maintenance/status says of the member that answered."""
        return await self._ask("maintenance/status", {}, "ask for the status", again=True)

    async def _ask(self, path: str, body: object, what: str, *, again: bool = False) -> dict[str, Any]:
        """One answer. ``again``: nothing is lost when it is done twice. Raises the store's errors."""
        fault: ApplianceError = UnavailableError(f"cannot {what}: no endpoint")
        reconnected = False
        for attempt in range(len(self._endpoints) * (_READ_ROUNDS if again else 1) + 1):
            if again and attempt and attempt % len(self._endpoints) == 0:
                await trio.sleep(_RETRY_SECONDS[attempt // len(self._endpoints) - 1])
            try:
                status, answer = await self._ask_one(path, body)
            except NotSentError as exc:
                fault = exc
                await self._next_endpoint()
                continue
            except UnavailableError as exc:
                fault = UnavailableError(f"cannot {what}: {exc.message}; it may have been done, or not")
                await self._next_endpoint()
                if again:
                    continue
                raise fault from exc
            if status == 200 and "error" not in answer:
                return answer
            code, message = _error_of(answer)
            if (code == _UNAUTHENTICATED or "invalid auth token" in message) and not reconnected:
                reconnected, self._token = True, ""  # tokens end when the server restarts
                continue
            fault = wire.fault(what, code, message)
            if isinstance(fault, CompactedError):
                fault = CompactedError(fault.message, await self._oldest())
            if again and code == _UNAVAILABLE:
                await self._next_endpoint()
                continue
            break
        raise fault

    async def _ask_one(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        connection = await self._connection()
        try:
            if self._credentials.user and not self._token:
                await self._authenticate(connection)
            with trio.fail_after(ANSWER_SECONDS):
                return await connection.ask(f"/v3/{path}", body, self._token)
        except trio.TooSlowError as exc:
            raise UnavailableError(f"{connection.endpoint} did not answer in {ANSWER_SECONDS:g} s") from exc
        finally:
            if connection.reusable and len(self._idle) < _IDLE_MAX:
                self._idle.append(connection)
            else:
                await connection.aclose()

    async def _authenticate(self, connection: Connection) -> None:
        it = self._credentials
        password = files.read_text(it.password_file).rstrip("\r\n") if it.password_file else it.password
        body = {"name": it.user, "password": password}
        with trio.fail_after(ANSWER_SECONDS):
            _, answer = await connection.ask("/v3/auth/authenticate", body, "")
        if "token" in answer:
            self._token = answer["token"]
            return
        code, message = _error_of(answer)
        if "authentication is not enabled" not in message:
            raise wire.fault(f"authenticate as {self._credentials.user}", code, message)

    async def _connection(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        endpoint = self._endpoints[0]
        return await Connection.open(endpoint, self._context() if endpoint.startswith("https:") else None)

    async def _next_endpoint(self) -> None:
        self._endpoints.append(self._endpoints.pop(0))
        await self.aclose()  # what is idle leads to the one that failed

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            import ssl

            it = self._credentials
            try:
                context = ssl.create_default_context(cafile=it.ca_file or None)
                if it.cert_file:
                    context.load_cert_chain(it.cert_file, it.key_file or None)
            except (OSError, ssl.SSLError) as exc:
                raise InputError(f"cannot use the certificates for the external store: {exc}") from exc
            self._tls = context
        return self._tls

    async def _oldest(self) -> int:
        """The compacted revision; only a watch is told it."""
        body = {"create_request": {"key": wire.text(b"\0"), "start_revision": "1"}}
        connection = await self._connection()
        try:
            with trio.move_on_after(ANSWER_SECONDS):
                await connection.begin("/v3/watch", body, self._token)
                while (line := await connection.line()) is not None:
                    if oldest := wire.number(line.get("result", {}), "compact_revision"):
                        return oldest
        except UnavailableError:
            return 0
        finally:
            await connection.aclose()
        return 0

    # Watching

    @contextlib.asynccontextmanager
    async def watch(
        self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0, prev_kv: bool = False
    ) -> AsyncIterator[RemoteWatch]:
        """See Keys. When an endpoint fails it goes on with another where it was."""
        if start_revision < 0:
            raise InputError(f"cannot watch {key!r} from revision {start_revision}: it is negative")
        if not start_revision:
            start_revision = (await self.read(Range(key or b"\0", count_only=True))).revision + 1
        watch = RemoteWatch(self, key or b"\0", range_end, start_revision, prev_kv)
        try:
            await watch.connect()
            yield watch
        finally:
            await watch.aclose()

    async def snapshot(self) -> AsyncIterator[bytes]:
        """The endpoint's database as it is now, in pieces, and its sha256. Raises UnavailableError when cut off."""
        await self.status()  # an endpoint that answers is the first from here on
        connection = await self.open_lines("/v3/maintenance/snapshot", {})
        try:
            left = 1
            while (line := await connection.line()) is not None:
                code, message = _error_of(line)
                if code or message:
                    raise wire.fault("make a snapshot", code, message)
                found = line.get("result", {})
                left = wire.number(found, "remaining_bytes")
                yield wire.data(found, "blob")
            if left:
                raise UnavailableError(f"cannot make a snapshot: {connection.endpoint} ended it {left} bytes too early")
        finally:
            with trio.CancelScope(shield=True):
                await connection.aclose()

    async def open_lines(self, path: str, body: object) -> Connection:
        """For what answers with line after line: they come from it."""
        if self._credentials.user and not self._token:
            await self._ask("kv/range", {"key": wire.text(b"\0"), "count_only": True}, "authenticate", again=True)
        connection = await Connection.open(
            self._endpoints[0], self._context() if self._endpoints[0].startswith("https:") else None
        )
        try:
            await connection.begin(path, body, self._token)
        except BaseException:
            with trio.CancelScope(shield=True):
                await connection.aclose()
            raise
        return connection

    async def endpoint_failed(self) -> None:
        """For RemoteWatch."""
        await self._next_endpoint()

    # Leases

    @contextlib.asynccontextmanager
    async def lease(self, ttl: int) -> AsyncIterator[HeldLease]:
        """A lease that is kept alive while this is open, and revoked in the end.

        ``lost`` is set when it is over, or nobody could be asked for as long as it lives.
        """
        answer = await self._ask("lease/grant", {"TTL": str(ttl)}, f"get a lease of {ttl} s")
        lease = HeldLease(wire.number(answer, "ID"), wire.number(answer, "TTL"), trio.Event())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_alive, lease)
            try:
                yield lease
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + ANSWER_SECONDS):
                    await self._revoke(lease)

    async def _revoke(self, lease: HeldLease) -> None:
        if lease.lost.is_set():
            return
        try:
            await self._ask("lease/revoke", {"ID": str(lease.id)}, "revoke a lease")
        except ApplianceError:
            return  # it ends by itself

    async def _keep_alive(self, lease: HeldLease) -> None:
        until = trio.current_time() + lease.ttl
        while trio.current_time() < until:
            await trio.sleep(min(lease.ttl / 3, max(until - trio.current_time(), 0)))
            asked = trio.current_time()
            with trio.move_on_at(until):
                try:
                    answer = await self._ask("lease/keepalive", {"ID": str(lease.id)}, "keep a lease", again=True)
                except ApplianceError:
                    continue
                if not wire.number(answer.get("result", {}), "TTL"):
                    break
                until = asked + lease.ttl
        lease.lost.set()


@dataclass(frozen=True)
class HeldLease:
    """``ttl`` as granted, seconds."""

    id: int
    ttl: int
    lost: trio.Event


class RemoteWatch:
    """One watch, over as many connections as it takes."""

    def __init__(
        self, store: ExternalStore, key: bytes, range_end: bytes | None, start_revision: int, prev_kv: bool
    ) -> None:
        self.key = key
        self.next_revision = start_revision
        self._store = store
        self._range_end = range_end
        self._prev_kv = prev_kv
        self._connection: Connection | None = None

    def __aiter__(self) -> RemoteWatch:
        """Itself."""
        return self

    async def __anext__(self) -> WatchBatch:
        """The next events. Raises CompactedError; a lost endpoint is only a pause."""
        while True:
            line = await self._line()
            result = line.get("result", {})
            if "error" in line or result.get("canceled"):
                await self._refused(line)
                continue
            events = tuple(wire.event(each) for each in result.get("events", ()))
            events = tuple(each for each in events if each.kv.mod_revision >= self.next_revision)
            if events:
                revision = events[-1].kv.mod_revision
                self.next_revision = revision + 1
                return WatchBatch(revision, events)

    async def _refused(self, line: dict[str, Any]) -> None:
        result = line.get("result", {})
        await self.aclose()
        if oldest := wire.number(result, "compact_revision"):
            raise CompactedError(
                f"cannot watch {self.key!r} from revision {self.next_revision}: kept from revision {oldest} on", oldest
            )
        code, message = _error_of(line)
        message = message or result.get("cancel_reason", "")
        fault = wire.fault(f"watch {self.key!r}", code, message or "the etcd ended it")
        if not isinstance(fault, UnavailableError):
            raise fault
        await self._store.endpoint_failed()

    async def connect(self) -> None:
        """Until it is created: what happens from here on is seen. Raises CompactedError."""
        await self._reconnect()

    async def _line(self) -> Any:
        while True:
            if self._connection is None:
                await self._reconnect()
            assert self._connection is not None
            with contextlib.suppress(UnavailableError):
                line = await self._connection.line()
                if line is not None:
                    return line
            await self.aclose()
            await self._store.endpoint_failed()

    async def _reconnect(self) -> None:
        create = {
            "key": wire.text(self.key), "start_revision": str(self.next_revision), "prev_kv": self._prev_kv,
            **({"range_end": wire.text(self._range_end)} if self._range_end else {}),
        }  # fmt: skip
        attempt = 0
        while True:
            try:
                with trio.fail_after(ANSWER_SECONDS):
                    self._connection = await self._store.open_lines("/v3/watch", {"create_request": create})
                    first = await self._connection.line() or {}
            except (UnavailableError, trio.TooSlowError):
                await self.aclose()
                await self._store.endpoint_failed()
                await trio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1
                continue
            if first.get("result", {}).get("created"):
                return
            await self._refused(first)

    async def aclose(self) -> None:
        """Let the connection go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with trio.CancelScope(shield=True):
                await connection.aclose()


def _error_of(answer: dict[str, Any]) -> tuple[int, str]:
    error = answer.get("error", "")
    if isinstance(error, dict):  # of a stream
        return int(error.get("grpc_code") or error.get("code") or 0), str(error.get("message", ""))
    return int(answer.get("code", 0)), str(answer.get("message") or error)
