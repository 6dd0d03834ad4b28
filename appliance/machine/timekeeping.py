"""The machine's clock: what was known last is kept for a clock whose battery is dead; with ``ntp`` it is kept right.

Nothing waits for it. The first good answer may step the clock; later ones slew it, unless somebody has set it far off.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from appliance.errors import ApplianceError, InputError
from appliance.host import clock, entropy, files, machine_state
from appliance.machine.sntp import PORT, Refused, Sample, read_answer, request

CLOCK_FILE = "/var/lib/appliance/identity/clock"
STEP_SECONDS = 0.128  # at the start; as every NTP client has it
JUMP_SECONDS = 60.0  # later: more than this cannot be slewed within a day
_ANSWER_SECONDS = 5.0
_FIRST_SECONDS, _LONGEST_SECONDS = 64.0, 2048.0
_RETRY_SECONDS, _RETRY_MAX_SECONDS = 4.0, 1024.0
_KEEP_SECONDS = 1800.0
_TIME_MAX = 2.0**32  # seconds since 1970: the year 2106


class TimeKeeper:
    """The service. ``servers``: names or addresses, asked one after the other until one answers."""

    def __init__(
        self, servers: Callable[[], tuple[str, ...]], *, publish: Callable[..., None], port: int = PORT
    ) -> None:
        self._servers, self._publish, self._port = servers, publish, port
        self.offset: float | None = None  # as measured last
        self.server = ""
        self._stepped = False
        self._refused: set[str] = set()

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Ready at once."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._remember)
            nursery.start_soon(self._follow)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()
        remember_time()

    async def _remember(self) -> None:
        while True:
            remember_time()
            await trio.sleep(_KEEP_SECONDS)

    async def _follow(self) -> None:
        wait, retry = _FIRST_SECONDS, _RETRY_SECONDS
        while True:
            sample = await self.ask_all() if self._servers() else None
            if sample is not None:
                self._obey(sample)
                wait, retry = min(wait * 2, _LONGEST_SECONDS), _RETRY_SECONDS
                await trio.sleep(wait * entropy.uniform(0.9, 1.1))
            else:
                await trio.sleep(retry * entropy.uniform(0.9, 1.1))
                retry = min(retry * 2, _RETRY_MAX_SECONDS)

    async def ask_all(self) -> Sample | None:
        """The first good answer; None when nobody gives one."""
        troubles = []
        for server in self._servers():
            if server in self._refused:
                continue
            try:
                sample = await self._ask(server)
            except Refused as error:
                self._refused.add(server)
                troubles.append(f"{server}: {error.message}")
            except ApplianceError as error:
                troubles.append(f"{server}: {error.message}")
            else:
                self.server = server
                return sample
        if self.server or self.offset is None:
            self._publish("clock", "", state="failed", reason="; ".join(troubles) or "no server is left to be asked")
        self.server = ""
        return None

    async def _ask(self, server: str) -> Sample:
        try:
            found = await trio.socket.getaddrinfo(server, self._port, type=trio.socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            with trio.socket.socket(family, kind, protocol) as asker:
                await asker.connect(address)  # so that only that address is heard
                nonce, sent, begun = bytes.fromhex(entropy.token(8)), clock.wall_seconds(), clock.monotonic_seconds()
                await asker.send(request(nonce))
                with trio.fail_after(_ANSWER_SECONDS):
                    while True:
                        data = await asker.recv(512)
                        received = sent + clock.monotonic_seconds() - begun
                        try:
                            return read_answer(data, nonce, sent, received)
                        except Refused:
                            raise
                        except InputError as error:
                            if "another question" not in error.message:
                                raise
        except trio.TooSlowError:
            raise InputError("cannot ask for the time: no answer") from None
        except OSError as exc:
            raise InputError(f"cannot ask for the time: {exc.strerror or exc}") from exc

    def _obey(self, sample: Sample) -> None:
        limit = JUMP_SECONDS if self._stepped else STEP_SECONDS
        try:
            if abs(sample.offset) > limit:
                machine_state.set_clock(clock.wall_seconds() + sample.offset)
                remember_time()
                self._publish("clock", "", state="set", reason=f"by {sample.offset:+.3f} s, as {self.server} says")
            else:
                machine_state.slew_clock(sample.offset)
                if self.offset is None:
                    self._publish("clock", "", state="right", reason=f"{sample.offset:+.3f} s from {self.server}")
        except ApplianceError as error:
            self._publish("clock", "", state="failed", reason=error.message)
            return
        self.offset, self._stepped = sample.offset, True


def remember_time() -> None:
    """For a machine whose own clock does not last."""
    try:
        files.write_atomic(CLOCK_FILE, f"{clock.wall_seconds():.0f}\n".encode())
    except ApplianceError:
        return  # a disk that takes nothing is told by others


def remembered_time() -> float:
    """0.0 when there is none, or what is there is no time: a machine must start whatever the file holds."""
    try:
        seconds = float(files.read_text(CLOCK_FILE, size_max=64))
    except (ApplianceError, ValueError):
        return 0.0
    return seconds if 0 < seconds < _TIME_MAX else 0.0
