"""Starts the processes of one life of a unit, and finds the one to follow when they fork away by themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from appliance.errors import ApplianceError, NotFoundError
from appliance.host import files, listening, process_self, procfs
from appliance.host.listening import Call
from appliance.host.processes import Child, Command
from appliance.host.standard import close_standard, open_connection, open_standard
from appliance.units.alarms import Alarm
from appliance.units.command_lines import CommandTable
from appliance.units.credentials import credentials_directory
from appliance.units.launch import command_of, who_of
from appliance.units.phases import Phase, Turn
from appliance.units.results import Result

if TYPE_CHECKING:
    from appliance.units.life import Life

Told = Callable[[Child | ApplianceError], None]

_FIRST_LOOK_SECONDS = 0.01  # for a PID file that is written after the fork; doubled each time
_LOOK_SECONDS_MAX = 1.0
_PID_FILE_BYTES_MAX = 4096


class Spawning:
    """Of one life. All its processes have the same user, fences, cgroup and log."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._alarm: Alarm | None = None

    def main(self, line: CommandTable, told: Told) -> None:
        """Its main process, or one of those of a oneshot: it alone is given sockets and stored descriptors."""
        life = self._life
        more: dict[str, str] = {}
        if life.watchdog_seconds > 0:
            more["WATCHDOG_USEC"] = str(round(life.watchdog_seconds * 1e6))
        if life.voice.notify_address and life.service.fd_store_max:
            more["FDSTORE"] = str(life.service.fd_store_max)
        descriptors = (*life.ground.descriptors_of(life.owner.unit), *life.owner.fd_store.named())
        for _, fd in descriptors:
            if life.service.non_blocking:
                listening.set_blocking(fd, False)
        call = life.ground.call_of(life.owner.unit)
        if call is not None:
            descriptors = (("connection", call.fd), *descriptors)
            if call.remote_address:
                more |= {"REMOTE_ADDR": call.remote_address, "REMOTE_PORT": call.remote_port}
        self._spawn(line, more, descriptors, told, call)

    def control(self, line: CommandTable, told: Told) -> None:
        """One of the commands around it."""
        self._spawn(line, self._life.variables(), (), told)

    def besides(self, line: CommandTable, more: Mapping[str, str] = MappingProxyType({})) -> Command:
        """That line as a process of this life; nobody reads what it writes. Raises NotFoundError, InputError."""
        life, ground, unit = self._life, self._life.ground, self._life.owner.unit
        if secrets := credentials_directory(life.service, unit.name, ground.below):
            more = {"CREDENTIALS_DIRECTORY": secrets, **more}
        return command_of(
            life.service, line, told={**self._told(), "INVOCATION_ID": life.invocation, **more},
            cgroup=life.group.path if life.group is not None else None, below=ground.below,
            options=ground.spawn_words(unit.document, ground.private_directory(unit)),
        )  # fmt: skip

    def _told(self) -> Mapping[str, str]:
        """By whoever called: what it was that ended is told only while it starts, as with systemd."""
        told, phase = self._life.owner.told, self._life.phase
        if phase in (Phase.PRE_START, Phase.START):
            return told
        return {name: value for name, value in told.items() if not name.startswith("MONITOR_")}

    def _spawn(
        self,
        line: CommandTable,
        more: Mapping[str, str],
        descriptors: tuple[tuple[str, int], ...],
        told: Told,
        call: Call | None = None,
    ) -> None:
        life = self._life
        service, ground = life.service, life.ground
        assert life.group is not None
        if life.voice.notify_address:
            more = {"NOTIFY_SOCKET": life.voice.notify_address, **more}
        try:
            command = replace(self.besides(line, more), output=life.voice.output_path, descriptors=descriptors)
            if call is not None:
                error = "journal" if service.standard_error == "inherit" else service.standard_error
                path = life.voice.errors_path if service.tells_errors_apart else life.voice.output_path
                standard = open_connection(call.fd, error, journal=path, uid=who_of(service).uid)
                command = replace(command, output=None, standard=standard)
            elif (service.standard_input, service.standard_output, service.standard_error) != _PLAIN:
                standard = open_standard(
                    service.standard_input, service.standard_output, service.standard_error,
                    journal=life.voice.output_path, errors=life.voice.errors_path, uid=who_of(service).uid,
                    data=service.input_bytes if service.standard_input == "data" else b"",
                )  # fmt: skip
                command = replace(command, output=None, standard=standard)
        except ApplianceError as exc:
            told(exc)
            return
        standard_fds = command.standard or ()

        def spawned(child: Child | ApplianceError) -> None:
            close_standard(standard_fds)
            told(child)

        ground.processes.spawn_soon(command, spawned)

    # -- type = "forking" -------------------------------------------------------------------------------------------

    def find_main(self, wait_seconds: float = _FIRST_LOOK_SECONDS) -> None:
        """Its first process ended well: whom did it leave?"""
        life = self._life
        self._alarm = None
        if life.service.pid_file is None:
            self._guess()
            return
        pid, wrong = self._read_pid_file(life.service.pid_file)
        if pid and self.follow(pid):
            life.turn(Turn.DONE, f"started, pid {pid}")
        elif life.group is not None and life.group.empty():
            reason = f"{life.last_exit}, and left no process"
            life.fail(Result.PROTOCOL, reason)
            life.turn(Turn.BAD, reason)
        else:  # not written yet, or an old one: the start timeout says for how long that is fine
            life.owner.status_text = wrong
            again = functools.partial(self.find_main, min(wait_seconds * 2, _LOOK_SECONDS_MAX))
            self._alarm = life.ground.alarms.after(wait_seconds, again)

    def _guess(self) -> None:
        """As systemd: the only process of it that is our child, if there is only one."""
        life = self._life
        assert life.group is not None
        stats = [stat for pid in life.group.pids() if (stat := procfs.process_stat(pid)) is not None]
        left = [stat.pid for stat in stats if stat.parent == process_self.pid() and stat.state not in "ZX"]
        if len(left) == 1 and life.service.guess_main_pid and self.follow(left[0]):
            life.turn(Turn.DONE, f"started, pid {left[0]}")
        elif not stats:
            reason = f"{life.last_exit}, and left no process"
            life.fail(Result.PROTOCOL, reason)
            life.turn(Turn.BAD, reason)
        else:
            life.follows_group = True
            life.turn(Turn.DONE, "started, by what it left running")

    def follow(self, pid: int) -> bool:
        """Make that process of it the main one. False: it is none of it, or gone."""
        life = self._life
        stat = procfs.process_stat(pid)
        if stat is None or stat.state in "ZX" or life.group is None or not life.group.has(pid):
            return False
        if life.main is not None and life.main.pid == pid:
            return True
        child = life.ground.processes.adopt(pid, stat.start_ticks)
        if child is None:
            return False
        life.take_main(child)
        return True

    def _read_pid_file(self, path: str) -> tuple[int, str]:
        try:
            text = files.read_text(path, size_max=_PID_FILE_BYTES_MAX).split()
        except NotFoundError:
            return 0, f"waits for {path}"
        except ApplianceError as exc:
            return 0, exc.message
        if not text or not text[0].isdecimal() or len(text[0]) > 10:
            return 0, f"{path} holds no process id"
        pid = int(text[0])
        return pid, f"{path} names process {pid}, which is none of this unit"

    def cancel(self) -> None:
        """Look no more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


_PLAIN = ("null", "journal", "inherit")
