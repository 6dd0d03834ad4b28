"""Cluster and Maintenance, as a cluster of one member answers them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi.access import Access
from appliance.etcdapi.grpc import Call, Code, Method, RefusedError, Unary
from appliance.etcdapi.kv import answer_fault
from appliance.etcdapi.messages import Headers, parse_untrusted
from appliance.etcdapi.pb import rpc_pb2
from appliance.etcdapi.statuses import refused
from appliance.store import CORRUPT, NO_SPACE, Store

VERSION = "3.5.21"  # the etcd whose API this is; clients choose features by it
CLUSTER_VERSION = "3.5.0"
PEER_URLS = b"member/peer-urls"  # the fact
_KINDS = {rpc_pb2.NOSPACE: NO_SPACE, rpc_pb2.CORRUPT: CORRUPT}
_TYPES = {kind: number for number, kind in _KINDS.items()}
_OLDER = "3.4"  # the one version that an etcd of ours goes back to
_VERSION = re.compile(r"(\d+\.\d+)(?:\.\d+)?")
_URL = re.compile(r"(?:http|https|unix|unixs)://[^/?#@]+:\d+")
EMPTY_BYTES = 4096  # clients read a size of nothing as "not told"


class Member:
    """The services etcdserverpb.Cluster and etcdserverpb.Maintenance."""

    def __init__(self, store: Store, headers: Headers, access: Access, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._access = access
        self._store = store
        self._headers = headers

    def methods(self) -> dict[bytes, Method]:
        """By path."""
        cluster, maintenance = b"/etcdserverpb.Cluster/", b"/etcdserverpb.Maintenance/"
        return {
            cluster + b"MemberList": Unary(self.members),
            cluster + b"MemberAdd": Unary(self.add),
            cluster + b"MemberRemove": Unary(self.remove),
            cluster + b"MemberUpdate": Unary(self.update),
            cluster + b"MemberPromote": Unary(self.promote),
            maintenance + b"Status": Unary(self.status),
            maintenance + b"Alarm": Unary(self.alarm),
            maintenance + b"Defragment": Unary(self.defragment),
            maintenance + b"Hash": Unary(self.hash),
            maintenance + b"HashKV": Unary(self.hash_kv),
            maintenance + b"MoveLeader": Unary(self.move_leader),
            maintenance + b"Downgrade": Unary(self.downgrade),
        }

    def move_leader(self, call: Call, message: bytes) -> bytes:
        """There is nobody to move to."""
        parse_untrusted(rpc_pb2.MoveLeaderRequest, message)
        raise refused("bad leader transferee")

    def downgrade(self, call: Call, message: bytes) -> bytes:
        """Asked for is: may it be; do it; do not do it."""
        request = parse_untrusted(rpc_pb2.DowngradeRequest, message)
        if request.action == rpc_pb2.DowngradeRequest.CANCEL:
            raise refused("no downgrade")
        if request.action not in (rpc_pb2.DowngradeRequest.VALIDATE, rpc_pb2.DowngradeRequest.ENABLE):
            raise RefusedError(Code.UNKNOWN, "unknown method")
        wanted = _VERSION.fullmatch(request.version)
        if wanted is None:
            raise refused("wrong downgrade version")
        if wanted.group(1) != _OLDER:
            raise refused("invalid downgrade version")
        if request.action == rpc_pb2.DowngradeRequest.ENABLE:
            raise refused("no downgrade to")
        return rpc_pb2.DowngradeResponse(header=self._headers.at(0), version=CLUSTER_VERSION).SerializeToString()

    def members(self, call: Call, message: bytes) -> bytes:
        """One."""
        parse_untrusted(rpc_pb2.MemberListRequest, message)
        return rpc_pb2.MemberListResponse(header=self._headers.at(0), members=[self._we()]).SerializeToString()

    def _we(self) -> rpc_pb2.Member:
        it = self._headers.identity
        changed = self._store.facts(PEER_URLS).get(PEER_URLS, b"").decode()
        urls = changed.split("\n") if changed else it.peer_urls
        return rpc_pb2.Member(ID=it.member_id, name=it.name, peerURLs=urls, clientURLs=it.client_urls)

    def update(self, call: Call, message: bytes) -> bytes | None:
        """Under which addresses other members would find us: it is kept, though there are none."""
        self._access.root(call)
        request = parse_untrusted(rpc_pb2.MemberUpdateRequest, message)
        if self._headers.identity.member_id != request.ID:
            raise refused("member not found")
        if any("\n" in url for url in request.peerURLs):
            raise refused("member bad urls")

        def done(fault: ApplianceError | None) -> None:
            if fault is not None:
                answer_fault(call, fault)
                return
            header = self._headers.at(0)
            call.reply(rpc_pb2.MemberUpdateResponse(header=header, members=[self._we()]).SerializeToString())

        self._store.submit_facts({PEER_URLS: "\n".join(request.peerURLs).encode()}, done, always=True)
        return None

    def add(self, call: Call, message: bytes) -> bytes:
        """No; and what is wrong with the request beside that is said first, as an etcd says it."""
        request = parse_untrusted(rpc_pb2.MemberAddRequest, message)
        if not request.peerURLs or not all(_URL.fullmatch(url) for url in request.peerURLs):
            raise refused("member bad urls")
        self._access.root(call)
        if set(request.peerURLs) & set(self._we().peerURLs):
            raise refused("peer url exists")
        raise refused("member not supported")

    def remove(self, call: Call, message: bytes) -> bytes:
        """There is no other; and the one cannot leave itself."""
        self._access.root(call)
        request = parse_untrusted(rpc_pb2.MemberRemoveRequest, message)
        known = self._headers.identity.member_id == request.ID
        raise refused("member not enough started" if known else "member not found")

    def promote(self, call: Call, message: bytes) -> bytes:
        """Nobody learns here."""
        self._access.root(call)
        request = parse_untrusted(rpc_pb2.MemberPromoteRequest, message)
        known = self._headers.identity.member_id == request.ID
        raise refused("member not learner" if known else "member not found")

    def status(self, call: Call, message: bytes) -> bytes:
        """How it is; raft's numbers follow the revision."""
        parse_untrusted(rpc_pb2.StatusRequest, message)
        status = self._store.status()
        it = self._headers.identity
        size = status.size_bytes or EMPTY_BYTES
        return rpc_pb2.StatusResponse(
            header=self._headers.at(status.revision), version=VERSION, dbSize=size, dbSizeInUse=size,
            leader=it.member_id, raftIndex=status.revision, raftTerm=it.raft_term,
            raftAppliedIndex=status.revision,
            errors=[*map(_alarm_text, self._alarms()), *([status.problem] if status.problem else [])],
        ).SerializeToString()  # fmt: skip

    def alarm(self, call: Call, message: bytes) -> bytes | None:
        """NOSPACE: the quota was reached, or there is no room on the disk now. CORRUPT: damage was met.

        As in an etcd, any member may be said to have one; what was not raised is disarmed without a word.
        """
        self._access.known(call)
        request = parse_untrusted(rpc_pb2.AlarmRequest, message)
        if request.action == rpc_pb2.AlarmRequest.GET:
            raised = self._alarms()
            wanted = [each for each in raised if request.alarm in (rpc_pb2.NONE, each.alarm)]
            return self._alarm_answer(wanted)
        self._access.root(call)
        on = request.action == rpc_pb2.AlarmRequest.ACTIVATE
        it = rpc_pb2.AlarmMember(memberID=request.memberID, alarm=request.alarm)
        kind = _KINDS.get(request.alarm)
        if kind is None or (not on and it not in self._alarms()):
            return self._alarm_answer([])

        def done(fault: ApplianceError | None) -> None:
            if fault is not None:
                answer_fault(call, fault)
            else:
                call.reply(self._alarm_answer([it]))

        ours = request.memberID == self._headers.identity.member_id
        self._store.set_alarm(on, done, kind=kind, member=None if ours else request.memberID)
        return None

    def _alarms(self) -> list[rpc_pb2.AlarmMember]:
        ours = self._headers.identity.member_id
        found = [
            rpc_pb2.AlarmMember(memberID=ours if member is None else member, alarm=_TYPES[kind])
            for kind, member in self._store.alarms()
        ]
        full = rpc_pb2.AlarmMember(memberID=ours, alarm=rpc_pb2.NOSPACE)
        return [full, *found] if self._store.status().state == "full" and full not in found else found

    def _alarm_answer(self, alarms: Sequence[rpc_pb2.AlarmMember]) -> bytes:
        header = self._headers.at(self._store.revision)
        return rpc_pb2.AlarmResponse(header=header, alarms=alarms).SerializeToString()

    def defragment(self, call: Call, message: bytes) -> None:
        """Give back what compaction leaves behind."""
        parse_untrusted(rpc_pb2.DefragmentRequest, message)
        self._access.maintainer(call)

        async def defragment() -> None:
            try:
                await self._store.defragment()
            except ApplianceError as exc:
                answer_fault(call, exc)
            else:
                call.reply(rpc_pb2.DefragmentResponse().SerializeToString())

        self._nursery.start_soon(defragment)

    def hash(self, call: Call, message: bytes) -> None:
        """Of all there is now."""
        parse_untrusted(rpc_pb2.HashRequest, message)
        self._access.maintainer(call)

        async def answer() -> bytes:
            revision = self._store.revision
            value = await self._store.hash(revision)
            return rpc_pb2.HashResponse(header=self._headers.at(revision), hash=value).SerializeToString()

        self._nursery.start_soon(_answering, call, answer)

    def hash_kv(self, call: Call, message: bytes) -> None:
        """Of all there was at a revision."""
        request = parse_untrusted(rpc_pb2.HashKVRequest, message)
        self._access.maintainer(call)
        if request.revision > self._store.revision:
            raise refused("future revision")
        if 0 < request.revision < self._store.compacted_revision:
            raise refused("compacted")

        async def answer() -> bytes:
            revision = self._store.revision
            asked = request.revision if request.revision > 0 else 0
            value = await self._store.hash(asked or revision)
            return rpc_pb2.HashKVResponse(
                header=self._headers.at(revision), hash=value,
                compact_revision=self._store.compacted_revision or -1, hash_revision=asked or revision,
            ).SerializeToString()  # fmt: skip

        self._nursery.start_soon(_answering, call, answer)


def _alarm_text(alarm: rpc_pb2.AlarmMember) -> str:
    """As an etcd prints it among the errors of its status."""
    return f"memberID:{alarm.memberID} alarm:{rpc_pb2.AlarmType.Name(alarm.alarm)} "


async def _answering(call: Call, answer: Callable[[], Awaitable[bytes]]) -> None:
    try:
        call.reply(await answer())
    except ApplianceError as exc:
        answer_fault(call, exc)
