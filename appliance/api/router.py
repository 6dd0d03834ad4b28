"""The table of routes and how a request finds its own. Pure: bytes of the peer raise only InputError.

The same table makes the OpenAPI document (openapi.py), so neither can forget what the other has.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.api.wire import Fields, dumps, object_untrusted
from appliance.errors import InputError, NotFoundError, UnavailableError

HEX = frozenset(b"0123456789abcdefABCDEF")
TARGET_MAX = 8192


class TargetTooLong(InputError):
    """RFC 9110, 15.5.15."""

    http_status = 414


@dataclass(frozen=True)
class Caller:
    """Who asks, as far as the door knows. ``reads`` and ``writes`` are what this door lets them do."""

    door: str  # "control" or "status"
    name: str = ""
    reads: bool = True
    writes: bool = False


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, understood."""

    method: str
    path: str
    names: Mapping[str, str]  # from the pattern
    query: Mapping[str, str]
    headers: Mapping[str, str]  # lower-case names; the last one wins
    body: bytes
    caller: Caller

    def json(self) -> Fields:
        """The body's fields. Raises InputError."""
        return Fields(object_untrusted(self.body))

    def asked(self) -> Fields:
        """The query's fields."""
        return Fields(self.query, "query")

    def accepts(self, *types: str) -> bool:
        """Whether the caller names one of these media types himself (``*/*`` does not count)."""
        named = {part.partition(";")[0].strip().lower() for part in self.headers.get("accept", "").split(",")}
        return not named.isdisjoint(types)


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Stream:
    """A response that is told piece by piece, at the reader's pace.

    An ``endless`` one (a follow, a watch) is ended politely when the server stops and as soon as the reader hangs up;
    the others are finished or, visibly, cut.
    """

    chunks: AsyncGenerator[bytes, None]
    content_type: str
    endless: bool = False
    heartbeat: bytes = b""  # sent when nothing else was for a while
    headers: tuple[tuple[str, str], ...] = ()


Reply = Answer | Stream
Handler = Callable[[Request], Awaitable[Reply]]


def json_answer(value: Any, *, status: int = 200) -> Answer:
    """Anything ``wire.plain`` knows."""
    return Answer(dumps(value) + b"\n", status=status)


@dataclass(frozen=True)
class Parameter:
    """A query parameter, or one in the path, for the document."""

    name: str
    summary: str
    type: str = "string"  # of JSON Schema
    needed: bool = False  # those in the path are anyway


@dataclass(frozen=True, kw_only=True)
class Route:
    """One resource and method. ``reads``: a reader may ask it; ``control``: only on the control socket.

    ``waits``: the answer may take as long as a unit does, so it matters whether anybody still waits for it.
    """

    method: str
    pattern: str
    handler: Handler
    summary: str
    answer: str  # what comes back, in words
    schema: Any = None  # a dataclass, a list of one (``list[X]``), or a JSON Schema
    content_type: str = "application/json"
    more_types: tuple[str, ...] = ()  # what else may come, when it is asked for
    status: int = 200  # of a good answer
    reads: bool = True
    control: bool = False
    public: bool = False  # needs no token
    waits: bool = False
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Any] | None = None  # JSON Schema of the request
    statuses: Mapping[int, str] = field(default_factory=dict)  # other answers worth a word

    @property
    def segments(self) -> tuple[str, ...]:
        """The pattern, cut at the slashes."""
        return tuple(self.pattern.split("/")[1:])


@dataclass(frozen=True)
class Found:
    """The route for a request, with the names of its pattern and the query."""

    route: Route
    path: str
    names: Mapping[str, str]
    query: Mapping[str, str]


@dataclass(frozen=True)
class WrongMethod:
    """The resource exists, but not so."""

    path: str
    allowed: tuple[str, ...]


class Router:
    """The routes of one door. ``more``: those that are made when something is asked for that is not among the first."""

    def __init__(self, routes: Iterable[Route], more: Callable[[], Iterable[Route]] | None = None) -> None:
        self._more = more
        self._by_length: dict[int, list[Route]] = {}
        self._add(routes)

    def _add(self, routes: Iterable[Route]) -> None:
        for route in routes:
            self._by_length.setdefault(len(route.segments), []).append(route)
        for same_length in self._by_length.values():  # literal segments win over names
            same_length.sort(key=lambda route: [segment.startswith("{") for segment in route.segments])

    def find_untrusted(self, method: str, target: bytes) -> Found | WrongMethod:
        """Raises InputError for a target that is none, NotFoundError for one that leads nowhere, UnavailableError."""
        path, query = split_target_untrusted(target)
        pieces = [decode_untrusted(piece) for piece in path.split(b"/")[1:]]
        shown = "/" + "/".join(pieces)
        matches: dict[str, Found] = {}
        for route in self._by_length.get(len(pieces), ()):
            names = _match(route.segments, pieces)
            if names is not None:
                matches.setdefault(route.method, Found(route, shown, names, query))
        if self._more is not None and ("GET" if method == "HEAD" else method) not in matches:
            try:
                more = tuple(self._more())
            except (ImportError, OSError, MemoryError) as error:  # tried again with the next request
                raise UnavailableError(f"cannot load what answers {shown}: {error}", where=shown) from error
            self._more = None
            self._add(more)
            return self.find_untrusted(method, target)
        if not matches:
            raise NotFoundError(f"cannot find {shown}: no such resource", where=shown)
        found = matches.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = set(matches) | ({"HEAD"} if "GET" in matches else set())
            return WrongMethod(shown, tuple(sorted(allowed)))
        return found


def _match(segments: tuple[str, ...], pieces: list[str]) -> dict[str, str] | None:
    names: dict[str, str] = {}
    for segment, piece in zip(segments, pieces, strict=True):
        if segment.startswith("{"):
            if not piece:
                return None
            names[segment[1:-1]] = piece
        elif segment != piece:
            return None
    return names


def split_target_untrusted(target: bytes) -> tuple[bytes, dict[str, str]]:
    """Path (still encoded) and query of an origin-form or absolute-form target (RFC 9112, 3.2). Raises InputError."""
    if target[:7].lower() == b"http://":  # a server must take it; whom it names is the Host header's business
        target = b"/" + target[7:].partition(b"/")[2]
    if len(target) > TARGET_MAX:
        raise TargetTooLong(f"cannot read the request target: it is longer than {TARGET_MAX} bytes")
    if not target.startswith(b"/"):
        raise InputError("cannot read the request target: it must begin with /")
    path, _, query_bytes = target.partition(b"#")[0].partition(b"?")
    query: dict[str, str] = {}
    for pair in query_bytes.split(b"&"):
        if pair:
            name, _, value = pair.replace(b"+", b" ").partition(b"=")
            query[decode_untrusted(name)] = decode_untrusted(value)
    return path, query


def decode_untrusted(text: bytes) -> str:
    """Undo %-encoding (RFC 3986, 2.1); the result must be UTF-8 without control characters. Raises InputError."""
    out = bytearray()
    position = 0
    while position < len(text):
        byte = text[position]
        if byte == 0x25:
            digits = text[position + 1 : position + 3]
            if len(digits) != 2 or not HEX.issuperset(digits):
                raise InputError("cannot read the request target: % without two hex digits")
            byte = int(digits, 16)
            position += 2
        out.append(byte)
        position += 1
    try:
        decoded = out.decode()
    except UnicodeDecodeError:
        raise InputError("cannot read the request target: it is not UTF-8") from None
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in decoded):
        raise InputError("cannot read the request target: it has a control character")
    return decoded
