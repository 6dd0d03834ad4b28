"""What is kept instead of a password: bcrypt of it, as an etcd does, so that snapshots take it along both ways.

Pure, and meant for a thread: some 50 ms per guess.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

COST = 10
_BYTES_MAX = 72  # bcrypt looks at no more


def secret_of(password: str, cost: int = COST) -> str:
    """``$2a$COST$SALT_AND_HASH``."""
    import bcrypt

    return bcrypt.hashpw(password.encode()[:_BYTES_MAX], bcrypt.gensalt(cost, prefix=b"2a")).decode()


def matches(secret: str, password: str) -> bool:
    """Whether the secret was made of this password."""
    if secret.startswith("$2"):
        import bcrypt

        try:
            return bcrypt.checkpw(password.encode()[:_BYTES_MAX], secret.encode())
        except ValueError:  # no hash
            return False
    return _matches_scrypt(secret, password)


def _matches_scrypt(secret: str, password: str) -> bool:
    """``scrypt$N$r$p$salt$hash``: what was kept at first."""
    kind, *rest = secret.split("$")
    if kind != "scrypt" or len(rest) != 5:
        return False
    n, r, p = (int(each) for each in rest[:3])
    salt, wanted = (base64.b64decode(each) for each in rest[3:])
    found = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)
    return hmac.compare_digest(found, wanted)
