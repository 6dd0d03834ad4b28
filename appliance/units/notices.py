"""What a unit says of itself over NOTIFY_SOCKET (sd_notify(3)). Pure."""

from __future__ import annotations

from dataclasses import dataclass

_TEXT_MAX = 500
_NAME_MAX = 255
_SECONDS_MAX = 36500 * 86400.0


@dataclass(frozen=True)
class Notice:
    """One message; fields that it does not hold are None, False or empty."""

    ready: bool = False
    reloading: bool = False
    stopping: bool = False
    status: str | None = None
    main_pid: int | None = None
    error: int | None = None  # ERRNO
    watchdog: bool = False
    watchdog_trigger: bool = False
    watchdog_seconds: float | None = None
    extend_seconds: float | None = None
    fd_store: bool = False
    fd_remove: bool = False
    fd_name: str = "stored"
    fd_poll: bool = True


def parse_notice_untrusted(data: bytes) -> Notice:
    """Of any bytes. What we do not know is ignored, as the protocol asks."""
    fields = {}
    for line in data.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            fields[name] = value
    status = fields.get(b"STATUS")
    name = fields.get(b"FDNAME", b"")
    return Notice(
        ready=fields.get(b"READY") == b"1",
        reloading=fields.get(b"RELOADING") == b"1",
        stopping=fields.get(b"STOPPING") == b"1",
        status=status.decode(errors="replace")[:_TEXT_MAX] if status is not None else None,
        main_pid=_number(fields.get(b"MAINPID")),
        error=_number(fields.get(b"ERRNO")),
        watchdog=fields.get(b"WATCHDOG") == b"1",
        watchdog_trigger=fields.get(b"WATCHDOG") == b"trigger",
        watchdog_seconds=_seconds(fields.get(b"WATCHDOG_USEC")),
        extend_seconds=_seconds(fields.get(b"EXTEND_TIMEOUT_USEC")),
        fd_store=fields.get(b"FDSTORE") == b"1",
        fd_remove=fields.get(b"FDSTOREREMOVE") == b"1",
        fd_name=name.decode() if _is_fd_name(name) else "stored",
        fd_poll=fields.get(b"FDPOLL") != b"0",
    )


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() and len(value) <= 10 else None


def _seconds(value: bytes | None) -> float | None:
    if value is None or not value.isdigit() or len(value) > 20:
        return None
    return min(int(value) / 1e6, _SECONDS_MAX)


def _is_fd_name(name: bytes) -> bool:
    return 0 < len(name) <= _NAME_MAX and b":" not in name and all(32 < letter < 127 for letter in name)
