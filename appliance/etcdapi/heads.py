"""The headers of calls on one connection: decoded once for as long as the same bytes mean the same. Pure."""

from __future__ import annotations

from appliance.errors import InputError
from appliance.etcdapi.frames import ConnectionLostError, Reason
from appliance.etcdapi.grpc import Code, Head, Methods, RefusedError, read_head_untrusted
from appliance.etcdapi.hpack import Decoder

HEADER_BLOCK_MAX = 65536
_KNOWN_MAX = 256


class Heads:
    """``known`` by their blocks; ask ``read_untrusted`` for others."""

    __slots__ = ("_decoder", "_methods", "known")

    def __init__(self, methods: Methods) -> None:
        self.known: dict[bytes, Head] = {}
        self._methods = methods
        self._decoder = Decoder(list_size_max=HEADER_BLOCK_MAX)

    def read_untrusted(self, block: bytes) -> Head:
        """Raises ConnectionLostError: after that no block can be read any more."""
        generation = self._decoder.generation
        try:
            headers = self._decoder.decode_untrusted(block)
        except InputError as exc:
            raise ConnectionLostError(Reason.COMPRESSION_ERROR, exc.message) from exc
        if headers is None:
            head = Head(None, RefusedError(Code.RESOURCE_EXHAUSTED, "header list is too large"))
        else:
            head = read_head_untrusted(headers, self._methods)
        if self._decoder.generation != generation or len(self.known) >= _KNOWN_MAX:
            self.known.clear()  # the table has moved: the same bytes mean something else now
        if self._decoder.generation == generation:
            self.known[block] = head
        return head
