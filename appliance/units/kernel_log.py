"""What the kernel says, kept as the log of a pseudo-unit. A restart goes on where the one before left off."""

from __future__ import annotations

import json

from appliance.errors import ApplianceError, NotFoundError
from appliance.host import files
from appliance.host.kmsg import KernelLog, KernelMessage
from appliance.host.poller import Poller
from appliance.units.journal import Journal

_BYTES_MAX = 4096


class KernelRecorder:
    """From /dev/kmsg into a journal; in its directory stands which record was the last."""

    def __init__(self, journal: Journal, boot_id: str) -> None:
        self.journal = journal
        self._boot_id = boot_id
        self._log: KernelLog | None = None

    @property
    def _position(self) -> str:
        return f"{self.journal.directory}/position"

    def begin(self, poller: Poller) -> None:
        """Where the kernel's log may not be read, there is none, and nobody minds."""
        try:
            self._log = KernelLog(poller, self._take, after=self._last())
        except ApplianceError:
            self._log = None

    def end(self) -> None:
        """Twice is fine."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _take(self, messages: list[KernelMessage], lost: int) -> None:
        if lost:
            text = f"<4>appliance: {lost} message{'' if lost == 1 else 's'} of the kernel lost: not read in time\n"
            self.journal.append_at(text.encode(), messages[0].seconds)
        for message in messages:
            text_lines = message.text.replace(b"\n", b"\n  ")
            self.journal.append_at(b"<%d>%b\n" % (message.priority, text_lines), message.seconds)
        data = json.dumps({"boot": self._boot_id, "sequence": messages[-1].sequence}).encode()
        try:
            files.write_atomic(self._position, data, mode=0o640, durable=False)
        except ApplianceError:
            return  # these few lines will be there twice after a restart

    def _last(self) -> int:
        try:
            found = json.loads(files.read_bytes(self._position, size_max=_BYTES_MAX))
        except (NotFoundError, ApplianceError, ValueError, RecursionError):
            return -1
        known = isinstance(found, dict) and found.get("boot") == self._boot_id and bool(self._boot_id)
        sequence = found.get("sequence") if known else None
        return sequence if isinstance(sequence, int) and not isinstance(sequence, bool) else -1
