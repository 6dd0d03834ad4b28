"""A machine in QEMU (TCG): its serial line by line, its events by QMP, its power to cut (notes/boot-qemu.md, 10)."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
GONE = "<<the machine is gone>>"
# One is as fast where two machines run side by side, and several threads of one guest were seen to run code that
# another had just replaced (an int3 oops in sched_clock_cpu, once in a hundred starts): the emulator's fault.
CPUS = int(os.environ.get("APPLIANCE_TEST_CPUS", "1"))
_COLOURS = re.compile(rb"\x1b(\[[0-9;=?]*[a-zA-Z]|\([A-Z0-9]|[78])")
_RESTARTS = ("guest-reset", "host-qmp-system-reset")  # the guest did it, or somebody pressed the button


class MachineGone(AssertionError):
    """QEMU ended, or had ended, while something was waited for."""


class _Run:
    """One QEMU. It has its ends of two pairs of sockets from the first moment on: not a byte is lost, nobody waits."""

    def __init__(self, words: Sequence[str], errors: BinaryIO) -> None:
        self.serial, its_serial = socket.socketpair()
        self.qmp, its_qmp = socket.socketpair()
        with its_serial, its_qmp:
            command = [
                *words, "-chardev", f"socket,id=serial,fd={its_serial.fileno()}", "-serial", "chardev:serial",
                "-chardev", f"socket,id=qmp,fd={its_qmp.fileno()}", "-mon", "chardev=qmp,mode=control",
            ]  # fmt: skip
            try:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                    pass_fds=(its_serial.fileno(), its_qmp.fileno()),
                )  # fmt: skip
            except OSError:
                self.close()
                raise
        self.answers: dict[int, dict[str, Any]] = {}
        self.talks = self.ended = self.restarts = False  # it takes commands; it answers no more; another one follows

    def send(self, message: dict[str, Any]) -> None:
        """To QMP. Raises OSError."""
        self.qmp.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self.serial.close()
        self.qmp.close()


class VM:
    """One disk, one power switch. Lines are numbered from the first start on; ``wait`` goes on after its last match.

    When the guest restarts, QEMU is started anew: code that it translated before would slow it down (2.3), and can be
    kept in a larger room then. Not where the log of its writes must go on. ``network``: the firmware starts from there,
    not from the disk; more words for QEMU's own network.
    """

    def __init__(
        self, disk: Path | None, work: Path, *, name: str = "vm", memory: int = 512,
        forwards: dict[int, int] | None = None, extra: Sequence[str] = (), drive: Sequence[str] | None = None,
        network: str | None = None,
    ) -> None:  # fmt: skip
        self.disk, self.work, self.name, self.memory = disk, work, name, memory
        self.forwards, self.extra, self.drive = forwards or {}, list(extra), drive
        self.network = network
        self.variables = work / f"{name}.vars"
        if not self.variables.exists():
            shutil.copy(VARIABLES, self.variables)
        self.lines: list[str] = []
        self.times: list[float] = []
        self.events: list[dict[str, Any]] = []
        self.log = (work / f"{name}.serial.log").open("ab")
        self._position = 0
        self._changed = threading.Condition()  # whatever is said below changes only while this is held
        self._run: _Run | None = None
        self._asked = 0
        self._anew = drive is None
        self._cut, self._off = False, True
        self._command: list[str] = []

    def start(self, *, kernel: Path | None = None, initrd: Path | None = None, append: str = "") -> VM:
        """Power on."""
        with self._changed:
            assert self._off, "it is on"
            self._anew = self.drive is None
            self._command = self._words(kernel, initrd, append)
            self._launch()
            self._cut = self._off = False
        return self

    def _launch(self) -> None:
        """Raises OSError."""
        self._run = _Run(self._command, self.log)
        threading.Thread(target=self._follow, args=(self._run,), daemon=True).start()

    def _words(self, kernel: Path | None, initrd: Path | None, append: str) -> list[str]:
        threads = "single" if CPUS == 1 else "multi"
        command = [
            "qemu-system-x86_64", "-accel", f"tcg,thread={threads},tb-size={128 if self._anew else 32}",
            "-cpu", "max", "-smp", str(CPUS), "-m", str(self.memory), "-display", "none", "-nodefaults",
            "-rtc", "base=utc", "-device", "virtio-rng-pci",
        ]  # fmt: skip
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{ours}-:{theirs}" for ours, theirs in self.forwards.items())
        by_network = self.network is not None
        command += ["-netdev", f"user,id=n0{forwards}{self.network or ''}"]
        command += ["-device", f"virtio-net-pci,netdev=n0,romfile={',bootindex=0' if by_network else ''}"]
        if kernel is not None:
            command += ["-M", "q35", "-kernel", str(kernel), "-initrd", str(initrd), "-append", append]
        else:
            command += ["-M", "q35,smm=off"]
            command += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={CODE}"]
            command += ["-drive", f"if=pflash,unit=1,format=raw,file={self.variables}"]
        if self.drive is not None:
            command += self.drive
        elif self.disk is not None:
            command += ["-drive", f"if=none,id=d0,format=raw,file={self.disk}"]
            first = "" if kernel is not None or by_network else ",bootindex=0"
            command += ["-device", f"virtio-blk-pci,drive=d0{first}"]
        return [*command, *self.extra, *(["-no-reboot"] if self._anew else [])]

    def wait(self, pattern: str, timeout: float = 180) -> str:
        """The next line that matches. Raises TimeoutError, MachineGone."""
        wanted, limit = re.compile(pattern), time.monotonic() + timeout
        with self._changed:
            while True:
                while self._position < len(self.lines):
                    line = self.lines[self._position]
                    self._position += 1
                    if wanted.search(line):
                        return line
                    if line == GONE:
                        raise MachineGone(f"while waiting for {pattern!r}; last: {self.last()}")
                if self._off:
                    raise MachineGone(f"it is off, and {pattern!r} is waited for; last: {self.last()}")
                if not self._changed.wait(max(0.0, limit - time.monotonic())) and time.monotonic() >= limit:
                    raise TimeoutError(f"no {pattern!r} within {timeout} s; last: {self.last()}")

    def wait_all(self, *patterns: str, timeout: float = 180) -> list[str]:
        """A line for each, in whatever order they come. Raises TimeoutError, MachineGone."""
        begin, limit, end, found = self._position, time.monotonic() + timeout, 0, []
        for pattern in patterns:
            self._position = begin
            found.append(self.wait(pattern, max(1.0, limit - time.monotonic())))
            end = max(end, self._position)
        self._position = end
        return found

    def wait_event(self, event: str, count: int = 1, timeout: float = 180) -> None:
        """Until there were so many QMP events of that name. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count(event) >= count, timeout):
                raise TimeoutError(f"no {event} within {timeout} s; last: {self.last()}")

    def wait_reset(self, count: int = 1, timeout: float = 180) -> None:
        """Until it has restarted so often. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.resets() >= count, timeout):
                raise TimeoutError(f"{self.resets()} restarts within {timeout} s, not {count}; last: {self.last()}")

    def last(self, count: int = 8) -> str:
        """The end of its serial output."""
        return " | ".join(self.lines[-count:])

    def resets(self) -> int:
        """How often it restarted; at least, where it is not started anew: each of the kernel's ways to do it counts."""
        return self.count("RESET") + sum(_is_restart(one) for one in self.events)

    def count(self, event: str) -> int:
        """QMP events of that name so far."""
        return sum(one["event"] == event for one in self.events)

    def ask(self, command: str, timeout: float = 60, **arguments: object) -> dict[str, Any]:
        """One QMP command; of the next QEMU, where the one that was asked ended. Raises TimeoutError, MachineGone."""
        limit = time.monotonic() + timeout
        with self._changed:
            self._asked += 1
            number = self._asked
            while True:
                if not self._changed.wait_for(lambda: self._off or self._talking(), limit - time.monotonic()):
                    raise TimeoutError("QEMU takes no commands")
                run = self._run
                if self._off or run is None:
                    raise MachineGone(f"it is off, and {command} is asked; last: {self.last()}")
                try:
                    run.send({"execute": command, "arguments": arguments, "id": number})
                except OSError:
                    run.talks = False
                done = functools.partial(lambda run: number in run.answers or run.ended, run)
                if not self._changed.wait_for(done, limit - time.monotonic()):
                    raise TimeoutError(f"QEMU does not answer {command}")
                if number in run.answers:
                    return run.answers.pop(number)

    def type(self, text: str) -> None:
        """Into the serial console. Raises OSError."""
        assert self._run is not None
        self._run.serial.sendall(text.encode())

    def cut_power(self) -> None:
        """At once; what the guest had not flushed is for the test to decide (write_log.py)."""
        with self._changed:
            self._cut = True  # from now on nobody starts another QEMU
            if self._run is not None:
                self._run.process.kill()
        self.wait_off()

    def put_away(self) -> None:
        """At the end of a test, however it ended."""
        try:
            self.cut_power()
        finally:
            self.log.close()

    def wait_off(self, timeout: float = 120) -> None:
        """Until it has powered itself off."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._off, timeout), f"it is still on; last: {self.last()}"
            self._position = len(self.lines)

    @property
    def is_on(self) -> bool:
        """Whether QEMU runs, or is about to."""
        return not self._off

    def cpu_seconds(self) -> float:
        """Used by QEMU since it was started: the stable measure on a shared host."""
        assert self._run is not None
        fields = Path(f"/proc/{self._run.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # -- a thread for each QEMU, and one for its serial line -----------------------------------------------------------

    def _follow(self, run: _Run) -> None:
        """From its greeting to its end; then another QEMU, or the machine is off."""
        reading = threading.Thread(target=self._read_serial, args=(run.serial,), daemon=True)
        reading.start()
        with run.qmp.makefile("rb") as lines:
            while line := _line_of(lines):
                self._hear(run, json.loads(line))
        run.process.wait()
        reading.join()
        with self._changed:
            run.ended = True
            run.close()
            if run.restarts and not self._cut:
                try:
                    return self._launch()
                except OSError as exc:
                    self._add(f"<<QEMU cannot be started again: {exc}>>")
                finally:
                    self._changed.notify_all()
            self._off = True
            self._add(GONE)
        return None

    def _hear(self, run: _Run, message: dict[str, Any]) -> None:
        with self._changed:
            if "QMP" in message:
                try:
                    run.send({"execute": "qmp_capabilities"})
                except OSError:
                    return  # it is gone: the next line is the end
            elif "event" in message:
                run.restarts |= _is_restart(message)
                run.talks &= message["event"] != "SHUTDOWN"
                self.events.append(message)
            elif "id" in message:
                run.answers[message["id"]] = message
            else:
                run.talks = True
            self._changed.notify_all()

    def _talking(self) -> bool:
        return self._run is not None and self._run.talks and not self._run.ended

    def _read_serial(self, serial: socket.socket) -> None:
        rest, started = b"", time.monotonic()
        while True:
            try:
                data = serial.recv(1 << 16)
            except OSError:
                data = b""
            *lines, rest = (rest + data).split(b"\n")
            if not data and rest:  # its last words
                lines, rest = [*lines, rest], b""
            for raw in lines:
                line = _COLOURS.sub(b"", raw.replace(b"\r", b"")).decode("utf-8", "replace")
                self.log.write(f"[{time.monotonic() - started:8.2f}] {line}\n".encode())
                self._add(line)
            self.log.flush()
            if not data:
                return

    def _add(self, line: str) -> None:
        with self._changed:
            self.lines.append(line)
            self.times.append(time.monotonic())
            self._changed.notify_all()


def _line_of(qmp: BinaryIO) -> bytes:
    """Whole, or nothing."""
    try:
        line: bytes = qmp.readline()
    except (OSError, ValueError):
        return b""
    return line if line.endswith(b"\n") else b""


def _is_restart(event: dict[str, Any]) -> bool:
    return event.get("event") == "SHUTDOWN" and event["data"].get("reason") in _RESTARTS
