"""The same random operations of users with random permissions against a real etcd and ours, authentication being on.

Each operation is asked by root, by one of two users, with a token that is none, or without one; roles change meanwhile.
``DIFFERENTIAL_SEED=N`` runs that seed alone.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TypeVar

import pytest
from google.protobuf.message import Message

from appliance.etcdapi.pb import auth_pb2
from appliance.etcdapi.pb import rpc_pb2 as pb
from tests.etcdapi.serving import serving
from tests.etcdapi.test_differential import (
    ANSWERS,
    ENDS,
    GATEWAY,
    KEYS,
    OPERATIONS,
    Chooser,
    Side,
    flat,
    reached,
    real_etcd,
)

__all__ = ["real_etcd"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd")]

SEEDS = [int(os.environ["DIFFERENTIAL_SEED"])] if "DIFFERENTIAL_SEED" in os.environ else [1, 2, 3]
USERS = ["root", "one", "two"]
ROLES = ["r", "s"]
ANSWERS |= {
    f"Auth/{name}": getattr(pb, f"Auth{name}Response")
    for name in ("RoleGrantPermission", "RoleRevokePermission", "UserGrantRole", "UserRevokeRole", "UserGet", "RoleGet",
                 "UserList", "RoleList", "UserAdd", "RoleAdd")
} | {"Auth/AuthEnable": pb.AuthEnableResponse, "Auth/Authenticate": pb.AuthenticateResponse}  # fmt: skip


Ranged = TypeVar("Ranged", pb.RangeRequest, pb.DeleteRangeRequest, pb.Compare, pb.WatchCreateRequest)


def forward(request: Ranged) -> Ranged:
    if request.range_end != b"\0" and request.range_end <= request.key:
        request.range_end = b""
    return request


class AuthChooser(Chooser):
    def next(self) -> tuple[str, Message]:
        return self.auth() if self.rarely(0.15) else super().next()

    def caller(self) -> str:
        return self.random.choices([*USERS, "stray", ""], [30, 30, 30, 3, 7])[0]

    # Which permission an etcd asks for ranges that end before they begin depends on how its tree happens to stand.

    def range(self) -> pb.RangeRequest:
        return forward(super().range())

    def delete(self, *, in_txn: bool = False) -> pb.DeleteRangeRequest:
        return forward(super().delete(in_txn=in_txn))

    def compare(self) -> pb.Compare:
        return forward(super().compare())

    def put(self, *, in_txn: bool = False) -> pb.PutRequest:
        request = super().put(in_txn=in_txn)
        if in_txn:
            request.prev_kv = False  # there an etcd shows it to those who may not read, too
        return request

    def txn(self, depth: int = 1) -> pb.TxnRequest:
        return super().txn(2)  # not nested: the etcd of 3.4.23 asks no permission for what is inside

    def watch(self) -> pb.WatchRequest:
        request = super().watch()
        if request.create_request.range_end == b"\0":
            request.create_request.range_end = b"b"  # an etcd asks only for the first key's permission, we for all
        forward(request.create_request)
        return request

    def auth(self) -> tuple[str, Message]:
        user, role = self.pick([*USERS, "nobody"]), self.pick([*ROLES, "root", "none"])
        if user == "root" or role == "root":  # root stays root, and alone
            looks = [
                ("Auth/UserGet", pb.AuthUserGetRequest(name=user)),
                ("Auth/RoleList", pb.AuthRoleListRequest()),
                ("Auth/RoleGet", pb.AuthRoleGetRequest(role=role)),
            ]
            return self.pick(looks)
        key = self.pick(KEYS[1:])
        end = ENDS[KEYS.index(key) % len(ENDS)]  # one for each: else an etcd may keep two permissions of one range
        if end not in (b"", b"\0") and key >= end:
            end = b""
        permission = auth_pb2.Permission(permType=self.random.randrange(3), key=key, range_end=end)
        makers: list[tuple[int, tuple[str, Message]]] = [
            (8, ("Auth/RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name=role, perm=permission))),
            (3, ("Auth/RoleRevokePermission",
                 pb.AuthRoleRevokePermissionRequest(role=role, key=permission.key, range_end=permission.range_end))),
            (3, ("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role))),
            (1, ("Auth/UserRevokeRole", pb.AuthUserRevokeRoleRequest(name=user, role=role))),
            (2, ("Auth/UserGet", pb.AuthUserGetRequest(name=user))),
            (2, ("Auth/RoleGet", pb.AuthRoleGetRequest(role=role))),
            (1, ("Auth/UserList", pb.AuthUserListRequest())),
        ]  # fmt: skip
        return self.random.choices([it for _, it in makers], [weight for weight, _ in makers])[0]


async def prepare(side: Side) -> dict[str, str]:
    """Users, roles, and authentication; the tokens."""
    some = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"`", range_end=b"b")
    pairs = zip(USERS[1:], ROLES, strict=True)
    steps: list[tuple[str, Message]] = [
        *(("Auth/UserAdd", pb.AuthUserAddRequest(name=name, password="pw")) for name in USERS),
        *(("Auth/RoleAdd", pb.AuthRoleAddRequest(name=name)) for name in ["root", *ROLES]),
        ("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
        *(("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=u, role=r)) for u, r in pairs),
        *(("Auth/RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name=name, perm=some)) for name in ROLES),
        ("Auth/AuthEnable", pb.AuthEnableRequest()),
    ]
    for method, request in steps:
        assert not isinstance(await side.do(method, request), tuple), method
    tokens = {"": "", "stray": "none.1"}
    for name in USERS:
        ask = pb.AuthenticateRequest(name=name, password="pw")
        tokens[name] = (await side.client.ask("Auth/Authenticate", ask, pb.AuthenticateResponse)).token
    side.root_token = tokens["root"]
    return tokens


@pytest.mark.parametrize("seed", SEEDS)
async def test_as_a_real_etcd(seed: int, real_etcd: str, tmp_path: Path) -> None:
    chooser = AuthChooser(seed)
    done: list[str] = []
    async with serving(tmp_path / "ours") as (address, _), reached(real_etcd) as theirs, reached(address) as ours:
        tokens = {id(side): await prepare(side) for side in (theirs, ours)}
        for _ in range(OPERATIONS):
            caller = chooser.caller()
            method, request = chooser.next()
            as_json = method in GATEWAY and chooser.rarely(0.15)
            done.append(f"{caller or '-'}: {method}{' (json)' if as_json else ''} {{{flat(request)}}}")
            found: list[object] = []
            for side in (theirs, ours):
                side.client.token = tokens[id(side)][caller]
                found.append(await (side.do_json if as_json else side.do)(method, request))
            expected, got = found
            if got != expected:
                trail = "\n".join(done)
                pytest.fail(f"seed {seed}\n{trail}\netcd: {flat(expected)}\nours: {flat(got)}", pytrace=False)
            if as_json and expected[0] == 200:  # type: ignore[index]
                expected = ANSWERS[method]()
            chooser.learn(request, expected)
            theirs.compacted = ours.compacted = chooser.compacted
            if as_json or method == "Watch/Watch":
                theirs.client.token = theirs.root_token
                chooser.learn(pb.RangeRequest(), await theirs.do("KV/Range", pb.RangeRequest(key=b"x")))
