"""FleetLock's protocol as a client: POST /v1/pre-reboot and /v1/steady-state.

https://coreos.github.io/zincati/development/fleetlock/protocol/ - 200 is yes, whatever else is no, with kind and value.
"""

from __future__ import annotations

import json
import re
import ssl

import h11
import trio

from appliance.errors import NotYetError, UnavailableError
from appliance.update.cluster_lock import Claim

_ANSWER_MAX = 65536


class FleetLock:
    """ClusterLock over HTTP."""

    async def take(self, claim: Claim) -> None:
        """Ours now. Raises NotYetError (others hold it, or the server is unwell), UnavailableError (no answer)."""
        status, said = await _post(claim, "pre-reboot")
        if status != 200:
            raise NotYetError(f"cannot take the lock of {claim.url}, group {claim.group}: {said}")

    async def give_back(self, claim: Claim) -> None:
        """Not ours any more. Raises UnavailableError."""
        status, said = await _post(claim, "steady-state")
        if status != 200:
            raise UnavailableError(f"cannot give the lock back to {claim.url}, group {claim.group}: {said}")


async def _post(claim: Claim, word: str) -> tuple[int, str]:
    """Status, and what is wrong in words."""
    verb = "take the lock of" if word == "pre-reboot" else "give the lock back to"
    try:
        with trio.fail_after(claim.timeout):
            return await _exchange(claim, word)
    except trio.TooSlowError:
        cause = f"no answer in {claim.timeout:g} s"
    except (OSError, ValueError, trio.BrokenResourceError, h11.ProtocolError, ssl.SSLError) as exc:
        inner = exc.__cause__ if isinstance(exc, trio.BrokenResourceError) and exc.__cause__ else exc
        cause = str(inner) or type(inner).__name__
    raise UnavailableError(f"cannot {verb} {claim.url}: {cause}")


async def _exchange(claim: Claim, word: str) -> tuple[int, str]:
    scheme, _, rest = claim.url.partition("://")
    authority, slash, path = rest.partition("/")
    host, secure, port = authority, scheme == "https", 443 if scheme == "https" else 80
    if colon := re.fullmatch(r"(.*):(\d+)", authority):
        host, port = colon[1], int(colon[2])
    host = host.strip("[]")
    body = json.dumps({"client_params": {"id": claim.id, "group": claim.group}}).encode()
    stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
    if secure:
        context = ssl.create_default_context(cafile=claim.ca_file or None)
        stream = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    connection, said, status = h11.Connection(h11.CLIENT), bytearray(), 0
    request = h11.Request(
        method="POST", target=f"{(slash + path).rstrip('/')}/v1/{word}",
        headers=[
            ("Host", authority), ("fleet-lock-protocol", "true"), ("Connection", "close"),
            ("Content-Type", "application/json"), ("Content-Length", str(len(body))),
        ],
    )  # fmt: skip
    async with stream:
        sent = (connection.send(request) or b"") + (connection.send(h11.Data(data=body)) or b"")
        await stream.send_all(sent + (connection.send(h11.EndOfMessage()) or b""))
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                said += bytes(event.data)[: _ANSWER_MAX - len(said)]
            elif isinstance(event, h11.EndOfMessage):
                return status, _words(status, bytes(said))
            elif isinstance(event, h11.ConnectionClosed):
                raise ValueError("the connection was closed without an answer")


def _words(status: int, body: bytes) -> str:
    """``{"kind": "failed_lock", "value": "..."}`` in words."""
    try:
        value = json.loads(body)
        return f"{value['value']} ({value['kind']})"
    except (ValueError, KeyError, TypeError):
        return f"the server answers {status}"
