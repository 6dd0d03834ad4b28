"""Simple tokens: random words, known to this process alone. Clients ask for new ones by themselves."""

from __future__ import annotations

from typing import Protocol

import trio

from appliance.etcdapi.statuses import refused
from appliance.host import entropy


class Tokens(Protocol):
    """Who gives tokens out, and knows them again. ``revision`` is that of users and roles."""

    def give(self, user: str, revision: int) -> bytes:
        """A new one. Raises RefusedError."""

    def user_of(self, token: bytes, revision: int) -> str:
        """Whose it is. Raises RefusedError: nobody's (any more)."""

    def forget(self, user: str) -> None:
        """Those of this user are void."""

    def clear(self) -> None:
        """All are void."""


class SimpleTokens:
    """See Tokens. One lasts ``seconds`` after its last use."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tokens: dict[bytes, tuple[str, float]] = {}  # user, until
        self._given = 0

    def give(self, user: str, revision: int) -> bytes:
        """See Tokens."""
        now = trio.current_time()
        self._tokens = {token: it for token, it in self._tokens.items() if it[1] > now}
        self._given += 1
        token = f"{entropy.token(16)}.{self._given}".encode()
        self._tokens[token] = (user, now + self._seconds)
        return token

    def user_of(self, token: bytes, revision: int) -> str:
        """See Tokens."""
        now = trio.current_time()
        user, until = self._tokens.get(token, ("", 0.0))
        if until <= now:
            self._tokens.pop(token, None)
            raise refused("invalid auth token")
        self._tokens[token] = (user, now + self._seconds)
        return user

    def forget(self, user: str) -> None:
        """See Tokens."""
        self._tokens = {token: it for token, it in self._tokens.items() if it[0] != user}

    def clear(self) -> None:
        """See Tokens."""
        self._tokens.clear()
