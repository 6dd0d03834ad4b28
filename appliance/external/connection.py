"""HTTP/1.1 to one endpoint: as much of it as etcd's gateway takes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import trio

from appliance.errors import InputError, UnavailableError

if TYPE_CHECKING:
    import ssl

    import h11

CONNECT_SECONDS = 5.0
ANSWER_BYTES_MAX = 64 << 20
_READ = 65536
_ENDPOINT = re.compile(
    r"(?P<scheme>https?)://(\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^/:@\[\]?#]+))(:(?P<port>\d{1,5}))?/?"
)


def parse_endpoint(endpoint: str) -> tuple[str, str, int]:
    """(scheme, host, port). Raises InputError."""
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None:
        raise InputError(f"cannot use the endpoint {endpoint!r}: a URL such as https://10.0.0.1:2379 is wanted")
    return found["scheme"], found["v6"] or found["host"], int(found["port"] or 2379)


class NotSentError(UnavailableError):
    """The request has not left: another endpoint may be asked without doing anything twice."""


class Connection:
    """One connection, one request at a time. ``reusable`` after an answer that was read to its end."""

    def __init__(self, stream: trio.abc.Stream, endpoint: str) -> None:
        import h11

        self.endpoint = endpoint
        self.reusable = True
        self._stream = stream
        self._lines = bytearray()
        self._host = endpoint.partition("://")[2].rstrip("/")
        self._h11 = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, endpoint: str, tls: ssl.SSLContext | None) -> Connection:
        """Raises NotSentError."""
        scheme, host, port = parse_endpoint(endpoint)
        stream: trio.abc.Stream
        try:
            with trio.fail_after(CONNECT_SECONDS):
                stream = await trio.open_tcp_stream(host, port)
                if scheme == "https":
                    assert tls is not None
                    stream = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
                    try:
                        await stream.do_handshake()
                    except BaseException:
                        await trio.aclose_forcefully(stream)
                        raise
        except (OSError, trio.BrokenResourceError) as exc:
            cause = exc.__cause__ if isinstance(exc, trio.BrokenResourceError) else exc
            raise NotSentError(f"cannot reach {endpoint}: {cause or exc}") from exc
        except trio.TooSlowError as exc:
            raise NotSentError(f"cannot reach {endpoint}: no answer in {CONNECT_SECONDS:g} s") from exc
        return cls(stream, endpoint)

    async def ask(self, path: str, body: object, token: str) -> tuple[int, Any]:
        """(HTTP status, the JSON of the answer). Raises UnavailableError: it may have been done, or not."""
        status = await self.begin(path, body, token)
        data = bytearray()
        while (piece := await self._piece()) is not None:
            data += piece
            if len(data) > ANSWER_BYTES_MAX:
                raise self._broken(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        self._h11.start_next_cycle()
        self.reusable = True
        return status, self._parsed(bytes(data))

    async def line(self) -> Any:
        """The JSON of the next line of an answer that may not end; None when it has. After ``begin``."""
        while True:
            end = self._lines.find(b"\n")
            if end >= 0:
                line = bytes(self._lines[:end])
                del self._lines[: end + 1]
                if line.strip():
                    return self._parsed(line)
                continue
            if len(self._lines) > ANSWER_BYTES_MAX:
                raise self._broken(f"a line of more than {ANSWER_BYTES_MAX} bytes")
            piece = await self._piece()
            if piece is None:
                rest = bytes(self._lines).strip()
                self._lines.clear()
                return self._parsed(rest) if rest else None
            self._lines += piece

    async def begin(self, path: str, body: object, token: str) -> int:
        """Ask; returns the HTTP status. Raises UnavailableError."""
        import h11

        self.reusable = False
        data = json.dumps(body).encode()
        headers = [("Host", self._host), ("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        if token:
            headers.append(("Authorization", token))
        request = h11.Request(method="POST", target=path, headers=headers)
        out = [self._h11.send(event) for event in (request, h11.Data(data=data), h11.EndOfMessage())]
        try:
            await self._stream.send_all(b"".join(piece for piece in out if piece))
        except (OSError, trio.BrokenResourceError) as exc:
            raise self._broken("the connection was lost") from exc
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event.status_code

    async def _piece(self) -> bytes | None:
        import h11

        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        raise self._broken("the connection was lost")

    async def _next(self) -> h11.Event:
        import h11

        try:
            while True:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    self._h11.receive_data(bytes(await self._stream.receive_some(_READ)))
                elif isinstance(event, h11.Event) and not isinstance(event, h11.ConnectionClosed):
                    return event
                else:
                    raise self._broken("the connection was closed")
        except (OSError, trio.BrokenResourceError) as exc:
            raise self._broken("the connection was lost") from exc
        except h11.RemoteProtocolError as exc:
            raise self._broken(str(exc)) from exc

    def _parsed(self, data: bytes) -> Any:
        try:
            found = json.loads(data)
        except ValueError as exc:
            raise self._broken(f"no JSON: {data[:100]!r}") from exc
        if not isinstance(found, dict):
            raise self._broken(f"no JSON object: {data[:100]!r}")
        return found

    def _broken(self, why: str) -> UnavailableError:
        return UnavailableError(f"cannot read the answer of {self.endpoint}: {why}")

    async def aclose(self) -> None:
        """Without a word."""
        await trio.aclose_forcefully(self._stream)
