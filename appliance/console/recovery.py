"""The recovery console: a few commands behind a password, typed at the machine itself. No shell stands behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from appliance.errors import ApplianceError

PASSWORDS_MAX = 3
_WRONG_SECONDS = 3.0
_LINE_MAX = 200
HELP = """\
  status            the node in a few lines
  logs [UNIT]       what was said last, by all or by one unit
  units             every unit and how it is
  network           interfaces and addresses
  rollback          go back to the version before, by a restart
  reset-settings    put appliance.toml and appliance.d aside; defaults count from the next start on
  mount-rw          the state partition for writing again, after an error made it read-only
  reboot, poweroff  stop everything in order, then end
  exit              back to the status screen"""


@dataclass(frozen=True, kw_only=True)
class Acts:
    """What it can do; each gives the text to show, and may raise any of our errors."""

    password_hash: Callable[[], str]  # bcrypt; empty: there is no recovery console
    status: Callable[[], str]
    units: Callable[[], str]
    network: Callable[[], str]
    logs: Callable[[str], Awaitable[str]]
    rollback: Callable[[], Awaitable[str]]
    reset_settings: Callable[[], str]
    mount_writable: Callable[[], str]
    end: Callable[[str], str]


class Recovery:
    """One visit. ``key`` takes what is typed and gives what is to be shown; ``over`` once it is done."""

    def __init__(self, acts: Acts) -> None:
        self._acts = acts
        self._line = ""
        self._known = False
        self._wrong = 0
        self.over = False

    def greet(self) -> str:
        """The first prompt."""
        return "password: "

    async def key(self, typed: str) -> str:
        """Some characters. What they lead to."""
        shown = ""
        for one in typed:
            if one in "\r\n":
                line, self._line = self._line, ""
                shown += "\n" + (await self._command(line.split()) if self._known else await self._enter(line))
            elif one in "\x03\x04":
                self.over = True
                return shown + "\n"
            elif one in "\x08\x7f":
                shown += "\b \b" if self._known and self._line else ""
                self._line = self._line[:-1]
            elif one.isprintable() and len(self._line) < _LINE_MAX:
                self._line += one
                shown += one if self._known else ""
            if self.over:
                break
        return shown

    async def _enter(self, password: str) -> str:
        if await trio.to_thread.run_sync(_fits, password, self._acts.password_hash()):
            self._known = True
            return f"{HELP}\nrecovery> "
        self._wrong += 1
        await trio.sleep(_WRONG_SECONDS * self._wrong)
        if self._wrong >= PASSWORDS_MAX:
            self.over = True
            return "wrong; enough\n"
        return "wrong\npassword: "

    async def _command(self, words: list[str]) -> str:
        try:
            text = await self._obey(words)
        except ApplianceError as error:
            text = f"{error}"
        return "" if self.over else f"{text}{chr(10) if text else ''}recovery> "

    async def _obey(self, words: list[str]) -> str:
        acts = self._acts
        match words:
            case []:
                return ""
            case ["exit" | "quit"]:
                self.over = True
                return ""
            case ["status"]:
                return acts.status()
            case ["units"]:
                return acts.units()
            case ["network"]:
                return acts.network()
            case ["logs"] | ["logs", _]:
                return await acts.logs(words[1] if len(words) > 1 else "")
            case ["rollback"]:
                return await acts.rollback()
            case ["reset-settings"]:
                return acts.reset_settings()
            case ["mount-rw"]:
                return acts.mount_writable()
            case ["reboot" | "poweroff"]:
                return acts.end(words[0])
            case ["help" | "?"]:
                return HELP
            case _:
                return f'no command "{" ".join(words)}"\n{HELP}'


def _fits(password: str, secret: str) -> bool:
    import bcrypt  # native code, and only for who types a password

    try:
        return bcrypt.checkpw(password.encode()[:72], secret.encode())
    except ValueError:
        return False
