"""What the kernel says (/dev/kmsg, Documentation/ABI/testing/dev-kmsg), record by record, without waiting."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from appliance.errors import UnavailableError
from appliance.host import clock
from appliance.host.poller import Poller

_DEVICE = "/dev/kmsg"
_RECORD_BYTES_MAX = 16 << 10
_RECORDS_AT_ONCE = 256
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class KernelMessage:
    """One record."""

    sequence: int  # within this boot
    priority: int
    seconds: float  # since 1970, as far as today's clock tells
    text: bytes


def parse_record_untrusted(data: bytes, boot_seconds_at_zero: float) -> KernelMessage | None:
    """``6,339,5140900,-;NET: Registered``, perhaps with lines of details, which are left out. None: no such thing."""
    head, semicolon, body = data.partition(b";")
    fields = head.split(b",")
    if not semicolon or len(fields) < 3 or not all(one.isdigit() and len(one) < 20 for one in fields[:3]):
        return None
    text = _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), body.partition(b"\n")[0])
    return KernelMessage(int(fields[1]), int(fields[0]) & 7, boot_seconds_at_zero + int(fields[2]) / 1e6, text)


class KernelLog:
    """Hands records to ``sink``, some at a time, from the poller's task, from that one on."""

    def __init__(self, poller: Poller, sink: Callable[[list[KernelMessage], int], None], *, after: int = -1) -> None:
        """Raises UnavailableError where it may not be read (a container, most users)."""
        try:
            self._fd = os.open(_DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise UnavailableError(f"cannot read {_DEVICE}: {exc.strerror}", where=_DEVICE) from exc
        self._poller = poller
        self._sink = sink
        self._after = after
        try:
            poller.add(self._fd, self._read)
        except PermissionError as exc:  # something else lies there
            os.close(self._fd)
            self._fd = -1
            raise UnavailableError(f"cannot read {_DEVICE}: it is no device", where=_DEVICE) from exc

    def _read(self) -> None:
        zero = clock.wall_seconds() - clock.monotonic_seconds()
        found: list[KernelMessage] = []
        lost = 0
        for _ in range(_RECORDS_AT_ONCE):
            try:
                data = os.read(self._fd, _RECORD_BYTES_MAX)
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno == errno.EPIPE:  # what we had not read yet was written over
                    continue
                if exc.errno == errno.EINVAL:  # a record longer than any may be
                    continue
                self.close()
                break
            if not data:
                self.close()
                break
            message = parse_record_untrusted(data, zero)
            if message is None or message.sequence <= self._after:
                continue
            if self._after >= 0:
                lost += message.sequence - self._after - 1
            self._after = message.sequence
            found.append(message)
        if found:
            self._sink(found, lost)

    def close(self) -> None:
        """Listen no more. Twice is fine."""
        if self._fd >= 0:
            self._poller.remove(self._fd)
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
