"""What the kernel says, kept as the log of a pseudo-unit. A restart goes on where the one before left off."""

from __future__ import annotations

import json

from appliance.errors import ApplianceError, NotFoundError
from appliance.host import files
from appliance.host.kmsg import KernelLog, KernelMessage
from appliance.host.poller import Poller
from appliance.units.alarms import Alarm, Alarms
from appliance.units.journal import Journal

_BYTES_MAX = 4096
_KEEP_SECONDS = 1.0


class KernelRecorder:
    """From /dev/kmsg into a journal; in its directory stands which record was the last.

    That is kept at once, but in a flood once a second: no line is ever lost by it, and after a kill -9 at most those
    of the last second are there twice.
    """

    def __init__(self, journal: Journal, boot_id: str) -> None:
        self.journal = journal
        self._boot_id = boot_id
        self._log: KernelLog | None = None
        self._alarms: Alarms | None = None
        self._resting: Alarm | None = None  # set for a second after the position was kept
        self._taken = self._kept = -1

    @property
    def _position(self) -> str:
        return f"{self.journal.directory}/position"

    def begin(self, poller: Poller, alarms: Alarms) -> None:
        """Where the kernel's log may not be read, there is none, and nobody minds."""
        self._alarms = alarms
        self._taken = self._kept = self._last()
        try:
            self._log = KernelLog(poller, self._take, after=self._taken)
        except ApplianceError:
            self._log = None

    def end(self) -> None:
        """Twice is fine."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._keep()

    def _take(self, messages: list[KernelMessage], lost: int) -> None:
        if lost:
            text = f"<4>appliance: {lost} message{'' if lost == 1 else 's'} of the kernel lost: not read in time\n"
            self.journal.append_at(text.encode(), messages[0].seconds)
        for message in messages:
            text_lines = message.text.replace(b"\n", b"\n  ")
            self.journal.append_at(b"<%d>%b\n" % (message.priority, text_lines), message.seconds)
        self._taken = messages[-1].sequence
        if self._resting is None:
            self._rested()

    def _rested(self) -> None:
        """Keep the position; when there is nothing new, sleep until there is."""
        self._resting = None
        if self._taken != self._kept and self._alarms is not None:
            self._keep()
            self._resting = self._alarms.after(_KEEP_SECONDS, self._rested)

    def _keep(self) -> None:
        if self._taken == self._kept:
            return
        data = json.dumps({"boot": self._boot_id, "sequence": self._taken}).encode()
        try:
            files.write_atomic(self._position, data, mode=0o640, durable=False)
        except ApplianceError:
            return  # these few lines will be there twice after a restart
        self._kept = self._taken

    def _last(self) -> int:
        try:
            found = json.loads(files.read_bytes(self._position, size_max=_BYTES_MAX))
        except (NotFoundError, ApplianceError, ValueError, RecursionError):
            return -1
        known = isinstance(found, dict) and found.get("boot") == self._boot_id and bool(self._boot_id)
        sequence = found.get("sequence") if known else None
        return sequence if isinstance(sequence, int) and not isinstance(sequence, bool) else -1
