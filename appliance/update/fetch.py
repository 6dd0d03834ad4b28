"""How bytes come here: http(s) by httpx, or from a directory (a mounted stick, a share). Used by the worker only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from appliance.errors import NotFoundError, UnavailableError, UntrustedError
from appliance.host import clock, files
from appliance.host.slots import RealSlotCalls, file_size

if TYPE_CHECKING:
    import ssl

    import httpx

_PIECE = 256 << 10
_SLOW_WINDOW_SECONDS = 60.0
_SLOW_BYTES_MIN = 60 << 10  # in that window: under 1 KiB/s is an attack or no use
_SYSTEM_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class Fetcher(Protocol):
    """Where a repository's files come from."""

    def open_at(self, url: str, offset: int) -> tuple[int, Iterator[bytes]]:
        """The bytes from ``offset`` on, or from 0 where the server cannot do that; and from where they are.

        Raises NotFoundError, UnavailableError; so does the iterator.
        """

    def close(self) -> None:
        """Give up connections."""


def fetcher_for(repository: str) -> tuple[Fetcher, str]:
    """The fetcher, and the repository's base URL as the fetcher wants it."""
    if repository.startswith(("http://", "https://")):
        return HttpFetcher(), repository.rstrip("/")
    return DirectoryFetcher(), repository.removeprefix("file://").rstrip("/")


class DirectoryFetcher:
    """Files of this host; the "URL" is a path."""

    def open_at(self, url: str, offset: int) -> tuple[int, Iterator[bytes]]:
        """Always whole: reading again costs nothing."""
        if not files.exists(url):
            raise NotFoundError(f"cannot read {url}: there is no such file", where=url)
        return 0, RealSlotCalls().pieces(url)

    def close(self) -> None:
        """Nothing is kept open."""


class HttpFetcher:
    """One client, so that connections are kept; limits on time, not on length (whoever asks knows the length)."""

    def __init__(self) -> None:
        import httpx

        self._httpx = httpx
        self._client: httpx.Client | None = None

    def open_at(self, url: str, offset: int) -> tuple[int, Iterator[bytes]]:
        """A Range request when ``offset`` is not 0; any static file server will do."""
        if self._client is None:
            timeout = self._httpx.Timeout(30.0, connect=15.0)
            verify: ssl.SSLContext | bool = _tls_context() if url.startswith("https:") else False
            self._client = self._httpx.Client(
                timeout=timeout, verify=verify, follow_redirects=True, max_redirects=5,
                headers={"User-Agent": "appliance", "Accept-Encoding": "identity"},
            )  # fmt: skip
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            response = self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
        except (self._httpx.HTTPError, self._httpx.InvalidURL, ValueError) as exc:
            raise UnavailableError(f"cannot fetch {url}: {exc or type(exc).__name__}", where=url) from exc
        status = response.status_code
        if offset and status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            return offset, self._body(response, url)
        if status == 200:
            return 0, self._body(response, url)
        response.close()
        if offset:  # 416, or a range that is not the one we asked for
            return self.open_at(url, 0)
        if status in (403, 404, 410):
            raise NotFoundError(f"cannot fetch {url}: the server answers {status}", where=url)
        raise UnavailableError(f"cannot fetch {url}: the server answers {status}", where=url)

    def close(self) -> None:
        """Give up connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _body(self, response: httpx.Response, url: str) -> Iterator[bytes]:
        window_start, window_bytes = clock.monotonic_seconds(), 0
        try:
            for piece in response.iter_raw():  # not decoded: what is signed is what lies on the server
                yield piece
                window_bytes += len(piece)
                now = clock.monotonic_seconds()
                if now - window_start > _SLOW_WINDOW_SECONDS:
                    if window_bytes < _SLOW_BYTES_MIN:
                        raise UnavailableError(f"cannot fetch {url}: under 1 KiB/s for a minute", where=url)
                    window_start, window_bytes = now, 0
        except (self._httpx.HTTPError, self._httpx.StreamError, ValueError) as exc:
            raise UnavailableError(f"cannot fetch {url}: {exc or type(exc).__name__}", where=url) from exc
        finally:
            response.close()


def _tls_context() -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context()
    for path in _SYSTEM_CERTIFICATES:
        if file_size(path):
            context.load_verify_locations(path)
            return context
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context


def fetch_bytes(fetcher: Fetcher, url: str, *, size_max: int) -> bytes:
    """A small file. Raises UntrustedError when there is more than ``size_max`` of it (endless data)."""
    data = bytearray()
    _, pieces = fetcher.open_at(url, 0)
    for piece in pieces:
        data += piece
        if len(data) > size_max:
            raise UntrustedError(f"cannot take {url}: it is longer than the {size_max} bytes it may have", where=url)
    return bytes(data)
