"""Under which path the gateway has which method, and its messages (the google.api.http options of etcd's .proto)."""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from appliance.etcdapi.pb import rpc_pb2, v3election_pb2, v3lock_pb2

_RPC = {
    "Lock": "lock/lock:Lock lock/unlock:Unlock",
    "Election": (
        "election/campaign:Campaign election/proclaim:Proclaim election/leader:Leader election/observe:Observe "
        "election/resign:Resign"
    ),
    "KV": "kv/range:Range kv/put:Put kv/deleterange:DeleteRange kv/txn:Txn kv/compaction:Compact",
    "Watch": "watch:Watch",
    "Lease": (
        "lease/grant:LeaseGrant lease/revoke:LeaseRevoke kv/lease/revoke:LeaseRevoke lease/keepalive:LeaseKeepAlive "
        "lease/timetolive:LeaseTimeToLive kv/lease/timetolive:LeaseTimeToLive lease/leases:LeaseLeases "
        "kv/lease/leases:LeaseLeases"
    ),
    "Cluster": (
        "cluster/member/add:MemberAdd cluster/member/remove:MemberRemove cluster/member/update:MemberUpdate "
        "cluster/member/list:MemberList cluster/member/promote:MemberPromote"
    ),
    "Maintenance": (
        "maintenance/alarm:Alarm maintenance/status:Status maintenance/defragment:Defragment maintenance/hash:Hash "
        "maintenance/hashkv:HashKV maintenance/snapshot:Snapshot maintenance/transfer-leadership:MoveLeader "
        "maintenance/downgrade:Downgrade"
    ),
    "Auth": (
        "auth/enable:AuthEnable auth/disable:AuthDisable auth/status:AuthStatus auth/authenticate:Authenticate "
        "auth/user/add:UserAdd auth/user/get:UserGet auth/user/list:UserList auth/user/delete:UserDelete "
        "auth/user/changepw:UserChangePassword auth/user/grant:UserGrantRole auth/user/revoke:UserRevokeRole "
        "auth/role/add:RoleAdd auth/role/get:RoleGet auth/role/list:RoleList auth/role/delete:RoleDelete "
        "auth/role/grant:RoleGrantPermission auth/role/revoke:RoleRevokePermission"
    ),
}
_FILES = {"Lock": v3lock_pb2.DESCRIPTOR, "Election": v3election_pb2.DESCRIPTOR}


def _paths() -> dict[str, tuple[bytes, type[Message], type[Message]]]:
    found: dict[str, tuple[bytes, type[Message], type[Message]]] = {}
    for service, listed in _RPC.items():
        file = _FILES.get(service, rpc_pb2.DESCRIPTOR)
        methods = file.services_by_name[service].methods_by_name
        for entry in listed.split():
            path, _, name = entry.partition(":")
            method = methods[name]
            found[f"/v3/{path}"] = (
                f"/{file.package}.{service}/{name}".encode(),
                GetMessageClass(method.input_type),
                GetMessageClass(method.output_type),
            )
    return found


PATHS = _paths()
