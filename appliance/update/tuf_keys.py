"""Where we see keys in another way than python-tuf. Imported for what it does to python-tuf.

It takes a threshold of ``true`` for one, and of 1.5 for two. It counts names of keys: one key under several names would
reach any threshold alone; we count keys, however they are written. And it refuses all of a root that names a key of a
kind unknown to it: the first publisher to take up a new kind would lose every host that is older, for ever. We cannot
check what such a key signs, so it counts as not signed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer._key import KEY_FOR_TYPE_AND_SCHEME, Key
from securesystemslib.signer._signature import Signature
from tuf.api._payload import Role, Root, Targets, VerificationResult


def same_key(key: Key) -> str:
    """Equal for what is one key, whatever its name, its scheme, and the way it is written."""
    public = "".join(str(key.keyval.get("public", "")).split())
    if public.startswith("-----BEGIN"):
        return _same_pem(str(key.keyval["public"]), public)
    return public.lower()


def _same_pem(pem: str, otherwise: str) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()
    except (ValueError, UnsupportedAlgorithm):  # then it signs nothing either
        return otherwise


def _count_keys_once(original: Callable[..., VerificationResult]) -> Callable[..., VerificationResult]:
    def verify(*args: Any, **named: Any) -> VerificationResult:
        result = original(*args, **named)
        names = {same_key(key): keyid for keyid, key in result.signed.items()}
        once = {keyid: result.signed[keyid] for keyid in names.values()}
        return VerificationResult(result.threshold, once, result.unsigned)

    return verify


class StrangeKey(Key):
    """Of a kind that this version does not know."""

    @classmethod
    def from_dict(cls, keyid: str, key_dict: dict[str, Any]) -> StrangeKey:
        """Raises KeyError, TypeError: it is not even a key."""
        return cls(keyid, *cls._from_dict(key_dict), unrecognized_fields=key_dict)

    def to_dict(self) -> dict[str, Any]:
        """As it was read."""
        return self._to_dict()

    def verify_signature(self, signature: Signature, data: bytes) -> None:
        """Never good, for nobody here can tell."""
        raise UnverifiedSignatureError(f"key {self.keyid} is of the unknown kind {self.keytype} {self.scheme}")


def _keep_strangers(original: Callable[[str, dict[str, Any]], Key]) -> Callable[..., Key]:
    def from_dict(keyid: str, key_dict: dict[str, Any]) -> Key:
        if (key_dict.get("keytype"), key_dict.get("scheme")) in KEY_FOR_TYPE_AND_SCHEME:
            return original(keyid, key_dict)
        return StrangeKey.from_dict(keyid, key_dict)

    return from_dict


def _whole_thresholds(original: Callable[..., None]) -> Callable[..., None]:
    def make(self: Role, keyids: list[str], threshold: int, *others: Any, **named: Any) -> None:
        if type(threshold) is not int:
            raise ValueError(f"threshold {threshold!r} is no whole number")
        original(self, keyids, threshold, *others, **named)

    return make


Role.__init__ = _whole_thresholds(Role.__init__)  # type: ignore[method-assign]
for _delegator in (Root, Targets):
    _delegator.get_verification_result = _count_keys_once(_delegator.get_verification_result)  # type: ignore[method-assign]
Key.from_dict = staticmethod(_keep_strangers(Key.from_dict))  # type: ignore[method-assign]
