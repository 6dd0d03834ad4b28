"""A machine in QEMU (TCG): its serial line by line, its events by QMP, its power to cut (notes/boot-qemu.md, 10)."""

from __future__ import annotations

import contextlib
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
from typing import Any

CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
GONE = "<<the machine is gone>>"
_COLOURS = re.compile(rb"\x1b(\[[0-9;=?]*[a-zA-Z]|\([A-Z0-9]|[78])")


class MachineGone(AssertionError):
    """QEMU ended while something was waited for."""


class VM:
    """One disk, one power switch. Lines are numbered from the first start on; ``wait`` goes on after its last match.

    When the guest restarts, QEMU is started anew: code that it translated before would slow it down (2.3), and can be
    kept in a larger room then. Not where the log of its writes must go on.
    """

    def __init__(
        self, disk: Path | None, work: Path, *, name: str = "vm", memory: int = 512,
        forwards: dict[int, int] | None = None, extra: Sequence[str] = (), drive: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.disk, self.work, self.name, self.memory = disk, work, name, memory
        self.forwards, self.extra, self.drive = forwards or {}, list(extra), drive
        self.variables = work / f"{name}.vars"
        if not self.variables.exists():
            shutil.copy(VARIABLES, self.variables)
        self.lines: list[str] = []
        self.times: list[float] = []
        self.events: list[dict[str, Any]] = []
        self.log = (work / f"{name}.serial.log").open("ab")
        self._position = 0
        self._changed = threading.Condition()
        self._switch = threading.Lock()  # nobody cuts the power of a QEMU that is half started: it would never be off
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[socket.socket] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._asked = 0
        self._anew = drive is None
        self._cut, self._off = False, True
        self._command: list[str] = []

    def start(self, *, kernel: Path | None = None, initrd: Path | None = None, append: str = "") -> VM:
        """Power on."""
        self._cut = self._off = False
        self._anew = self.drive is None
        self._command = self._words(kernel, initrd, append)
        self._launch()
        return self

    def _launch(self) -> None:
        """We listen and QEMU connects: not a byte is lost."""
        listeners = []
        for kind in ("serial", "qmp"):
            path = self.work / f"{self.name}.{kind}"
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(60)
            listeners.append(listener)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log
        )
        serial, qmp = (listener.accept()[0] for listener in listeners)
        for listener in listeners:
            listener.close()
        self._sockets = [serial, qmp]
        reading = threading.Thread(target=self._read_serial, args=(serial,), daemon=True)
        reading.start()
        self._qmp = qmp.makefile("rwb")
        self._qmp.readline()
        threading.Thread(target=self._read_qmp, args=(self._qmp, self._process, reading), daemon=True).start()
        self.ask("qmp_capabilities")

    def _words(self, kernel: Path | None, initrd: Path | None, append: str) -> list[str]:
        accelerator = f"tcg,thread=multi,tb-size={128 if self._anew else 32}"
        command = [
            "qemu-system-x86_64", "-accel", accelerator, "-cpu", "max", "-smp", "2",
            "-m", str(self.memory), "-display", "none", "-nodefaults", "-rtc", "base=utc",
            "-chardev", f"socket,id=serial,path={self.work}/{self.name}.serial", "-serial", "chardev:serial",
            "-chardev", f"socket,id=qmp,path={self.work}/{self.name}.qmp", "-mon", "chardev=qmp,mode=control",
            "-device", "virtio-rng-pci",
        ]  # fmt: skip
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{ours}-:{theirs}" for ours, theirs in self.forwards.items())
        command += ["-netdev", f"user,id=n0{forwards}", "-device", "virtio-net-pci,netdev=n0,romfile="]
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
            first = "" if kernel is not None else ",bootindex=0"
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
        """One QMP command. Raises TimeoutError."""
        with self._changed:
            self._asked += 1
            number = self._asked
            request = {"execute": command, "arguments": arguments, "id": number}
            self._qmp.write(json.dumps(request).encode() + b"\n")
            self._qmp.flush()
            if not self._changed.wait_for(lambda: number in self._answers, timeout):
                raise TimeoutError(f"QEMU does not answer {command}")
            return self._answers.pop(number)

    def type(self, text: str) -> None:
        """Into the serial console."""
        self._sockets[0].sendall(text.encode())

    def cut_power(self) -> None:
        """At once; what the guest had not flushed is for the test to decide (crash.py)."""
        self._cut = True
        with self._switch:
            assert self._process is not None
            self._process.kill()
        self.wait_off()

    def put_away(self) -> None:
        """At the end of a test, however it ended."""
        if self.is_on:
            self.cut_power()
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
        """Used by QEMU so far: the stable measure on a shared host."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _read_serial(self, serial: socket.socket) -> None:
        rest, started = b"", time.monotonic()
        while True:
            try:
                data = serial.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for raw in lines:
                line = _COLOURS.sub(b"", raw.replace(b"\r", b"")).decode("utf-8", "replace")
                self.log.write(f"[{time.monotonic() - started:8.2f}] {line}\n".encode())
                self._add(line)
            self.log.flush()

    def _add(self, line: str) -> None:
        with self._changed:
            self.lines.append(line)
            self.times.append(time.monotonic())
            self._changed.notify_all()

    def _read_qmp(self, qmp: Any, process: subprocess.Popen[bytes], reading: threading.Thread) -> None:
        last: dict[str, Any] = {}
        while line := _line_of(qmp):
            message = json.loads(line)
            with self._changed:
                if "event" in message:
                    last = message
                    self.events.append(message)
                elif "id" in message:
                    self._answers[message["id"]] = message
                self._changed.notify_all()
        process.wait()
        reading.join()
        for one in (qmp, *self._sockets):
            with contextlib.suppress(OSError):
                one.close()
        on = False
        try:
            with self._switch:
                if _is_restart(last) and not self._cut:
                    self._launch()
                    on = True
        finally:
            if not on:
                self._off = True
                self._add(GONE)


def _line_of(qmp: Any) -> bytes:
    try:
        line: bytes = qmp.readline()
    except (OSError, ValueError):
        return b""
    return line


def _is_restart(event: dict[str, Any]) -> bool:
    return event.get("event") == "SHUTDOWN" and event["data"].get("reason") == "guest-reset"
