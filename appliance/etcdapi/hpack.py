"""Header compression of HTTP/2, the receiving side (RFC 7541). Pure.

The sending side needs none of it: our few header blocks are constants of literals (see ``http2``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate

from appliance.errors import InputError

TABLE_SIZE_MAX = 4096  # octets, as SETTINGS_HEADER_TABLE_SIZE stands when we say nothing

Header = tuple[bytes, bytes]

# Appendix A, the values that are not empty written after "=".
_STATIC = [
    (name.encode(), value.encode())
    for name, _, value in (
        entry.partition("=")
        for entry in (  # noqa: SIM905 (two pages shorter)
            ":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|"
            ":status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|"
            "accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|"
            "authorization|cache-control|content-disposition|content-encoding|content-language|content-length|"
            "content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|"
            "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|"
            "proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|"
            "strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
        ).split("|")
    )
]

# Appendix B. The code is canonical, so the lengths (one letter a symbol, "a" is one bit) say all; the last is EOS.
_LENGTHS = (
    "mwBBBBBBBxDBBDBBBBBBBBDBBBBBBBBBfjjlmfhkjjhkhfffeeefffffffghofljmfgggggggggggggggggggggghghmsmnfoefe"
    "fefffeggfffefgfeefgggggoknmBtvttvvvwvwwwwwxwxxvwxwwwwuvwvwwxvutvvwwuwvvxuvwwuuvuwvwwtvvvwvvwzztsvwvy"
    "zzz{{zxysuz{{z{xuuzzB{{{txtuvuuwvvyyxxzwz{zz{{{{{B{{{{{zD"
)


def _lengths() -> list[int]:
    """One per symbol: letters count from "a" = 1; "B" and "D" stand for 28 and 30."""
    return [{"B": 28, "D": 30}.get(letter, ord(letter) - 96) for letter in _LENGTHS]


def _canonical() -> tuple[list[int], list[tuple[int, int, int]], bytes]:
    """First left-aligned 30-bit code of each length; (length, first code, first place) of each; symbols in order."""
    lengths = _lengths()
    order = sorted(range(257), key=lambda symbol: (lengths[symbol], symbol))
    firsts: list[int] = []
    rows: list[tuple[int, int, int]] = []
    codes = accumulate([0, *(1 << (30 - lengths[symbol]) for symbol in order[:-1])])
    for place, (symbol, code) in enumerate(zip(order, codes, strict=True)):
        if not rows or rows[-1][0] != lengths[symbol]:
            firsts.append(code)
            rows.append((lengths[symbol], code, place))
    return firsts, rows, bytes(symbol for symbol in order if symbol != 256)


_FIRSTS, _ROWS, _SYMBOLS = _canonical()
_seen: dict[bytes, bytes] = {}  # the same user agents and paths come again and again


def decode_huffman_untrusted(data: bytes) -> bytes:
    """The string behind the code (section 5.2). Raises InputError: EOS inside, or padding that is not its prefix."""
    known = _seen.get(data)
    if known is not None:
        return known
    out = bytearray()
    bits = count = 0
    position, end = 0, len(data)
    while True:
        while count < 30 and position < end:
            bits = bits << 8 | data[position]
            count += 8
            position += 1
        if count < 8 and bits == (1 << count) - 1:
            break
        window = bits >> (count - 30) if count >= 30 else bits << (30 - count)
        length, first, place = _ROWS[bisect_right(_FIRSTS, window) - 1]
        place += (window - first) >> (30 - length)
        if length > count or place >= 256:
            raise InputError("cannot read a header: its Huffman code does not end well")
        out.append(_SYMBOLS[place])
        count -= length
        bits &= (1 << count) - 1
    text = bytes(out)
    if len(data) <= 64 and len(_seen) < 1024:
        _seen[data] = text
    return text


class Decoder:
    """The dynamic table of one connection. ``generation`` moves when the table does: blocks cached before are stale."""

    __slots__ = ("_entries", "_room", "_size", "generation", "list_size_max")

    def __init__(self, *, list_size_max: int = 65536) -> None:
        self._entries: deque[Header] = deque()  # newest first
        self._size = 0
        self._room = TABLE_SIZE_MAX
        self.generation = 0
        self.list_size_max = list_size_max

    def decode_untrusted(self, block: bytes) -> list[Header] | None:
        """The headers in order; None when they are larger than allowed (the table is kept right all the same).

        Raises InputError when the block breaks the rules: the whole connection is lost then (section 4.3 of RFC 9113).
        """
        headers: list[Header] = []
        total = position = 0
        end = len(block)
        while position < end:
            octet = block[position]
            if octet & 0x80:
                index, position = _integer(block, position, 7)
                header = self._entry(index)
            elif octet & 0xE0 == 0x20:
                room, position = _integer(block, position, 5)
                if room > TABLE_SIZE_MAX or headers:
                    raise InputError(f"cannot read headers: a table size of {room} here is not allowed")
                self._room = room
                self._evict()
                continue
            else:
                index, position = _integer(block, position, 6 if octet & 0x40 else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, position = _string(block, position)
                value, position = _string(block, position)
                header = (name, value)
                if octet & 0x40:
                    self._insert(header)
            total += len(header[0]) + len(header[1]) + 32
            if total <= self.list_size_max:
                headers.append(header)
        return headers if total <= self.list_size_max else None

    def _entry(self, index: int) -> Header:
        if 0 < index < 62:
            return _STATIC[index - 1]
        if 62 <= index < 62 + len(self._entries):
            return self._entries[index - 62]
        raise InputError(f"cannot read headers: nothing has index {index}")

    def _insert(self, header: Header) -> None:
        self._entries.appendleft(header)
        self._size += len(header[0]) + len(header[1]) + 32
        self._evict()

    def _evict(self) -> None:
        self.generation += 1
        while self._size > self._room:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + 32


def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    mask = (1 << bits) - 1
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    for shift in range(0, 28, 7):
        if position >= len(block):
            break
        octet = block[position]
        position += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, position
    raise InputError("cannot read headers: a number does not end")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    if position >= len(block):
        raise InputError("cannot read headers: a string is missing")
    coded = block[position] & 0x80
    length, position = _integer(block, position, 7)
    end = position + length
    if end > len(block):
        raise InputError("cannot read headers: a string is cut short")
    text = block[position:end]
    return (decode_huffman_untrusted(text) if coded else text), end
