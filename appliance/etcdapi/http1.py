"""HTTP/1.1 on the same port: ``/version``, ``/health``, ``/metrics``, and the JSON gateway at ``/v3/*``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING

import h11

from appliance.etcdapi.gateway import Gateway, Reply
from appliance.etcdapi.grpc import Methods

if TYPE_CHECKING:
    from appliance.etcdapi.verbs import Verbs


_NOTHING: Mapping[str, str] = MappingProxyType({})


class Http1:
    """One connection; requests are answered one after the other."""

    def __init__(self, verbs: Verbs, methods: Methods, wake: Callable[[], None]) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=65536)
        self._wake = wake
        self._gateway = Gateway(verbs, methods)
        self._out: list[bytes] = []
        self._size = 0
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._message_max = verbs.options.message_bytes
        self._body_max = 2 * self._message_max  # as JSON and base64
        self._reply: Reply | None = None
        self._served = 0
        self.closing = False

    @property
    def patient(self) -> bool:
        """Whether there is nothing to say."""
        return not self._out

    def waits_on(self) -> bool:
        """Never: what there is was said."""
        return False

    @property
    def established(self) -> bool:
        """Whether a whole request came."""
        return self._served > 0

    def settled(self) -> Http1:
        """It goes on by itself."""
        return self

    @property
    def backlog(self) -> int:
        """Bytes not taken yet."""
        return self._size

    def receive(self, data: bytes) -> None:
        """Bytes came."""
        try:
            self._h11.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as exc:
            self._refuse(exc.error_status_hint, str(exc))

    def _read(self) -> None:
        while self._reply is None and not self.closing:
            event = self._h11.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.Request):
                self._request, self._body = event, bytearray()
                if self._h11.they_are_waiting_for_100_continue:
                    self._put(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])))
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._body_max:
                    self._refuse(413, f"request body is larger than {self._body_max} bytes")
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                self._served += 1
                headers = dict(self._request.headers)
                token = headers.get(b"authorization") or headers.get(b"grpc-metadata-token", b"")
                reply = self._reply = Reply(self, token, self._message_max)
                method, target = self._request.method.decode("ascii"), self._request.target.decode("latin-1")
                origin = headers.get(b"origin", b"").decode("latin-1")
                self._gateway.serve(method, target, origin, bytes(self._body), reply)
            elif isinstance(event, h11.ConnectionClosed):
                self.closing = True

    def _refuse(self, status: int, text: str) -> None:
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.head(status, "text/plain; charset=utf-8", len(text) + 1, close=True)
            self.data(text.encode() + b"\n")
            self._put(self._h11.send(h11.EndOfMessage()))
        self.closing = True

    # What a Reply says

    def head(
        self, status: int, content_type: str, length: int | None, *, close: bool = False,
        more: Mapping[str, str] = _NOTHING,
    ) -> None:  # fmt: skip
        """The status line and headers; no length: in chunks."""
        headers = [*more.items(), *([("Content-Type", content_type)] if content_type else [])]
        headers.append(("Content-Length", str(length)) if length is not None else ("Transfer-Encoding", "chunked"))
        if close:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(status).phrase.encode()  # some clients show it, and only it
        self._put(self._h11.send(h11.Response(status_code=status, headers=headers, reason=reason)))

    def data(self, data: bytes) -> None:
        """A piece of the body."""
        if self._request is None or self._request.method != b"HEAD":
            self._put(self._h11.send(h11.Data(data=data)))

    def finish(self) -> None:
        """The answer is whole; the next request may come up."""
        self._put(self._h11.send(h11.EndOfMessage()))
        self._reply = None
        if self._h11.our_state is h11.MUST_CLOSE:
            self.closing = True
        elif self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()

    def _put(self, data: bytes | None) -> None:
        if data:
            if not self._out:
                self._wake()
            self._out.append(data)
            self._size += len(data)

    # The loop's side

    def take(self) -> bytes:
        """What to send."""
        data = b"".join(self._out)
        self._out.clear()
        self._size = 0
        return data

    def resume(self) -> None:
        """All was sent: read on what waited."""
        if self._reply is not None:
            self._reply.drained()
        elif not self.closing:
            try:
                self._read()
            except h11.RemoteProtocolError as exc:
                self._refuse(exc.error_status_hint, str(exc))

    def lost(self) -> None:
        """It is over."""
        self.closing = True
        if self._reply is not None:
            self._reply.lost()
