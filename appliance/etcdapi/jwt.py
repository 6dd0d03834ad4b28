"""JSON web tokens, as ``etcd --auth-token jwt,...`` makes and takes them: they outlive us, and other members know them.

A token names a user and the revision of users and roles at which it was given; it is void when that has changed.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from appliance.errors import InputError
from appliance.etcdapi.grpc import Code, RefusedError
from appliance.etcdapi.statuses import refused
from appliance.host import clock, files

_HASHES: Mapping[str, type[hashes.HashAlgorithm]] = {
    "256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512,
}  # fmt: skip
_CURVES = {"256": ("secp256r1", 32), "384": ("secp384r1", 48), "512": ("secp521r1", 66)}
METHODS = tuple(kind + bits for kind in ("RS", "PS", "ES", "HS") for bits in _HASHES)


class JwtTokens:
    """See Tokens. Without a private key it knows tokens again, and makes none."""

    def __init__(self, method: str, *, public_key: str = "", private_key: str = "", seconds: float = 300.0) -> None:
        """Keys are paths of PEM files; for HS256 and its like of any file. Raises InputError."""
        if method not in METHODS:
            raise InputError(f'cannot use the sign-method "{method}": it is one of {", ".join(METHODS)}')
        self._method = method
        self._seconds = seconds
        self._secret = b""
        self._private: Any = None
        self._public: Any = None
        if method.startswith("HS"):
            if not private_key:
                raise InputError(f"cannot make tokens by {method}: it takes priv-key")
            self._secret = files.read_bytes(private_key)
            return
        if not private_key and not public_key:
            raise InputError(f"cannot make tokens by {method}: it takes priv-key, pub-key or both")
        try:
            if private_key:
                self._private = serialization.load_pem_private_key(files.read_bytes(private_key), None)
                self._public = self._private.public_key()
            if public_key:
                self._public = _public_key(files.read_bytes(public_key))
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise InputError(f"cannot read the keys of tokens, {public_key} {private_key}: {exc}") from exc
        if not self._fits():
            raise InputError(f"cannot make tokens by {method}: the keys are of another kind")

    def _fits(self) -> bool:
        if self._method.startswith("ES"):
            curve, _ = _CURVES[self._method[2:]]
            return isinstance(self._public, ec.EllipticCurvePublicKey) and self._public.curve.name == curve
        return isinstance(self._public, rsa.RSAPublicKey)

    def give(self, user: str, revision: int) -> bytes:
        """See Tokens."""
        if self._private is None and not self._secret:
            raise RefusedError(Code.UNKNOWN, "auth: token signing attempted with verify-only key")
        head = {"alg": self._method, "typ": "JWT"}
        claims = {"exp": int(clock.wall_seconds() + self._seconds), "revision": revision, "username": user}
        signed = b".".join(_text(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
        return signed + b"." + _text(self._sign(signed))

    def user_of(self, token: bytes, revision: int) -> str:
        """See Tokens."""
        signed, _, signature = token.removeprefix(b"Bearer ").rpartition(b".")
        try:
            head, claims = (json.loads(_bytes(part)) for part in signed.split(b"."))
            if head["alg"] != self._method or not self._holds(signed, _bytes(signature)):
                raise refused("invalid auth token")
            user, given, until = claims["username"], int(claims["revision"]), float(claims["exp"])
        except (ValueError, KeyError, TypeError) as exc:
            raise refused("invalid auth token") from exc
        if not isinstance(user, str) or until <= clock.wall_seconds():
            raise refused("invalid auth token")
        if given < revision:
            raise refused("auth revision old")
        return user

    def forget(self, user: str) -> None:
        """The revision has changed: they are void by that."""

    def clear(self) -> None:
        """They are void by the revision."""

    def _sign(self, data: bytes) -> bytes:
        bits = self._method[2:]
        algorithm = _HASHES[bits]()
        match self._method[:2]:
            case "HS":
                return hmac.digest(self._secret, data, f"sha{bits}")
            case "RS":
                return bytes(self._private.sign(data, padding.PKCS1v15(), algorithm))
            case "PS":
                return bytes(self._private.sign(data, _pss(algorithm), algorithm))
            case _:
                size = _CURVES[bits][1]
                r, s = decode_dss_signature(self._private.sign(data, ec.ECDSA(algorithm)))
                return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def _holds(self, data: bytes, signature: bytes) -> bool:
        bits = self._method[2:]
        algorithm = _HASHES[bits]()
        try:
            match self._method[:2]:
                case "HS":
                    return hmac.compare_digest(hmac.digest(self._secret, data, f"sha{bits}"), signature)
                case "RS":
                    self._public.verify(signature, data, padding.PKCS1v15(), algorithm)
                case "PS":
                    self._public.verify(signature, data, _pss(algorithm), algorithm)
                case _:
                    size = _CURVES[bits][1]
                    if len(signature) != 2 * size:
                        return False
                    r, s = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
                    self._public.verify(encode_dss_signature(r, s), data, ec.ECDSA(algorithm))
        except InvalidSignature:
            return False
        return True


def _public_key(pem: bytes) -> Any:
    """Of a certificate, too, as an etcd takes it."""
    if b"BEGIN CERTIFICATE" in pem:
        return x509.load_pem_x509_certificate(pem).public_key()
    return serialization.load_pem_public_key(pem)


def _pss(algorithm: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)


def _text(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _bytes(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
