"""How bytes come here: http(s), a directory (a mounted stick, a share), one exported file. Used by the worker only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from appliance.errors import ApplianceError, InputError, NotFoundError, UnavailableError, UntrustedError
from appliance.host import clock, files
from appliance.host.access import Limits
from appliance.host.slots import reading
from appliance.update.mirrors import Mirrors
from appliance.update.transport import Place, Transport

if TYPE_CHECKING:
    from appliance.host.web import Answer, WebClient

_PIECE = 1 << 20
_ASKED_BY_NUMBER = re.compile(r"/\d+\.root\.json")  # the next root: that there is none is the usual answer
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)")


class Fetcher(Protocol):
    """Where a repository's files come from."""

    def open_at(self, url: str, offset: int, end: int | None = None) -> tuple[int, Iterator[bytes]]:
        """The bytes from ``offset`` to before ``end``, or all of them where the server cannot do that; and from where.

        Raises NotFoundError, UnavailableError; so does the iterator.
        """

    def blame(self, why: str) -> int:
        """What came last was wrong: another is asked next. How many others there are."""

    def close(self) -> None:
        """Give up connections."""


def fetcher_for(transport: Transport, mirrors: Mirrors | None = None) -> tuple[Fetcher, str]:
    """The fetcher, and the repository's base URL as the fetcher wants it. Raises InputError."""
    found = [_of_place(place, transport.limits) for place in transport.places]
    if len(found) == 1 and isinstance(found[0][0], DirectoryFetcher | ArchiveFetcher):
        return found[0]
    base = found[0][1]
    return MirroredFetcher(found, mirrors or _Listed(len(found)), transport.rate_limit), base


def _of_place(place: Place, limits: Limits) -> tuple[Fetcher, str]:
    if place.url.startswith(("http://", "https://")):
        return HttpFetcher(place, limits), place.url.rstrip("/")
    from appliance.host.web import path_of_file_url

    path = path_of_file_url(place.url)
    if files.is_file(path):
        return ArchiveFetcher(path), ""
    return DirectoryFetcher(), path.rstrip("/")


def _of_file(path: str, offset: int, end: int) -> Iterator[bytes]:
    with reading(path) as file:
        while offset < end:
            piece = file.at(offset, min(_PIECE, end - offset))
            if not piece:
                return
            yield piece
            offset += len(piece)


class DirectoryFetcher:
    """Files of this host; the "URL" is a path."""

    def open_at(self, url: str, offset: int, end: int | None = None) -> tuple[int, Iterator[bytes]]:
        """From a file."""
        if not files.exists(url):
            raise NotFoundError(f"cannot read {url}: there is no such file", where=url)
        return offset, _of_file(url, offset, files.file_stat(url).size if end is None else end)

    def blame(self, why: str) -> int:
        """There is no other."""
        return 0

    def close(self) -> None:
        """Nothing is kept open."""


class ArchiveFetcher:
    """One exported file; the "URL" is a path in it."""

    def __init__(self, path: str) -> None:
        """Raises InputError: it is no such file."""
        from appliance.host.archive_file import list_archive

        self._path = path
        self._places = list_archive(path)

    def open_at(self, url: str, offset: int, end: int | None = None) -> tuple[int, Iterator[bytes]]:
        """From where it lies in the file."""
        place = self._places.get(url.lstrip("/"))
        if place is None:
            raise NotFoundError(f"cannot read {url}: {self._path} does not hold it", where=self._path)
        start, size = place
        return offset, _of_file(self._path, start + offset, start + min(size, size if end is None else end))

    def blame(self, why: str) -> int:
        """There is no other."""
        return 0

    def close(self) -> None:
        """Nothing is kept open."""


class HttpFetcher:
    """One server."""

    def __init__(self, place: Place, limits: Limits) -> None:
        self._place, self._limits = place, limits
        self._client: WebClient | None = None
        self._without_ranges = False

    def open_at(self, url: str, offset: int, end: int | None = None) -> tuple[int, Iterator[bytes]]:
        """A Range request unless all is wanted; any static file server will do."""
        if self._client is None:
            from appliance.host.web import WebClient, check_url

            if problem := check_url(self._place.url):
                raise InputError(f"cannot use {self._place.url}: {problem}", where=self._place.url)
            self._client = WebClient(self._place.access, self._limits, home=self._place.url)
        ranged = (offset > 0 or end is not None) and not self._without_ranges
        said = f"bytes={offset}-" + (str(end - 1) if end is not None else "")
        answer = self._client.get(url, {"Range": said} if ranged else {})
        if answer.status == 206 and ranged:
            if _is_answer_to(answer, offset, end) and not _encoding(answer):
                return offset, answer.pieces
            answer.close()
            self._without_ranges = True  # another range than asked for: then rather all of it
            return self.open_at(url, 0)
        if answer.status == 200:
            self._without_ranges = self._without_ranges or ranged
            return 0, _decoded(answer, url, self._place.url)
        answer.close()
        if ranged and answer.status == 416:
            self._without_ranges = True
            return self.open_at(url, 0)
        where = self._place.url
        if answer.status in (403, 404, 410):
            raise NotFoundError(f"cannot fetch {url}: the server answers {answer.status}", where=where)
        if answer.status in (401, 407):
            raise UnavailableError(f"cannot fetch {url}: the server answers {answer.status}: credentials", where=where)
        raise UnavailableError(f"cannot fetch {url}: the server answers {answer.status}", where=where)

    def blame(self, why: str) -> int:
        """There is no other."""
        return 0

    def close(self) -> None:
        """Give up connections."""
        if self._client is not None:
            self._client.close()


