"""Watch: many watches on one stream, each with its range, start, filters, and way of being told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi.access import Access
from appliance.etcdapi.feeds import EncodedEvents, Feeds, Range
from appliance.etcdapi.grpc import Call, Code, Method, RefusedError, Streaming
from appliance.etcdapi.messages import Headers, parse_next_untrusted, varint
from appliance.etcdapi.pb import rpc_pb2
from appliance.etcdapi.statuses import STATUSES, refusal_of
from appliance.store import Event, WatchBatch

BACKLOG_MAX = 1 << 20  # unread by the client; then it gets no more until it has read
FRAGMENT_SIZE = 2 << 20
_SENT_AT_ONCE = 64 << 10  # then we look again how much lies unread
PROGRESS_SECONDS = 600.0
WATCHES_PER_STREAM_MAX = 100_000
_NO_WATCH = -1
_NAMES = {
    Code.UNAUTHENTICATED: "Unauthenticated", Code.PERMISSION_DENIED: "PermissionDenied",
    Code.INVALID_ARGUMENT: "InvalidArgument",
}  # fmt: skip
_DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"
_EMPTY_RANGE = "mvcc: watcher range is empty"


class WatchService:
    """The service etcdserverpb.Watch."""

    def __init__(
        self, feeds: Feeds, headers: Headers, access: Access, *, progress_seconds: float = PROGRESS_SECONDS
    ) -> None:
        self.feeds = feeds
        self.headers = headers
        self.access = access
        self._progress_seconds = progress_seconds
        self._with_progress: dict[_Watch, None] = {}
        self._first_progress = trio.Event()
        self.watches = 0

    def methods(self) -> dict[bytes, Method]:
        """By path."""
        return {b"/etcdserverpb.Watch/Watch": Streaming(lambda call: _Stream(self, call))}

    def count(self, watch: _Watch, change: int) -> None:
        """One came or went."""
        self.watches += change
        if change < 0:
            self._with_progress.pop(watch, None)
        elif watch.progress_notify:
            self._with_progress[watch] = None
            self._first_progress.set()

    async def tell_progress(self) -> None:
        """Every ten minutes, those who asked for it and heard nothing."""
        while True:
            await self._first_progress.wait()
            while self._with_progress:
                await trio.sleep(self._progress_seconds)
                with contextlib.suppress(ApplianceError):  # a store that is closed has no progress to tell
                    for watch in list(self._with_progress):
                        watch.tell_progress()
            self._first_progress = trio.Event()


@dataclass(eq=False)
class _Watch:
    stream: _Stream
    id: int
    range: Range
    next_revision: int
    hidden: frozenset[int]  # kinds of events filtered away
    fragment: bool
    progress_notify: bool
    told: bool = False  # something, since the last look
    tag: bytes = b""  # its id, encoded

    def __post_init__(self) -> None:
        self.tag = b"\x10" + varint(self.id & (1 << 64) - 1) if self.id else b""

    @property
    def way(self) -> _Stream:
        """Those of one stream."""
        return self.stream

    def deliver(self, batch: WatchBatch, encoded: EncodedEvents, reached: int) -> bool:
        """Send what of it is for us, unless too much lies unread."""
        if batch.revision < self.next_revision:
            return True
        call = self.stream.call
        if call.backlog >= BACKLOG_MAX:
            return False
        if self.hidden or batch.events[0].kv.mod_revision < self.next_revision:
            kept = [event for event in batch.events if self._wants(event)]
            if len(kept) < len(batch.events):
                encoded = EncodedEvents(kept)
        self.next_revision = batch.revision + 1
        if encoded.events:
            self.told = True
            head = self.stream.headers.alone(reached) + self.tag  # ``reached``: as an etcd says it to who was behind
            whole = encoded.whole()
            if self.fragment and len(whole) > FRAGMENT_SIZE:
                self._send_in_pieces(head, encoded)
            else:
                call.send(head + whole)
        return True

    def _wants(self, event: Event) -> bool:
        return event.kind not in self.hidden and event.kv.mod_revision >= self.next_revision

    def _send_in_pieces(self, head: bytes, encoded: EncodedEvents) -> None:
        piece: list[bytes] = []
        size = 0
        for part in encoded.parts():
            if piece and size + len(part) > FRAGMENT_SIZE:
                self.stream.call.send(head + b"\x38\x01" + b"".join(piece))
                piece, size = [], 0
            piece.append(part)
            size += len(part)
        self.stream.call.send(head + b"".join(piece))

    async def wait_for_room(self) -> None:
        """Until the client has read. One wakes the next: of thousands only as many as there is room for."""
        try:
            while self.stream.call.backlog >= BACKLOG_MAX:
                await self.stream.room.park()
        finally:  # when it was cancelled, too: it may have been the one that was woken
            self.stream.room.unpark()

    def compacted(self, revision: int) -> None:
        """Over: what it wants is gone."""
        self._cancel(rpc_pb2.WatchResponse(compact_revision=revision))

    def damaged(self) -> None:
        """Over: what it wants cannot be read."""
        self._cancel(rpc_pb2.WatchResponse(cancel_reason=STATUSES["corrupt"][1]))

    def _cancel(self, why: rpc_pb2.WatchResponse) -> None:
        self.stream.forget(self.id)
        answer = rpc_pb2.WatchResponse(header=self.stream.header(0), watch_id=self.id, canceled=True)
        answer.MergeFrom(why)
        self.stream.call.send(answer.SerializeToString())

    def tell_progress(self) -> None:
        """Nothing happened up to here."""
        if not self.told and self.stream.call.backlog < BACKLOG_MAX:
            self.stream.tell_progress([self], self.id)
        self.told = False


class _Stream:
    """The watches of one client's stream."""

    def __init__(self, service: WatchService, call: Call) -> None:
        self._service = service
        self.headers = service.headers
        self.call = call
        self.room = trio.lowlevel.ParkingLot()
        self._watches: dict[int, _Watch] = {}
        self._next_id = 0
        call.start()

    # What watches say

    def deliver(
        self, watches: Sequence[_Watch], batch: WatchBatch, encoded: EncodedEvents, reached: int
    ) -> Sequence[_Watch]:
        """As ``_Watch.deliver``, to many at once. Returns those whom it was not sent to."""
        if self.call.backlog >= BACKLOG_MAX:  # nothing is encoded for who has to wait: they may be thousands
            return [watch for watch in watches if not watch.deliver(batch, encoded, reached)]
        first, next_revision = batch.events[0].kv.mod_revision, batch.revision + 1
        whole = encoded.whole()
        header = self.headers.alone(reached)
        left: list[_Watch] = []
        at_once = max(1, _SENT_AT_ONCE // (len(header) + len(whole) + 16))
        for at in range(0, len(watches), at_once):
            messages: list[bytes] = []
            full = self.call.backlog >= BACKLOG_MAX
            for watch in watches[at : at + at_once]:
                if full or watch.hidden or watch.fragment or first < watch.next_revision:
                    if not watch.deliver(batch, encoded, reached):
                        left.append(watch)
                    continue
                watch.next_revision = next_revision
                watch.told = True
                messages.append(header + watch.tag + whole)
            self.call.send_all(messages)
        return left

    def head(self, revision: int, watch_id: int) -> bytes:
        """The first fields of a WatchResponse."""
        header = self._service.headers.alone(revision)
        return header + b"\x10" + varint(watch_id & (1 << 64) - 1) if watch_id else header

    def header(self, revision: int) -> rpc_pb2.ResponseHeader:
        """A header; an etcd says 0 where it gives a watch up."""
        return self._service.headers.at(revision)

    def tell_progress(self, watches: Iterable[_Watch], watch_id: int) -> None:
        """Up to which revision all of these were told everything."""
        feeds = self._service.feeds
        seen = min((feeds.seen(watch) for watch in watches), default=feeds.store.revision)
        self.call.send(self.head(seen, watch_id))

    def forget(self, watch_id: int) -> _Watch | None:
        """It is over."""
        watch = self._watches.pop(watch_id, None)
        if watch is not None:
            self._service.count(watch, -1)
        return watch

    # What the client says

    def message(self, message: bytes) -> None:
        """Create, cancel, or ask for progress."""
        try:
            self._act(parse_next_untrusted(rpc_pb2.WatchRequest, message))
        except ApplianceError as exc:
            refusal = refusal_of(exc)
            self.call.refuse(refusal.code, refusal.message)

    def _act(self, request: rpc_pb2.WatchRequest) -> None:
        match request.WhichOneof("request_union"):
            case "create_request":
                self._create(request.create_request)
            case "cancel_request":
                watch = self.forget(request.cancel_request.watch_id)
                if watch is not None:
                    self._service.feeds.remove(watch)
                    now = self.header(self._service.feeds.store.revision)
                    answer = rpc_pb2.WatchResponse(header=now, watch_id=watch.id, canceled=True)
                    self.call.send(answer.SerializeToString())
            case "progress_request":
                self._progress()

    def _create(self, request: rpc_pb2.WatchCreateRequest) -> None:
        key, range_end = request.key or b"\0", request.range_end or None
        now = self._service.feeds.store.revision
        reason = ""
        try:
            self._service.access.read(self.call, key, range_end)
        except RefusedError as exc:
            reason = f"rpc error: code = {_NAMES[exc.code]} desc = {exc.message}"
        if reason:
            pass
        elif request.watch_id and request.watch_id in self._watches:
            reason = _DUPLICATE_ID
        elif range_end and range_end != b"\0" and key >= range_end:
            reason = _EMPTY_RANGE
        elif len(self._watches) >= WATCHES_PER_STREAM_MAX:
            reason = "etcdserver: too many requests"
        if reason:
            self._say_created(now, _NO_WATCH, reason)
            return
        watch_id = request.watch_id
        if not watch_id:
            while self._next_id in self._watches:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        start = request.start_revision
        compacted = self._service.feeds.store.compacted_revision or -1
        watch = self._watches[watch_id] = _Watch(
            self, watch_id, (key, range_end, request.prev_kv), start if start > 0 else now + 1,
            frozenset(int(kind) for kind in request.filters), request.fragment, request.progress_notify,
        )  # fmt: skip
        self._service.count(watch, 1)
        self._say_created(now, watch_id, "")
        if start < 0 and start < compacted:  # an etcd takes it, and calls all of it compacted; -1 alone may be "now"
            watch.compacted(compacted)
        else:
            self._service.feeds.add(watch)

    def _say_created(self, revision: int, watch_id: int, reason: str) -> None:
        self.call.send(
            rpc_pb2.WatchResponse(
                header=self._service.headers.at(revision), watch_id=watch_id, created=True,
                canceled=bool(reason), cancel_reason=reason,
            ).SerializeToString()
        )  # fmt: skip

    def _progress(self) -> None:
        """One answer for all watches: the revision up to which every one of them was told everything."""
        self.tell_progress(self._watches.values(), _NO_WATCH)

    def half_close(self) -> None:
        """The client has asked for all it wants; as an etcd's, its watches go on until it leaves."""

    def reset(self) -> None:
        """It is over, however."""
        for watch_id in list(self._watches):
            watch = self.forget(watch_id)
            if watch is not None:
                self._service.feeds.remove(watch)
        self.room.unpark_all()

    def drained(self) -> None:
        """The client has read all."""
        self.room.unpark()
