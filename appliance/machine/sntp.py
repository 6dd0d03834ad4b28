"""The client's half of SNTP (RFC 4330, and RFC 5905 for the packet): what to send, what an answer is worth. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from appliance.errors import InputError

PORT = 123
PACKET = struct.Struct("!BBbbIII8s8s8s8s")
_EPOCH = 2_208_988_800  # seconds from 1900 to 1970
_ERA = 1 << 32
_FOR_GOOD = ("DENY", "RSTR")  # RFC 5905, 7.4
_VERSION, _CLIENT, _SERVER, _UNSYNCHRONIZED, _STRATUM_MAX = 4, 3, 4, 3, 15


@dataclass(frozen=True)
class Sample:
    """``offset``: what our clock lacks; ``delay``: there and back without the server's own time. Both in seconds."""

    offset: float
    delay: float
    stratum: int


class Refused(InputError):
    """The server asks to be left alone for good (kiss of death); RATE only asks for patience, which a retry has."""


def request(nonce: bytes) -> bytes:
    """``nonce``: 8 random bytes in place of our time, which is nobody's business; the answer must repeat them."""
    return PACKET.pack(_VERSION << 3 | _CLIENT, 0, 0, 0, 0, 0, 0, bytes(8), bytes(8), bytes(8), nonce)


def read_answer(data: bytes, nonce: bytes, sent: float, received: float) -> Sample:
    """``sent`` and ``received``: by our clock, seconds since 1970. Raises InputError: of no use; Refused."""
    if len(data) < PACKET.size:
        raise InputError(f"cannot use the time: the answer has {len(data)} bytes")
    first, stratum, _, _, _, _, reference, _, origin, arrived, left = PACKET.unpack_from(data)
    if origin != nonce:
        raise InputError("cannot use the time: this answers another question")
    if first & 7 != _SERVER:
        raise InputError("cannot use the time: this is no server's answer")
    if stratum == 0:
        code = reference.to_bytes(4, "big").decode("ascii", "replace").rstrip("\0")
        if code in _FOR_GOOD:
            raise Refused(f"cannot use the time: the server asks to be left alone ({code})")
        raise InputError(f"cannot use the time: the server gives none now ({code})")
    if first >> 6 == _UNSYNCHRONIZED or stratum > _STRATUM_MAX:
        raise InputError("cannot use the time: the server does not know it itself")
    if arrived == bytes(8) or left == bytes(8):
        raise InputError("cannot use the time: the answer has none")
    there, back = _seconds(arrived), _seconds(left)
    delay = (received - sent) - (back - there)
    if delay < -0.001 or back < there:
        raise InputError("cannot use the time: the answer came before the question")
    return Sample(((there - sent) + (back - received)) / 2, max(0.0, delay), stratum)


def encode_time(seconds: float) -> bytes:
    """For a server's answer (tests)."""
    whole, fraction = divmod(seconds + _EPOCH, 1)
    return struct.pack("!II", int(whole) % _ERA, int(fraction * _ERA))


def _seconds(stamp: bytes) -> float:
    """Since 1970. The 32 bits turn over in 2036: what is on this side of it is told by what cannot have been yet."""
    whole, fraction = struct.unpack("!II", stamp)
    era = 0 if whole >= _EPOCH + 1_600_000_000 else _ERA  # before September 2020 there was no appliance
    return float(whole + era - _EPOCH) + float(fraction) / _ERA
