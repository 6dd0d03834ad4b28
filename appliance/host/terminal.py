"""The machine's own terminals: the screen's first console and serial lines, raw, never ours to be controlled by."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import termios

from appliance.errors import UnavailableError

ROWS, COLUMNS = 24, 80  # of a line that does not say how large it is
_SYSLOG_CONSOLE_LEVEL = 8  # SYSLOG_ACTION_CONSOLE_LEVEL of syslog(2)


class Terminal:
    """Reads and writes without waiting; whoever waits does so on ``descriptor``."""

    def __init__(self, path: str) -> None:
        """Raises UnavailableError: there is none, or nothing is behind it."""
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self._before = termios.tcgetattr(self.descriptor)
                self._make_raw()
            except (OSError, termios.error):
                os.close(self.descriptor)
                raise
        except (OSError, termios.error) as exc:
            raise UnavailableError(f"cannot use the terminal {path}: {exc.args[-1]}") from exc

    def _make_raw(self) -> None:
        """Each key by itself, unseen; what is written keeps its line ends, for others write here too."""
        mode = termios.tcgetattr(self.descriptor)
        mode[0] &= ~(termios.IXON | termios.ICRNL | termios.INLCR)
        mode[1] |= termios.OPOST | termios.ONLCR
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(self.descriptor, termios.TCSANOW, mode)

    def size(self) -> tuple[int, int]:
        """(rows, columns), never less than what fits a line of text."""
        try:
            said = fcntl.ioctl(self.descriptor, termios.TIOCGWINSZ, bytes(8))
            rows, columns = struct.unpack("HHHH", said)[:2]
        except OSError:
            rows = columns = 0
        return max(rows or ROWS, 12), max(columns or COLUMNS, 40)

    def read(self) -> bytes:
        """What was typed; empty when nothing was. Raises UnavailableError: the line is gone."""
        try:
            return os.read(self.descriptor, 4096)
        except BlockingIOError:
            return b""
        except OSError as exc:
            raise UnavailableError(f"cannot read from {self.path}: {exc.strerror}") from exc

    def write(self, data: bytes) -> int:
        """How much of it was taken. Raises UnavailableError: the line is gone."""
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise UnavailableError(f"cannot write to {self.path}: {exc.strerror}") from exc

    def close(self) -> None:
        """As it was found."""
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(self.descriptor, termios.TCSANOW, self._before)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def console_names() -> tuple[str, ...]:
    """Of this machine, the one that /dev/console is last: ("tty1", "ttyS0")."""
    try:
        with open("/sys/class/tty/console/active", encoding="ascii") as file:
            names = file.read().split()
    except OSError:
        return ()
    return tuple("tty1" if name == "tty0" else name for name in names)


def quieten_kernel(level: int) -> None:
    """Only messages more urgent than ``level`` go to the consoles; all are in the kernel's log."""
    ctypes.CDLL(None).klogctl(_SYSLOG_CONSOLE_LEVEL, None, level)