def _encoding(answer: Answer) -> str:
    """How a server packed what it was asked to send as it is; empty as it should be."""
    said = answer.headers.get("content-encoding", "").strip().lower()
    return "" if said == "identity" else said


def _decoded(answer: Answer, url: str, where: str) -> Iterator[bytes]:
    """The bytes of the file: some buckets and caches send gzip whatever they are asked for."""
    encoding = _encoding(answer)
    if not encoding:
        return answer.pieces
    if encoding not in ("gzip", "x-gzip"):
        answer.close()
        raise UnavailableError(
            f"cannot fetch {url}: the server sends it as {encoding}, which nobody asked for: switch that off there",
            where=where,
        )
    return _unzipped(answer.pieces, url, where)


def _unzipped(pieces: Iterator[bytes], url: str, where: str) -> Iterator[bytes]:
    """Never much more in memory than one piece, however much is made of it."""
    import zlib

    unpacking = zlib.decompressobj(wbits=31)
    try:
        for piece in pieces:
            while piece:
                yield unpacking.decompress(piece, _PIECE)
                piece = unpacking.unconsumed_tail
    except zlib.error as exc:
        raise UnavailableError(f"cannot fetch {url}: its gzip is damaged: {exc}", where=where) from exc
    finally:
        if close := getattr(pieces, "close", None):
            close()
    if not unpacking.eof:
        raise UnavailableError(f"cannot fetch {url}: its gzip ends too soon", where=where)


def _is_answer_to(answer: Answer, offset: int, end: int | None) -> bool:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    return match is not None and int(match[1]) == offset and (end is None or int(match[2]) < end)


class _Listed:
    """All mirrors, as they are listed; nothing is remembered."""

    def __init__(self, count: int) -> None:
        self._bad = [0] * count

    def order(self) -> list[int]:
        return sorted(range(len(self._bad)), key=lambda number: (self._bad[number], number))

    def failed(self, number: int, why: str) -> None:
        self._bad[number] += 1

    def worked(self, number: int) -> None:
        self._bad[number] = 0


class MirroredFetcher:
    """Several places of one repository, the first that does what it should, at most so fast."""

    def __init__(self, places: list[tuple[Fetcher, str]], mirrors: Mirrors, rate_limit: int) -> None:
        self._places, self._mirrors, self._rate_limit = places, mirrors, rate_limit
        self._last = 0
        self._paid_until = 0.0  # when the bytes that came would have come at the limit

    def open_at(self, url: str, offset: int, end: int | None = None) -> tuple[int, Iterator[bytes]]:
        """From the first place that has it."""
        base = self._places[0][1]
        errors: list[ApplianceError] = []
        for number in self._mirrors.order():
            fetcher, mirror = self._places[number]
            try:
                start, pieces = fetcher.open_at(mirror + url.removeprefix(base), offset, end)
            except NotFoundError as exc:
                errors.append(exc)
                if _ASKED_BY_NUMBER.search(url):
                    raise
            except ApplianceError as exc:
                errors.append(exc)
                self._mirrors.failed(number, exc.message)
            else:
                self._last = number
                return start, self._watched(number, pieces)
        if len(errors) == 1:
            raise errors[0]
        missing = all(isinstance(error, NotFoundError) for error in errors)
        said = "; ".join(error.message for error in errors)
        raise (NotFoundError if missing else UnavailableError)(said, where=url)

    def blame(self, why: str) -> int:
        """What came last was wrong: another is asked next. How many others there are."""
        self._mirrors.failed(self._last, why)
        return len(self._places) - 1

    def close(self) -> None:
        """Give up connections."""
        for fetcher, _ in self._places:
            fetcher.close()

    def _watched(self, number: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            for piece in pieces:
                yield piece
                if self._rate_limit:
                    now = clock.monotonic_seconds()
                    self._paid_until = max(self._paid_until, now) + len(piece) / self._rate_limit
                    if self._paid_until > now:
                        clock.sleep(self._paid_until - now)
        except ApplianceError as exc:
            self._mirrors.failed(number, exc.message)
            raise
        self._mirrors.worked(number)


def fetch_bytes(fetcher: Fetcher, url: str, *, size_max: int) -> bytes:
    """A small file. Raises UntrustedError when there is more than ``size_max`` of it (endless data)."""
    others = 1
    while True:
        data = bytearray()
        try:
            _, pieces = fetcher.open_at(url, 0)
            for piece in pieces:
                data += piece
                if len(data) > size_max:
                    raise UntrustedError(
                        f"cannot take {url}: it is longer than the {size_max} bytes it may have", where=url
                    )
            return bytes(data)
        except UnavailableError:  # in the middle: another mirror may do better, once
            if not others or not data:
                raise
            others = 0
