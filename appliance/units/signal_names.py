"""Signals and exit codes as unit files write them. Pure: the numbers are those of Linux on every machine we run on."""

from __future__ import annotations

from collections.abc import Iterable

SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
    "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19,
    "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28,
    "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31,
}  # fmt: skip
_RTMIN, _RTMAX = 34, 64
_NAMES = {number: name for name, number in reversed(SIGNALS.items())}
EXIT_CODES = {  # systemd.exec(5), sysexits(3)
    "SUCCESS": 0, "FAILURE": 1, "INVALIDARGUMENT": 2, "NOTIMPLEMENTED": 3, "NOPERMISSION": 4, "NOTINSTALLED": 5,
    "NOTCONFIGURED": 6, "NOTRUNNING": 7, "USAGE": 64, "DATAERR": 65, "NOINPUT": 66, "NOUSER": 67, "NOHOST": 68,
    "UNAVAILABLE": 69, "SOFTWARE": 70, "OSERR": 71, "OSFILE": 72, "CANTCREAT": 73, "IOERR": 74, "TEMPFAIL": 75,
    "PROTOCOL": 76, "NOPERM": 77, "CONFIG": 78,
}  # fmt: skip


def signal_of(name: str) -> int | None:
    """15 of SIGTERM, TERM or 15; SIGRTMIN+3 too; None when there is none of that name."""
    word = name.removeprefix("SIG")
    if word.isdecimal():
        return int(word) if 0 < int(word) <= _RTMAX else None
    for start, first, sign in (("RTMIN", _RTMIN, 1), ("RTMAX", _RTMAX, -1)):
        rest = word.removeprefix(start)
        if rest != word:
            steps = rest[1:] if rest[:1] == ("+" if sign > 0 else "-") else "0" if not rest else "x"
            number = first + sign * int(steps) if steps.isdecimal() else 0
            return number if _RTMIN <= number <= _RTMAX else None
    return SIGNALS.get(word)


def signal_word(number: int) -> str:
    """TERM of 15, as $EXIT_STATUS has it."""
    return _NAMES.get(number) or (f"RTMIN+{number - _RTMIN}" if number >= _RTMIN else str(number))


def signal_problem(name: str) -> str | None:
    """What is wrong with the name of a signal."""
    return None if signal_of(name) is not None else f'found "{name}", expected a signal such as "SIGTERM"'


def exit_code_problem(codes: Iterable[int | str]) -> str | None:
    """What is wrong with a list of exit codes and signals."""
    for one in codes:
        if isinstance(one, int) and not 0 <= one <= 255:
            return f"found the exit code {one}, expected 0 to 255"
        if isinstance(one, str) and one not in EXIT_CODES and (one.isdecimal() or signal_of(one) is None):
            return f'found "{one}", expected an exit code such as 3, or a signal such as "SIGUSR1"'
    return None


def holds(codes: Iterable[int | str], *, code: int | None, signal: int | None) -> bool:
    """Whether that end is one of these."""
    for one in codes:
        if isinstance(one, int) or one in EXIT_CODES:
            if code is not None and code == (one if isinstance(one, int) else EXIT_CODES[one]):
                return True
        elif signal is not None and signal_of(one) == signal:
            return True
    return False
