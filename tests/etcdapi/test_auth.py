"""Permissions against a plain model of them; tokens; a change of users and roles survives a restart."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import CorruptError
from appliance.etcdapi.auth import Auth
from appliance.etcdapi.auth_book import READ, READWRITE, WRITE, Book, Permission, decoded
from appliance.etcdapi.grpc import Call, RefusedError

KEYS = [bytes([a, b]) for a in b"abc" for b in b"abc"]
keys = st.sampled_from(KEYS)
ends = st.one_of(st.just(b""), st.just(b"\0"), keys)
permissions = st.lists(st.builds(Permission, st.sampled_from([READ, WRITE, READWRITE]), keys, ends), max_size=6)


def covered(key: bytes, end: bytes) -> set[bytes]:
    """The keys of a little world that a range holds; b"zz" stands for all that is beyond."""
    world = [*KEYS, b"zz"]
    if not end:
        return {key}
    return {each for each in world if each >= key and (end == b"\0" or each < end)}


@given(permissions, st.sampled_from([READ, WRITE]), keys, ends)
def test_ranges_as_a_set_of_keys(granted: list[Permission], kind: int, key: bytes, end: bytes) -> None:
    if end and end != b"\0" and end <= key:
        return
    granted = [each for each in granted if not each.range_end or each.range_end == b"\0" or each.range_end > each.key]
    book = Book().with_user("u", "").with_role("r")
    for permission in granted:
        book = book.with_permission("r", permission)
    book = book.with_granted("u", "r")
    auth = Auth(None)
    auth.book = decoded(book.encoded())
    assert auth.book == book
    try:
        auth.require("u", key, end or None, kind)
        allowed = True
    except RefusedError:
        allowed = False
    last = {(each.key, each.range_end): each.kind for each in granted}
    mine = [covered(*place) for place, each in last.items() if each in (kind, READWRITE)]
    if allowed:
        assert covered(key, end) <= set().union(*mine)
    else:  # points between the keys of the little world count too: one permission that holds all of it is enough
        assert not any(
            covered(key, end) <= covered(*place) and (place[1] or not end)
            for place, each in last.items()
            if each in (kind, READWRITE)
        )


class Caller:
    common_name = ""

    def __init__(self, token: bytes) -> None:
        self.token = token


def caller(token: bytes) -> Call:
    return Caller(token)  # type: ignore[return-value]


async def test_tokens_live_while_they_are_used(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 1.0  # passwords are hashed in a thread
    auth = Auth(None)
    secret = await auth.secret_of("pw")
    await auth.change(lambda book: book.with_user("root", secret).with_granted("root", "root").with_enabled())
    with pytest.raises(RefusedError, match="invalid user ID or password"):
        await auth.authenticate("root", "no")
    token = await auth.authenticate("root", "pw")
    for _ in range(3):
        await trio.sleep(299)
        assert auth.caller(caller(token)) == "root"
    await trio.sleep(301)
    with pytest.raises(RefusedError, match="invalid auth token"):
        auth.caller(caller(token))
    token = await auth.authenticate("root", "pw")
    await auth.change(lambda book: book.with_password("root", secret + "x"))
    with pytest.raises(RefusedError, match="invalid auth token"):
        auth.caller(caller(token))


class Kept:
    def __init__(self) -> None:
        self.data: bytes | None = None

    def read(self) -> bytes | None:
        return self.data

    async def write(self, data: bytes) -> None:
        self.data = data


async def test_what_changed_is_kept() -> None:
    kept = Kept()
    await Auth(kept).change(lambda book: book.with_user("ann", "x"))
    assert list(Auth(kept).book.users) == ["ann"]
    kept.data = b"{}"
    with pytest.raises(CorruptError):
        Auth(kept)
