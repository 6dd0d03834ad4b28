"""What a unit says of itself over NOTIFY_SOCKET (sd_notify(3)). Pure."""

from __future__ import annotations

from dataclasses import dataclass

_TEXT_MAX = 500


@dataclass(frozen=True)
class Notice:
    """One message; fields that it does not hold are None or False."""

    ready: bool = False
    stopping: bool = False
    status: str | None = None
    main_pid: int | None = None


def parse_notice_untrusted(data: bytes) -> Notice:
    """Of any bytes. What we do not know is ignored, as the protocol asks."""
    fields = {}
    for line in data.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            fields[name] = value
    status = fields.get(b"STATUS")
    pid = fields.get(b"MAINPID", b"")
    return Notice(
        ready=fields.get(b"READY") == b"1",
        stopping=fields.get(b"STOPPING") == b"1",
        status=status.decode(errors="replace")[:_TEXT_MAX] if status is not None else None,
        main_pid=int(pid) if pid.isdigit() and len(pid) <= 10 else None,
    )
