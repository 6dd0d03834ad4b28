"""What is kept instead of a password: scrypt of it, 16 MiB and some 50 ms per guess. Pure, and meant for a thread."""

from __future__ import annotations

import base64
import hashlib
import hmac

from appliance.host import entropy

_N, _R, _P = 1 << 14, 8, 1


def secret_of(password: str) -> str:
    """``scrypt$N$r$p$salt$hash``."""
    salt = bytes.fromhex(entropy.token(16))
    return "$".join(("scrypt", str(_N), str(_R), str(_P), _text(salt), _text(_hash(password, salt, _N, _R, _P))))


def matches(secret: str, password: str) -> bool:
    """Whether the secret was made of this password."""
    kind, *rest = secret.split("$")
    if kind != "scrypt" or len(rest) != 5:
        return False
    n, r, p = (int(each) for each in rest[:3])
    salt, wanted = (base64.b64decode(each) for each in rest[3:])
    return hmac.compare_digest(_hash(password, salt, n, r, p), wanted)


def _hash(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
