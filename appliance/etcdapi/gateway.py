"""The JSON face of every method, as etcd's grpc-gateway writes it, and the side doors. Pure.

Bytes are base64, 64-bit numbers are strings, what has its default is left out, names are those of the .proto files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from google.protobuf import json_format
from google.protobuf.message import Message

from appliance.etcdapi import metrics
from appliance.etcdapi.grpc import MESSAGE_SIZE_MAX, Code, Consumer, Methods, RefusedError, Streaming, Unary
from appliance.etcdapi.health import health_of
from appliance.etcdapi.json_in import BadJsonError, messages_untrusted
from appliance.etcdapi.json_paths import PATHS
from appliance.etcdapi.member import CLUSTER_VERSION, VERSION
from appliance.etcdapi.turns import Turns

if TYPE_CHECKING:
    from appliance.etcdapi.verbs import Verbs

_HTTP_STATUS = {
    Code.OK: 200, Code.CANCELLED: 408, Code.UNKNOWN: 500, Code.INVALID_ARGUMENT: 400, Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404, Code.ALREADY_EXISTS: 409, Code.PERMISSION_DENIED: 403, Code.UNAUTHENTICATED: 401,
    Code.RESOURCE_EXHAUSTED: 429, Code.FAILED_PRECONDITION: 412, Code.ABORTED: 409, Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501, Code.INTERNAL: 500, Code.UNAVAILABLE: 503, Code.DATA_LOSS: 500,
}  # fmt: skip
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_FROM_RPC = {"Grpc-Metadata-Content-Type": "application/grpc"}  # as etcd's gateway marks what a method said
_NOT_GUESSED = {"X-Content-Type-Options": "nosniff"}
_ONLY_GET = _NOT_GUESSED | {"Allow": "GET"}
_PREFIXES = ("/v3/", "/v3beta/", "/v3alpha/")  # clients older than 3.4 ask under the others
_NOTHING: Mapping[str, str] = MappingProxyType({})
_SLASHES = re.compile("//+")


class Wire(Protocol):
    """The connection, as a reply uses it."""

    @property
    def backlog(self) -> int:
        """Bytes not taken yet."""

    def head(
        self, status: int, content_type: str, length: int | None, *, close: bool = False,
        more: Mapping[str, str] = _NOTHING,
    ) -> None:  # fmt: skip
        """Status line and headers."""

    def data(self, data: bytes) -> None:
        """A piece of the body."""

    def finish(self) -> None:
        """The end."""


class Reply:
    """A ``Call`` whose answers go out as JSON."""

    common_name = ""  # as etcd's: the gateway speaks for whoever has a token, not for a certificate

    def __init__(self, wire: Wire, token: bytes = b"", most: int = MESSAGE_SIZE_MAX) -> None:
        """``most`` bytes may a message have."""
        self._wire = wire
        self._most = most
        self.headers: dict[str, str] = {}  # of the answer, in any case
        self._answer: type[Message] | None = None
        self._streaming = False
        self._started = False
        self._consumer: Consumer | None = None
        self._turns: Turns | None = None  # to which we give ours back
        self.over = False
        self.token = token

    @property
    def backlog(self) -> int:
        """Bytes that have not left."""
        return self._wire.backlog

    def text(self, status: int, content_type: str, body: str | bytes, more: Mapping[str, str] = _NOTHING) -> None:
        """A whole answer."""
        data = body.encode() if isinstance(body, str) else body
        self._finish()
        self._wire.head(status, content_type, len(data), more={**self.headers, **more})
        self._wire.data(data)
        self._wire.finish()

    def serve_in_turn(
        self, turns: Turns, method: Unary | Streaming, messages: Iterable[Message], answer: type[Message]
    ) -> None:
        """As ``serve``, when there is a turn for it."""

        def begin() -> bool:
            if self.over:  # the client left while it waited
                return False
            self._turns = turns
            self.serve(method, messages, answer)
            return True

        turns.take(begin)

    def serve(self, method: Unary | Streaming, messages: Iterable[Message], answer: type[Message]) -> None:
        """Give the method its message, or all of them; the rest is up to it."""
        self._answer = answer
        try:
            if isinstance(method, Unary):
                request = next(iter(messages), None)
                packed = request.SerializeToString() if request is not None else b""
                if len(packed) > self._most:
                    text = f"grpc: received message larger than max ({len(packed)} vs. {self._most})"
                    raise RefusedError(Code.RESOURCE_EXHAUSTED, text)
                reply = method.handle(self, packed)
                if reply is not None:
                    self.reply(reply)
                return
            self._streaming = True
            self._consumer = method.open(self)
            for request in messages:
                if self._consumer is not None:
                    self._consumer.message(request.SerializeToString())
            if self._consumer is not None:
                self._consumer.half_close()  # the body was all: keep-alives end with it, watches do not
        except RefusedError as exc:
            self.refuse(exc.code, exc.message)
        except BadJsonError as exc:
            if self._started:  # a stream just ends, as an etcd's
                self.end()
            else:
                self.refuse(Code.UNKNOWN if self._streaming else Code.INVALID_ARGUMENT, str(exc))

    def hold(self, consumer: Consumer) -> None:
        """Tell it when the client leaves."""
        self._consumer = consumer

    def reply(self, message: bytes) -> None:
        """The one message."""
        if not self.over:
            self.text(200, _JSON, self._json(message), _FROM_RPC)

    def refuse(self, code: Code, text: str) -> None:
        """As grpc-gateway says it."""
        if self.over:
            return
        if self._started:
            status = _HTTP_STATUS[code]
            error = {"grpc_code": int(code), "http_code": status, "message": text, "http_status": ""}
            self._wire.data(json.dumps({"error": error}, separators=(",", ":")).encode() + b"\n")
            self._end()
            return
        body = json.dumps({"error": text, "message": text, "code": int(code)}, separators=(",", ":"))
        self._finish_consumer()
        self.text(_HTTP_STATUS[code], _JSON, body)

    def start(self) -> None:
        """As an etcd's: headers go with the first that is said, which may be a refusal."""

    def _begin(self) -> None:
        if not self._started:
            self._started = True
            self._wire.head(200, _JSON, None, more=self.headers | _FROM_RPC)

    def send(self, message: bytes) -> None:
        """One line."""
        if self.over:
            return
        self._begin()
        self._wire.data(b'{"result":' + self._json(message).encode() + b"}\n")

    def send_all(self, messages: Sequence[bytes]) -> None:
        """Several lines."""
        for message in messages:
            self.send(message)

    def end(self) -> None:
        """No more lines."""
        if not self.over:
            self._begin()
            self._end()

    def drained(self) -> None:
        """All that was said has left."""
        if self._consumer is not None:
            self._consumer.drained()

    def lost(self) -> None:
        """The client has left."""
        self._finish()
        self._finish_consumer()

    def _finish(self) -> None:
        self.over = True
        if self._turns is not None:
            turns, self._turns = self._turns, None
            turns.give()

    def _end(self) -> None:
        self._finish()
        self._finish_consumer()
        self._wire.finish()

    def _finish_consumer(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            consumer.reset()

    def _json(self, data: bytes) -> str:
        assert self._answer is not None
        message = self._answer.FromString(data)
        return json.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True), separators=(",", ":"))


