"""The sockets that clients come to, open before the rooms behind them are loaded: who comes early waits in line."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.host import sockets
from appliance.host.layout import Layout
from appliance.settings import StoreListenSettings


def control_door(layout: Layout) -> Iterator[sockets.Listener]:
    """Of the API. Raises ConflictError, UnavailableError."""
    yield sockets.listen_control(layout.control_socket)


def etcd_doors(layout: Layout, settings: StoreListenSettings) -> Iterator[sockets.Listener]:
    """Of etcd's API: root's first, then that of the settings. Raises ConflictError, UnavailableError."""
    yield sockets.listen_unix(layout.etcd_socket, mode=0o600, backlog=sockets.BACKLOG_OF_ETCD)
    if settings.address != "off":
        yield sockets.listen_tcp(sockets.parse_address(settings.address), backlog=sockets.BACKLOG_OF_ETCD)
