"""Who may ask what, decided from what the door knows. Pure.

Control socket: root and the daemon's own user do everything, group ``appliance`` reads, nobody else anything.
Status endpoint: only reading, and not by way of a foreign web page: a page of another site that reaches us by a name it
made point here (DNS rebinding) has the wrong Host; one that embeds us says so itself (Fetch Metadata).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.api.router import Caller, Route
from appliance.errors import InputError, UntrustedError
from appliance.host.sockets import Peer


class Refusal(InputError):
    """A request that HTTP itself has a status for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.http_status = status


class NeedToken(UntrustedError):
    """Who asks must say who he is."""

    http_status = 401


@dataclass(frozen=True)
class ControlDoor:
    """The control socket's rules."""

    own_uid: int
    group: int | None
    name: str = "control"

    def caller(self, peer: Peer) -> Caller:
        """What the kernel's word on the peer allows."""
        if peer.uid in (0, self.own_uid):
            return Caller(self.name, f"uid {peer.uid}", reads=True, writes=True)
        member = self.group is not None and self.group in peer.gids
        return Caller(self.name, f"uid {peer.uid}", reads=member, writes=False)

    def check(self, headers: Mapping[str, str], route: Route, caller: Caller) -> None:
        """Raises UntrustedError."""
        if not (caller.writes or (route.reads and caller.reads)):
            allowed = "root or the daemon's own user" if caller.reads else "root, or members of group appliance,"
            raise UntrustedError(f"cannot {route.method} {route.pattern} as {caller.name}: only {allowed} may")


@dataclass(frozen=True)
class StatusDoor:
    """The status endpoint's rules."""

    hosts: frozenset[str] = frozenset()
    token: str = field(default="", repr=False)
    name: str = "status"

    def check(self, headers: Mapping[str, str], route: Route, caller: Caller) -> None:
        """Raises UntrustedError."""
        host = headers.get("host")
        if host is not None and not self._is_ours(host):
            raise UntrustedError(
                f'cannot answer for host "{host[:100]}": reach this endpoint as localhost, by IP address,'
                " or by a name in [status] hosts"
            )
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not (
            headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        ):
            raise UntrustedError("cannot answer this page: it is of another site")
        if self.token and not route.public and not self._has_token(headers.get("authorization", "")):
            raise NeedToken("cannot answer: send the token, as Authorization: Bearer, or as the password of any user")
        if route.control or not route.reads:
            raise UntrustedError(f"cannot {route.method} {route.pattern} here: only the control socket does that")

    def _is_ours(self, host_and_port: str) -> bool:
        host = host_and_port.strip().lower()
        if host.startswith("["):
            host, bracket, port = host[1:].partition("]")
            if not bracket or (port and not port.startswith(":")):
                return False
        else:
            host = host.partition(":")[0].rstrip(".")
        if host == "localhost" or host.endswith(".localhost") or host in self.hosts:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True  # a rebound name is a name; who uses the address knows where he goes

    def _has_token(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() == "basic":  # what a browser can ask a person for
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.encode(), self.token.encode())
