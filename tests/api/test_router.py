from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.api.router import (
    Answer,
    Found,
    Reply,
    Request,
    Route,
    Router,
    WrongMethod,
    decode_untrusted,
    split_target_untrusted,
)  # fmt: skip
from appliance.errors import InputError, NotFoundError, UnavailableError


async def handler(request: Request) -> Reply:
    return Answer(b"")


def router(*pairs: tuple[str, str]) -> Router:
    return Router(
        Route(method=method, pattern=pattern, handler=handler, summary="", answer="") for method, pattern in pairs
    )


TABLE = router(
    ("GET", "/"), ("GET", "/units"), ("GET", "/units/{name}"), ("POST", "/units/{name}/stop"), ("POST", "/units/reload")
)


@pytest.mark.parametrize(
    ("method", "target", "pattern", "names"),
    [
        ("GET", b"/", "/", {}),
        ("HEAD", b"/?x=1#y", "/", {}),
        ("GET", b"/units/web%40a%2Fb", "/units/{name}", {"name": "web@a/b"}),
        ("GET", b"/units/reload", "/units/{name}", {"name": "reload"}),  # a unit of that name can still be seen
        ("POST", b"/units/reload", "/units/reload", {}),
        ("POST", b"/units/w/stop", "/units/{name}/stop", {"name": "w"}),
    ],
)
def test_finds(method: str, target: bytes, pattern: str, names: dict[str, str]) -> None:
    found = TABLE.find_untrusted(method, target)
    assert isinstance(found, Found)
    assert (found.route.pattern, dict(found.names)) == (pattern, names)


def route(method: str, pattern: str) -> Route:
    return Route(method=method, pattern=pattern, handler=handler, summary="", answer="")


def test_others_are_made_when_the_first_do_not_answer() -> None:
    made: list[str] = []

    def more() -> list[Route]:
        made.append("so often")
        if len(made) == 1:
            raise ModuleNotFoundError("No module named 'appliance.gone'")
        return [route("GET", "/units/{name}"), route("POST", "/readyz")]

    table = Router([route("GET", "/readyz")], more)
    for method in ("GET", "HEAD"):
        assert isinstance(table.find_untrusted(method, b"/readyz"), Found)
    assert not made
    with pytest.raises(UnavailableError, match=r"cannot load what answers /units/web: No module named"):
        table.find_untrusted("GET", b"/units/web")
    found = table.find_untrusted("POST", b"/readyz")  # loaded now, although the place is known
    assert isinstance(found, Found)
    assert isinstance(table.find_untrusted("GET", b"/units/web"), Found)
    assert table.find_untrusted("PUT", b"/readyz") == WrongMethod("/readyz", ("GET", "HEAD", "POST"))
    with pytest.raises(NotFoundError):
        table.find_untrusted("GET", b"/nothing")
    assert len(made) == 2


def test_wrong_methods_and_places() -> None:
    wrong = TABLE.find_untrusted("PUT", b"/units/x/stop")
    assert wrong == WrongMethod("/units/x/stop", ("POST",))
    for target in (b"/nothing", b"/units/", b"/units/x/", b"//"):
        with pytest.raises(NotFoundError):
            TABLE.find_untrusted("GET", target)


def test_query() -> None:
    assert split_target_untrusted(b"/a%20b?x=1&y=a+b%26&z&=&x=2") == (
        b"/a%20b",
        {"x": "2", "y": "a b&", "z": "", "": ""},
    )


@given(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=("Cs",))))
def test_decoding_undoes_encoding(text: str) -> None:
    assert decode_untrusted("".join(f"%{byte:02x}" for byte in text.encode()).encode()) == text


@given(st.binary(max_size=100))
def test_targets_raise_nothing_else(target: bytes) -> None:
    with contextlib.suppress(InputError):
        TABLE.find_untrusted("GET", target)
