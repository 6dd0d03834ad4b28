"""Where the API is served, and what each door asks of those who come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.etcdapi.door import Door, Machine
from appliance.etcdapi.grpc import Methods
from appliance.etcdapi.http2 import Connection
from appliance.etcdapi.options import ApiOptions
from appliance.host.sockets import Address
from appliance.host.tls import ServerTls, TlsFiles

if TYPE_CHECKING:
    from appliance.etcdapi.verbs import Verbs


@dataclass(frozen=True)
class Listen:
    """A TCP listener. Not ``trusting``: without a client's certificate it serves only while authentication is enabled.

    ``side_doors_only``: just /metrics, /health, /version.
    """

    address: Address
    tls: TlsFiles | None = None
    trusting: bool = False
    side_doors_only: bool = False


class Doors:
    """Makes the machines of one listener's connections."""

    def __init__(self, listen: Listen | None, verbs: Callable[[], Verbs], options: ApiOptions) -> None:
        """None: the unix socket. Raises InputError when the files of TLS are no good."""
        self._listen = listen
        self._verbs = verbs
        self._options = options
        self._server: ServerTls | None = None
        if listen is not None and listen.tls is not None:
            from appliance.etcdapi.tls import Handshakes

            # Clients of gRPC offer h2 alone; who offers both is a browser or curl, and wants the side doors.
            self._server = ServerTls(listen.tls, ("http/1.1", "h2"))
            self._handshakes = Handshakes()

    def begin(self, wake: Callable[[], None]) -> Machine:
        """For ``host.epoll``."""
        server = self._server
        if server is None:
            return self._door(wake, "")
        from appliance.etcdapi.tls import Tls

        context = server.context()
        return Tls(context, lambda common_name: self._door(wake, common_name), self._handshakes, server.revoked)

    def _door(self, wake: Callable[[], None], common_name: str) -> Machine:
        """The protocol is found out; the first one to be known brings the verbs in."""
        most, streams = self._options.message_bytes, self._options.streams

        def http1() -> Machine:
            from appliance.etcdapi.http1 import Http1

            return Http1(self._verbs(), self._methods(), wake)

        return Door(lambda: Connection(self._methods(), wake, common_name, most, streams), http1)

    def _methods(self) -> Methods:
        listen, verbs = self._listen, self._verbs()
        if listen is None or listen.trusting:
            return verbs.methods
        if listen.side_doors_only:
            return {}
        certified = listen.tls is not None and listen.tls.client_ca_file is not None
        return verbs.methods if certified else verbs.methods_with_auth_only
