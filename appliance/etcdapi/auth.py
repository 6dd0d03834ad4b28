"""Who calls, and whether they may: the book of users and roles in force, kept durably, and the tokens given out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi import passwords
from appliance.etcdapi.auth_book import READ, WRITE, Book, Interval, decoded, interval
from appliance.etcdapi.grpc import Call, Code, RefusedError
from appliance.etcdapi.options import DEFAULTS, ApiOptions
from appliance.etcdapi.statuses import refused
from appliance.etcdapi.tokens import SimpleTokens, Tokens
from appliance.migration import BOOK_FACT
from appliance.store import Store

R = TypeVar("R")
WAITING_MAX = 64  # for a turn at hashing a password
_TRIES = 8


class Keeper(Protocol):
    """Where the book lies."""

    def read(self) -> bytes | None:
        """None: nothing was ever kept."""

    async def write(self, data: bytes) -> None:
        """Durable when it returns."""


class StoreKeeper:
    """Beside the keys, as a fact of the store: a change makes no revision, and backups have it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> bytes | None:
        """Raises UnavailableError when the store is not open."""
        return self._store.facts(BOOK_FACT).get(BOOK_FACT)

    async def write(self, data: bytes) -> None:
        """Raises UnavailableError when it cannot be kept."""
        settled = trio.Event()
        faults: list[ApplianceError] = []

        def done(fault: ApplianceError | None) -> None:
            if fault is not None:
                faults.append(fault)
            settled.set()

        self._store.submit_facts({BOOK_FACT: data}, done, always=True)
        await settled.wait()
        if faults:
            raise faults[0]


class Auth:
    """``book`` is in force."""

    def __init__(self, keeper: Keeper | None, options: ApiOptions = DEFAULTS) -> None:
        """Without a keeper nothing outlives us. Raises CorruptError: then nobody may be let in."""
        self._keeper = keeper
        self._bcrypt_cost = options.bcrypt_cost
        self._tokens: Tokens = options.tokens() if options.tokens else SimpleTokens(options.token_seconds)
        data = keeper.read() if keeper is not None else None
        self.book = decoded(data) if data is not None else Book()
        self._changing = trio.Lock()
        self._hashing = trio.CapacityLimiter(1)
        self._waiting = 0
        self._permits: dict[tuple[str, int], tuple[Interval, ...]] = {}

    # Asking

    def caller(self, call: Call) -> str:
        """The user's name; empty: nobody said who they are. Raises RefusedError: a token that is not (any more) one."""
        token = call.token
        if not token:
            return call.common_name
        return self._tokens.user_of(token, self.book.revision)

    def require(self, user: str, key: bytes, range_end: bytes | None, kind: int) -> None:
        """Raises RefusedError unless this user may READ or WRITE all of the range."""
        if not user:
            raise refused("user empty")
        if self.book.is_root(user):
            return
        permitted = self._permits.get((user, kind))
        if permitted is None:
            permitted = self._permits[user, kind] = self.book.permits(user, kind)
        start, end = interval(key, range_end)
        if end is not None and end <= start:  # an etcd asks for the first key even of a range that has none
            end = start + b"\0"
        at = bisect_right(permitted, start, key=lambda each: each[0]) - 1
        if at < 0 or not _reaches(permitted[at][1], end):
            raise refused("permission denied")

    def require_root(self, user: str) -> None:
        """Raises RefusedError unless they may do anything, or authentication is off."""
        if not self.book.enabled:
            return
        if not user:
            raise refused("user empty")
        self.book.user(user)
        if not self.book.is_root(user):
            raise refused("permission denied")

    # Changing

    async def change(self, verb: Callable[[Book], Book]) -> None:
        """What ``verb`` makes of the book is durable, and in force. Raises RefusedError."""
        async with self._changing:
            old = self.book
            new = verb(old)
            if new is old:
                return
            if self._keeper is not None:
                await self._keeper.write(new.encoded())
            self.book = new
            self._permits.clear()
            if not new.enabled:
                self._tokens.clear()
            for name, user in old.users.items():
                if name not in new.users or new.users[name].secret != user.secret:
                    self._tokens.forget(name)

    async def secret_of(self, password: str) -> str:
        """For the book. Raises RefusedError when too many wait for a turn."""
        return await self._in_turn(lambda: passwords.secret_of(password, self._bcrypt_cost))

    async def authenticate(self, name: str, password: str) -> bytes:
        """A token. Raises RefusedError."""
        for _ in range(_TRIES):
            if not self.book.enabled:
                raise refused("auth disabled")
            user = self.book.users.get(name)
            if user is None:
                raise refused("authentication failed")
            if not user.secret:
                text = "auth: authentication failed, password was given for no password user"
                raise RefusedError(Code.UNKNOWN, text)
            secret = user.secret
            good = await self._in_turn(partial(passwords.matches, secret, password))
            now = self.book.users.get(name)
            if not self.book.enabled or now is None or now.secret != secret:
                continue  # changed while we computed
            if not good:
                raise refused("authentication failed")
            return self._tokens.give(name, self.book.revision)
        raise refused("auth revision old")

    async def _in_turn(self, compute: Callable[[], R]) -> R:
        if self._waiting >= WAITING_MAX:
            raise refused("too many requests")
        self._waiting += 1
        try:
            return await trio.to_thread.run_sync(compute, limiter=self._hashing)
        finally:
            self._waiting -= 1


def _reaches(have: bytes | None, want: bytes | None) -> bool:
    return have is None or (want is not None and want <= have)


__all__ = ["READ", "WRITE", "Auth", "Keeper", "StoreKeeper"]
