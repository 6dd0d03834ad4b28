"""How a unit is heard: the pipe of its output and the socket of its notices, both of which outlive us in the holder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from appliance.errors import ApplianceError
from appliance.host import pipes
from appliance.host.datagrams import NotifySocket
from appliance.units.ground import Ground

Hear = Callable[[int, bytes, list[int]], None]
Log = Callable[[bytes, str], None]  # what was written, and to which of stdout and stderr, if that can be told


class Voice:
    """Of one unit, from the start to the last of what it left. What cannot be held is said, and the unit runs on."""

    def __init__(self, name: str, directory: str, ground: Ground, log: Log, hear: Hear) -> None:
        self.output_path = f"{directory}/output"
        self.errors_path = f"{directory}/errors"
        self._name = name
        self._notify_path = f"{directory}/notify"
        self._ground = ground
        self._log = log
        self._hear = hear
        self._output: pipes.PipeReader | None = None
        self._errors: pipes.PipeReader | None = None  # of a unit whose stderr is a stream of its own
        self._notify: NotifySocket | None = None
        self._held: set[str] = set()

    @property
    def notify_address(self) -> str:
        """For NOTIFY_SOCKET; empty when nobody listens."""
        return self._notify.address if self._notify is not None else ""

    def open_output(self, *, apart: bool, adopted: bool = False) -> None:
        """What was written while nobody read comes first. ``apart``: stderr has its own. Raises ApplianceError."""
        if self._output is None:
            stream = "stdout" if apart else ""
            self._output = self._open("output", self.output_path, stream, adopted=adopted)
        if apart and self._errors is None:
            self._errors = self._open("errors", self.errors_path, "stderr", adopted=adopted)

    def _open(self, kind: str, path: str, stream: str, *, adopted: bool) -> pipes.PipeReader:
        pipes.make_pipe(path)
        reader = pipes.PipeReader(path, self._ground.processes.poller, partial(self._say, stream))
        self._hold(kind, reader.fileno(), adopted=adopted)
        return reader

    def _say(self, stream: str, data: bytes) -> None:
        self._log(data, stream)

    def open_notify(self, *, adopted: bool = False) -> None:
        """Until ``release_notify``, what it says while no appliance lives waits for the next. Raises ApplianceError."""
        if self._notify is not None:
            return
        found = self._taken() if adopted else None
        self._notify = NotifySocket(self._notify_path, self._ground.processes.poller, self._hear, fd=found)
        if found is not None:
            self._held.add("notify")
        else:
            self._hold("notify", self._notify.fileno(), adopted=False)

    def release_notify(self) -> None:
        """It is up: a notice while no appliance lives is refused now, rather than the unit held up by a queue."""
        self._let_go("notify")

    def drain(self) -> None:
        """The rest of the output, of a unit whose processes are gone."""
        for reader in (self._output, self._errors):
            if reader is not None:
                reader.drain()

    def close(self, *, for_good: bool) -> None:
        """Stop listening. ``for_good``: nothing of the unit is left, so nothing needs to be held. Twice is fine."""
        for reader in (self._output, self._errors, self._notify):
            if reader is not None:
                reader.close()
        self._output = self._errors = self._notify = None
        if for_good:
            for kind in tuple(self._held):
                self._let_go(kind)

    def _hold(self, kind: str, fd: int, *, adopted: bool) -> None:
        holder = self._ground.holder
        if holder is None or kind in self._held:
            return
        self._held.add(kind)
        if adopted:
            return  # it is held already: any open end keeps what is in the pipe
        holder.put_soon(f"{kind}/{self._name}", kind, fd, self._not_held)

    def _not_held(self, exc: ApplianceError) -> None:
        self._ground.on_trouble(self._name, f"{exc.message}; were we killed now, the last lines could be lost")

    def _let_go(self, kind: str) -> None:
        holder = self._ground.holder
        if holder is None or kind not in self._held:
            return
        self._held.discard(kind)
        try:
            holder.drop_soon(f"{kind}/{self._name}")
        except ApplianceError as exc:
            self._ground.on_trouble(self._name, exc.message)

    def _taken(self) -> int | None:
        """The socket that an earlier life left in the holder."""
        holder, key = self._ground.holder, f"notify/{self._name}"
        if holder is None or not holder.holds(key):
            return None
        found = holder.take(key)
        return found[0][1] if found else None
