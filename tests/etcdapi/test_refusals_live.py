"""Every unary method, asked for nothing, by garbage and by strangers: a real etcd and ours refuse in the same words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from appliance.etcdapi.pb import auth_pb2
from appliance.etcdapi.pb import rpc_pb2 as pb
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving
from tests.etcdapi.test_differential import real_etcd
from tests.etcdapi.test_garbage import Raw

__all__ = ["real_etcd"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("etcd"), reason="needs etcd")]

NEWER = ("Maintenance/Downgrade", "Auth/AuthStatus")  # than the 3.4 we compare with
BODIES = {
    "nothing": b"", "cut": b"\xff\xff\xff", "a number too long": b"\x08" + b"\x80" * 10 + b"\x01",
    "the end of a group": b"\x0c",
}  # fmt: skip


def methods() -> list[str]:
    return [
        f"{service.name}/{method.name}"
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not (method.client_streaming or method.server_streaming) and f"{service.name}/{method.name}" not in NEWER
    ]


async def outcome(client: Client, method: str, body: bytes) -> object:
    try:
        await client.ask(method, Raw(body), pb.CompactionResponse)  # type: ignore[type-var]
    except EOFError as refused:
        return refused.args
    except DecodeError:
        return None  # some other answer: it was taken
    return None


async def enable(client: Client) -> None:
    """Everybody has to say who they are: root, or ann, who may read a key."""
    permission = auth_pb2.Permission(permType=auth_pb2.Permission.READ, key=b"k")
    for method, request in (
        ("UserAdd", pb.AuthUserAddRequest(name="root", password="r")),
        ("UserAdd", pb.AuthUserAddRequest(name="ann", password="a")),
        ("RoleAdd", pb.AuthRoleAddRequest(name="role")),
        ("RoleAdd", pb.AuthRoleAddRequest(name="root")),
        ("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="role", perm=permission)),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="ann", role="role")),
        ("AuthEnable", pb.AuthEnableRequest()),
    ):
        await client.ask(f"Auth/{method}", request, pb.AuthEnableResponse)


async def authenticate(client: Client, name: str, password: str) -> pb.AuthenticateResponse:
    request = pb.AuthenticateRequest(name=name, password=password)
    return await client.ask("Auth/Authenticate", request, pb.AuthenticateResponse)


async def test_as_a_real_etcd(real_etcd: str, tmp_path: Path) -> None:
    different: list[str] = []
    async with serving(tmp_path / "ours") as (address, _):
        clients = [await Client.connect(each) for each in (real_etcd, address)]

        async def compare(case: str, body: bytes, *but: str) -> None:
            for method in methods():
                if method in but:
                    continue
                expected, found = [await outcome(client, method, body) for client in clients]
                if found != expected:
                    different.append(f"{method}, {case}\netcd: {expected}\nours: {found}")

        for case, body in BODIES.items():
            await compare(case, body, "Auth/RoleGrantPermission" if not body else "")  # 3.5 asks for a permission
        for client in clients:
            client.token = "stray"
        await compare("a stray token", b"", "Maintenance/Alarm")  # 3.4 alone says it in other words there
        for client in clients:
            client.token = ""
            await enable(client)
        await compare("nobody", b"")
        for client in clients:
            client.token = (await authenticate(client, "ann", "a")).token
        await compare("a user", b"")
        for client in clients:
            await client.aclose()
    assert not different, "\n".join(different)
