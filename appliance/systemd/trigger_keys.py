"""``[Timer]``, ``[Socket]`` and ``[Path]``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from appliance.errors import InputError
from appliance.schema import format_size
from appliance.systemd.draft import Draft, Handler, Handlers, into, listed, no_equal, note, one_of, unless
from appliance.systemd.lines import Assignment
from appliance.systemd.names import unit_of_file
from appliance.systemd.values import boolean, duration, integer, octal, seconds, size
from appliance.systemd.words import split_words

_TIMES = {
    "OnActiveSec": "on_active", "OnBootSec": "on_boot", "OnStartupSec": "on_startup",
    "OnUnitActiveSec": "on_unit_active", "OnUnitInactiveSec": "on_inactive",
}  # fmt: skip
_NO = frozenset({"no", "false", "0", "off", "n", "f", ""})
_LISTENS = {
    "ListenStream": "stream", "ListenDatagram": "dgram", "ListenSequentialPacket": "seqpacket", "ListenFIFO": "fifo",
}  # fmt: skip
_OPTIONS = {  # of each socket
    "BindIPv6Only": "v6only", "Backlog": "backlog", "SocketUser": "user", "SocketGroup": "group",
    "SocketMode": "mode", "DirectoryMode": "directory_mode", "Accept": "accept",
    "MaxConnections": "max_connections", "MaxConnectionsPerSource": "max_connections_per_source",
    "KeepAlive": "keep_alive", "NoDelay": "no_delay", "ReceiveBuffer": "receive_buffer", "SendBuffer": "send_buffer",
    "ReusePort": "reuse_port", "FreeBind": "free_bind", "Transparent": "transparent", "Service": "unit",
    "RemoveOnStop": "remove_on_stop", "FileDescriptorName": "name",
}  # fmt: skip
_NO_SOCKETS = (
    "DeferTrigger", "DeferTriggerMaxSec", "ExecStartPost", "ExecStartPre",
    "ExecStopPost", "ExecStopPre", "FlushPending",
    "ListenMessageQueue", "ListenNetlink", "ListenSpecial", "ListenUSBFunction",
    "MessageQueueMaxMessages", "MessageQueueMessageSize", "PassFileDescriptorsToExec",
    "PassPIDFD", "PollLimitBurst", "PollLimitIntervalSec",
    "AcceptFileDescriptors", "SELinuxContextFromNet", "SmackLabel", "SmackLabelIPIn", "SmackLabelIPOut",
    "SocketProtocol", "TimeoutSec", "Timestamping", "Writable", "XAttrEntryPoint",
)  # fmt: skip
_ANY = re.compile(r"\d+")


def _time(key: str) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        if not at.value:
            for one in (*_TIMES.values(), "calendar"):
                draft.unset("timer", one)
            return
        if draft.get("timer", key) is not None:
            draft.warn(at, f"only the last {at.key}= counts here")
        draft.set("timer", key, duration(seconds(at.value), infinity=False), at)

    return handle


def _calendar(draft: Draft, at: Assignment) -> None:
    if at.value:
        draft.extend("timer", "calendar", [at.value], at)
    else:
        _time("")(draft, at)


def _span(table: str, key: str) -> Handler:
    return into(table, key, lambda text: duration(seconds(text), infinity=False))


TIMER: Handlers = {
    **{name: _time(key) for name, key in _TIMES.items()},
    "OnCalendar": _calendar,
    "AccuracySec": _span("timer", "accuracy"),
    "RandomizedDelaySec": _span("timer", "jitter"),
    "RandomizedOffsetSec": no_equal(),
    "FixedRandomDelay": into("timer", "jitter_fixed", boolean),
    "Persistent": into("timer", "persistent", boolean),
    "Unit": into("timer", "unit", unit_of_file),
    "OnClockChange": unless(_NO),
    "OnTimezoneChange": unless(_NO),
    "WakeSystem": unless(_NO),
    "RemainAfterElapse": note,
    "DeferReactivation": unless(_NO),
}


def _limit(kind: str, name: str, read: Callable[[str], Any]) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        if at.value:
            draft.said[name] = read(at.value)
            draft.places.setdefault(f"{kind}.trigger_limit", at)
        else:
            draft.said.pop(name, None)

    return handle


def _limits(kind: str) -> dict[str, Handler]:
    return {
        "TriggerLimitIntervalSec": _limit(kind, "limit_interval", seconds),
        "TriggerLimitBurst": _limit(kind, "limit_burst", lambda text: integer(text, 0, 1 << 31)),
    }


def _limit_table(draft: Draft, burst: int) -> dict[str, Any] | None:
    if "limit_interval" not in draft.said and "limit_burst" not in draft.said:
        return None
    interval = draft.said.get("limit_interval", 2.0)
    count = draft.said.get("limit_burst", burst) if interval else 0
    return {"burst": min(count, 100_000), "interval": duration(max(interval, 0.001), infinity=False)}


PATH: Handlers = {
    "PathExists": listed("path", "path_exists", lambda text: [text]),
    "PathExistsGlob": listed("path", "path_exists_glob", lambda text: [text]),
    "PathChanged": listed("path", "path_changed", lambda text: [text]),
    "PathModified": listed("path", "path_modified", lambda text: [text]),
    "DirectoryNotEmpty": listed("path", "directory_not_empty", lambda text: [text]),
    "MakeDirectory": into("path", "make_directory", boolean),
    "DirectoryMode": into("path", "directory_mode", octal),
    "Unit": into("path", "unit", unit_of_file),
    **_limits("path"),
}


def finish_path(draft: Draft) -> None:
    """The limit, once both of its halves are known."""
    table = _limit_table(draft, 200)
    if table is not None:
        draft.tables["path.trigger_limit"] = table
    draft.tables.setdefault("path", {})


def _listen(kind: str) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        if not at.value:
            draft.sockets.clear()
            return
        if at.value.startswith("vsock:"):
            draft.lose(at, "there are no vsock sockets here")
            return
        address = f"[::]:{at.value}" if _ANY.fullmatch(at.value) else at.value
        draft.sockets.append(({"listen": address, "type": kind}, at))

    return handle


def _option(name: str, key: str) -> Handler:
    read = _READERS[name]

    def handle(draft: Draft, at: Assignment) -> None:
        options = draft.said.setdefault("socket", {})
        if at.value:
            options[key] = (read(at.value), at)
        else:
            options.pop(key, None)

    return handle


def _extra(key: str, read: Callable[[str], Any]) -> Handler:
    """One of the options table."""

    def handle(draft: Draft, at: Assignment) -> None:
        options = draft.said.setdefault("socket_options", {})
        if at.value:
            options[key] = (read(at.value), at)
        else:
            options.pop(key, None)

    return handle


def _tos(text: str) -> int:
    names = {"low-delay": 16, "throughput": 8, "reliability": 4, "low-cost": 2}
    return names[text] if text in names else integer(text, 0, 255)


def _whole_seconds(text: str) -> str:
    return duration(max(1.0, seconds(text)), infinity=False)


_EXTRA: Handlers = {
    "KeepAliveTimeSec": _extra("keep_alive_time", _whole_seconds),
    "KeepAliveIntervalSec": _extra("keep_alive_interval", _whole_seconds),
    "KeepAliveProbes": _extra("keep_alive_probes", lambda text: integer(text, 1, 127)),
    "DeferAcceptSec": _extra("defer_accept", _whole_seconds),
    "TCPCongestion": _extra("congestion", str),
    "BindToDevice": _extra("bind_to_device", str),
    "Priority": _extra("priority", lambda text: integer(text, 0, 1 << 30)),
    "Mark": _extra("mark", lambda text: integer(text, 0, (1 << 31) - 1)),
    "IPTOS": _extra("tos", _tos),
    "IPTTL": _extra("ttl", lambda text: integer(text, 1, 255)),
    "PassCredentials": _extra("pass_credentials", boolean),
    "PassSecurity": _extra("pass_security", boolean),
    "PassPacketInfo": _extra("pass_packet_info", boolean),
    "PipeSize": _extra("pipe_bytes", lambda text: format_size(size(text))),
}


def _links(draft: Draft, at: Assignment) -> None:
    if at.value:
        before = draft.said.get("socket_links", ((), at))[0]
        draft.said["socket_links"] = ((*before, *split_words(at.value, escapes=False)), at)
    else:
        draft.said.pop("socket_links", None)


def _v6only(text: str) -> bool | None:
    word = one_of("default", "both", "ipv6-only")(text)
    return None if word == "default" else word == "ipv6-only"


def _number(most: int, low: int = 0) -> Callable[[str], int]:
    return lambda text: min(integer(text, low, 1 << 40), most)


def _buffer(text: str) -> int:
    value = size(text)
    if not 0 < value <= 1 << 30:
        raise InputError(f'found "{text}", expected a size from 1 to 1G')
    return value


_READERS: dict[str, Callable[[str], Any]] = {
    "BindIPv6Only": _v6only, "Backlog": _number(1 << 20), "SocketUser": str, "SocketGroup": str, "SocketMode": octal,
    "DirectoryMode": octal, "Accept": boolean, "MaxConnections": _number(100_000, 1),
    "MaxConnectionsPerSource": _number(100_000), "KeepAlive": boolean, "NoDelay": boolean,
    "ReceiveBuffer": _buffer, "SendBuffer": _buffer, "ReusePort": boolean, "FreeBind": boolean,
    "Transparent": boolean, "Service": unit_of_file, "RemoveOnStop": boolean, "FileDescriptorName": str,
}  # fmt: skip
SOCKET: Handlers = {
    **{name: _listen(kind) for name, kind in _LISTENS.items()},
    **{name: _option(name, key) for name, key in _OPTIONS.items()},
    **_EXTRA,
    "Symlinks": _links,
    **{name: no_equal() for name in _NO_SOCKETS},
    **_limits("socket"),
}


def finish_socket(draft: Draft) -> None:
    """Each option to every socket for which it means something."""
    options: dict[str, tuple[Any, Assignment]] = draft.said.get("socket", {})
    limit = _limit_table(draft, 200 if options.get("accept", (False,))[0] else 20)
    for number, (table, listens) in enumerate(draft.sockets):
        is_path = table["listen"].startswith("/")
        is_internet = not table["listen"].startswith(("/", "@"))
        draft.places[f"socket[{number}]"] = draft.places[f"socket[{number}].listen"] = listens
        for key, (value, at) in options.items():
            if value is None or (key in ("user", "group") and not is_path) or (key == "v6only" and not is_internet):
                continue
            table[key] = value
            draft.places[f"socket[{number}].{key}"] = at
        if limit is not None:
            table["trigger_limit"] = dict(limit)
        for key, (value, at) in draft.said.get("socket_options", {}).items():
            table.setdefault("options", {})[key] = value
            draft.places[f"socket[{number}].options.{key}"] = at
    links, at = draft.said.get("socket_links", ((), None))
    paths = [number for number, (table, _) in enumerate(draft.sockets) if table["listen"].startswith("/")]
    if links and len(paths) == 1:
        draft.sockets[paths[0]][0]["links"] = list(links)
        draft.places[f"socket[{paths[0]}].links"] = at
    elif links:
        draft.warn(at, "is ignored, as in systemd: it takes exactly one path to listen on")