class Gateway:
    """Finds who answers a request."""

    def __init__(self, verbs: Verbs, methods: Methods) -> None:
        self._verbs = verbs
        self._methods = methods

    def serve(self, method: str, target: str, origin: str, body: bytes, reply: Reply) -> None:
        """Answer, now or later."""
        path = target.partition("?")[0]
        self._allow(origin, reply)
        if method == "OPTIONS":
            reply.text(200, "", "")
        elif path == "/v3":
            reply.text(301, "", "", {"Location": "/v3/"})
        elif "//" in path:
            reply.text(301, "", "", {"Location": _SLASHES.sub("/", path)})
        elif path.startswith(_PREFIXES):
            self._rpc(method, "/v3/" + path.split("/", 2)[2], body, reply)
        elif path not in ("/version", "/health", "/livez", "/readyz", "/metrics"):
            reply.text(404, _TEXT, "404 page not found\n", _NOT_GUESSED)
        elif method != "GET" and path != "/metrics":
            reply.text(405, _TEXT, "Method Not Allowed\n", _ONLY_GET)
        else:
            self._side_door(path, target.partition("?")[2], reply)

    def _allow(self, origin: str, reply: Reply) -> None:
        """A page of that origin may read the answer (CORS)."""
        allowed = self._verbs.options.cors
        if "*" in allowed or (origin and origin in allowed):
            reply.headers = {
                "Access-Control-Allow-Methods": "POST, GET, OPTIONS, PUT, DELETE",
                "Access-Control-Allow-Origin": "*" if "*" in allowed else origin,
                "Access-Control-Allow-Headers": "accept, content-type, authorization",
            }

    def _side_door(self, path: str, query: str, reply: Reply) -> None:
        if path == "/version":
            reply.text(200, _JSON, f'{{"etcdserver":"{VERSION}","etcdcluster":"{CLUSTER_VERSION}"}}')
            return
        if path == "/metrics":
            reply.text(200, "text/plain; version=0.0.4; charset=utf-8", metrics.render(self._verbs))
            return
        if path == "/health":
            excluded = [each.removeprefix("exclude=") for each in query.split("&")]
            good, said = health_of(self._verbs.store, excluded.__contains__)
            reply.text(200 if good else 503, _TEXT, said, _NOTHING if good else _NOT_GUESSED)
            return
        good = self._verbs.store.status().state == "open" or path == "/livez"
        reply.text(200 if good else 503, _TEXT, "ok\n" if good else "not ready\n")

    def _rpc(self, method: str, path: str, body: bytes, reply: Reply) -> None:
        found = PATHS.get(path)
        rpc = self._methods.get(found[0]) if found else None
        if found is None or rpc is None:
            reply.text(404, _TEXT, "Not Found\n", _NOT_GUESSED)
            return
        if method != "POST":
            reply.text(405, _TEXT, "Method Not Allowed\n", _NOT_GUESSED)
            return
        _, request_kind, answer_kind = found
        reply.serve_in_turn(self._verbs.turns, rpc, messages_untrusted(body, request_kind), answer_kind)
