"""Auth: users, roles, permissions, tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from google.protobuf.message import Message

from appliance.errors import ApplianceError
from appliance.etcdapi.auth import Auth
from appliance.etcdapi.auth_book import Book, Permission
from appliance.etcdapi.grpc import Call, Method, Unary
from appliance.etcdapi.kv import answer_fault
from appliance.etcdapi.messages import Headers, parse_untrusted
from appliance.etcdapi.pb import auth_pb2, rpc_pb2
from appliance.etcdapi.statuses import refused
from appliance.store import Store

Verb = Callable[[Book], Book]


class AuthService:
    """The service etcdserverpb.Auth. Answers hold no revision of their own: nothing here makes one."""

    def __init__(self, auth: Auth, store: Store, headers: Headers, nursery: trio.Nursery) -> None:
        self._auth = auth
        self._store = store
        self._headers = headers
        self._nursery = nursery

    def methods(self) -> dict[bytes, Method]:
        """By path."""
        found: dict[str, Callable[[Call, bytes], bytes | None]] = {
            "AuthEnable": self._simple(rpc_pb2.AuthEnableRequest, lambda book: book.with_enabled()),
            "AuthDisable": self._simple(rpc_pb2.AuthDisableRequest, lambda book: book.with_disabled()),
            "AuthStatus": self.status,
            "Authenticate": self.authenticate,
            "UserAdd": self.user_add,
            "UserGet": self.user_get,
            "UserList": self.user_list,
            "UserDelete": self.user_delete,
            "UserChangePassword": self.user_change_password,
            "UserGrantRole": self.user_grant_role,
            "UserRevokeRole": self.user_revoke_role,
            "RoleAdd": self.role_add,
            "RoleGet": self.role_get,
            "RoleList": self.role_list,
            "RoleDelete": self.role_delete,
            "RoleGrantPermission": self.role_grant_permission,
            "RoleRevokePermission": self.role_revoke_permission,
        }
        return {f"/etcdserverpb.Auth/{name}".encode(): Unary(handle) for name, handle in found.items()}

    # Reading

    def status(self, call: Call, message: bytes) -> bytes:
        """Whether it is on."""
        parse_untrusted(rpc_pb2.AuthStatusRequest, message)
        self._require_root(call)
        book = self._auth.book
        return rpc_pb2.AuthStatusResponse(
            header=self._header(), enabled=book.enabled, authRevision=book.revision
        ).SerializeToString()

    def user_get(self, call: Call, message: bytes) -> bytes:
        """One's own roles, or as root anybody's."""
        request = parse_untrusted(rpc_pb2.AuthUserGetRequest, message)
        if not self._auth.book.enabled or self._auth.caller(call) != request.name:
            self._require_root(call)
        user = self._auth.book.user(request.name)
        return rpc_pb2.AuthUserGetResponse(header=self._header(), roles=user.roles).SerializeToString()

    def user_list(self, call: Call, message: bytes) -> bytes:
        """Names."""
        parse_untrusted(rpc_pb2.AuthUserListRequest, message)
        self._require_root(call)
        return rpc_pb2.AuthUserListResponse(header=self._header(), users=self._auth.book.users).SerializeToString()

    def role_get(self, call: Call, message: bytes) -> bytes:
        """What a role permits: a role of one's own, or as root any."""
        request = parse_untrusted(rpc_pb2.AuthRoleGetRequest, message)
        book = self._auth.book
        mine = book.users.get(self._auth.caller(call)) if book.enabled else None
        if mine is None or request.role not in mine.roles:
            self._require_root(call)
        permissions = [
            auth_pb2.Permission(permType=auth_pb2.Permission.Type.Name(kind), key=key, range_end=end)
            for kind, key, end in book.role(request.role)
        ]
        return rpc_pb2.AuthRoleGetResponse(header=self._header(), perm=permissions).SerializeToString()

    def role_list(self, call: Call, message: bytes) -> bytes:
        """Names."""
        parse_untrusted(rpc_pb2.AuthRoleListRequest, message)
        self._require_root(call)
        return rpc_pb2.AuthRoleListResponse(header=self._header(), roles=self._auth.book.roles).SerializeToString()

    # Changing

    def user_add(self, call: Call, message: bytes) -> None:
        """A new one."""
        request = parse_untrusted(rpc_pb2.AuthUserAddRequest, message)
        self._require_root(call)
        if not request.name:
            raise refused("user empty")

        async def verb() -> Verb:
            secret = "" if request.options.no_password else await self._auth.secret_of(request.password)
            return lambda book: book.with_user(request.name, secret)

        self._change(call, verb)

    def user_change_password(self, call: Call, message: bytes) -> None:
        """Its tokens are void."""
        request = parse_untrusted(rpc_pb2.AuthUserChangePasswordRequest, message)

        async def verb() -> Verb:
            self._auth.book.user(request.name)
            secret = await self._auth.secret_of(request.password)
            return lambda book: book.with_password(request.name, secret)

        self._change(call, verb)

    def user_delete(self, call: Call, message: bytes) -> None:
        """Its tokens are void."""
        request = parse_untrusted(rpc_pb2.AuthUserDeleteRequest, message)
        self._change(call, _now(lambda book: book.without_user(request.name)))

    def user_grant_role(self, call: Call, message: bytes) -> None:
        """One more."""
        request = parse_untrusted(rpc_pb2.AuthUserGrantRoleRequest, message)
        self._change(call, _now(lambda book: book.with_granted(request.user, request.role)))

    def user_revoke_role(self, call: Call, message: bytes) -> None:
        """One less."""
        request = parse_untrusted(rpc_pb2.AuthUserRevokeRoleRequest, message)
        self._change(call, _now(lambda book: book.with_revoked(request.name, request.role)))

    def role_add(self, call: Call, message: bytes) -> None:
        """A new one."""
        request = parse_untrusted(rpc_pb2.AuthRoleAddRequest, message)
        self._change(call, _now(lambda book: book.with_role(request.name)))

    def role_delete(self, call: Call, message: bytes) -> None:
        """From users too."""
        request = parse_untrusted(rpc_pb2.AuthRoleDeleteRequest, message)
        self._change(call, _now(lambda book: book.without_role(request.role)))

    def role_grant_permission(self, call: Call, message: bytes) -> None:
        """A key or a range."""
        request = parse_untrusted(rpc_pb2.AuthRoleGrantPermissionRequest, message)
        self._require_root(call)
        if not request.HasField("perm"):
            raise refused("permission not given")
        it = request.perm
        permission = Permission(int(it.permType), it.key, it.range_end)
        self._change(call, _now(lambda book: book.with_permission(request.name, permission)))

    def role_revoke_permission(self, call: Call, message: bytes) -> None:
        """Exactly this key or range."""
        request = parse_untrusted(rpc_pb2.AuthRoleRevokePermissionRequest, message)
        self._change(call, _now(lambda book: book.without_permission(request.role, request.key, request.range_end)))

    def authenticate(self, call: Call, message: bytes) -> None:
        """A token for a password."""
        request = parse_untrusted(rpc_pb2.AuthenticateRequest, message)

        async def answer() -> bytes:
            token = await self._auth.authenticate(request.name, request.password)
            return rpc_pb2.AuthenticateResponse(header=self._header(), token=token.decode()).SerializeToString()

        self._nursery.start_soon(_answering, call, answer)

    def _simple(self, kind: type[Message], verb: Verb) -> Callable[[Call, bytes], None]:
        def handle(call: Call, message: bytes) -> None:
            parse_untrusted(kind, message)
            self._change(call, _now(verb))

        return handle

    def _change(self, call: Call, verb: Callable[[], Awaitable[Verb]]) -> None:
        self._require_root(call)

        async def answer() -> bytes:
            await self._auth.change(await verb())
            return self._headers.alone(self._store.revision)

        self._nursery.start_soon(_answering, call, answer)

    def _require_root(self, call: Call) -> None:
        if self._auth.book.enabled:
            self._auth.require_root(self._auth.caller(call))
        elif call.token:
            self._auth.caller(call)

    def _header(self) -> rpc_pb2.ResponseHeader:
        return self._headers.at(self._store.revision)


def _now(verb: Verb) -> Callable[[], Awaitable[Verb]]:
    async def get() -> Verb:
        return verb

    return get


async def _answering(call: Call, answer: Callable[[], Awaitable[bytes]]) -> None:
    try:
        call.reply(await answer())
    except ApplianceError as exc:
        answer_fault(call, exc)
