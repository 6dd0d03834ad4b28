"""Who makes a signature: a PEM file (perhaps with a passphrase), a command, the ssh-agent. All look alike to TUF.

What a command or an agent answers is verified before it is used: a wrong key or a broken pipe is found out here.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key, load_ssh_public_key
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey
from securesystemslib.signer._signature import Signature
from securesystemslib.signer._signer import Signer

from appliance.errors import InputError, UnavailableError
from appliance.host.signing import sign_by_agent, sign_by_command, unpack_string

Passphrase = Callable[[str], bytes | None]
"""Asked with the key's file; None: there is none."""


class KeySigner(Protocol):
    """One key that can sign; its public half is known without a passphrase or a token."""

    @property
    def public_key(self) -> SSlibKey: ...  # noqa: D102

    @property
    def signer(self) -> Signer: ...  # noqa: D102


def read_public(data: bytes, where: str) -> SSlibKey:
    """A public key: PEM, or a line as ssh-keygen writes it. Raises InputError."""
    try:
        ssh = data.startswith((b"ssh-", b"ecdsa-"))
        return SSlibKey.from_crypto(load_ssh_public_key(data.strip()) if ssh else load_pem_public_key(data))
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise InputError(f"cannot read public key {where}: {exc}", where=where) from exc


class FileSigner:
    """A PEM file. An encrypted one is opened when it first signs."""

    def __init__(self, path: str, data: bytes, public: bytes | None, passphrase: Passphrase) -> None:
        self._path, self._data, self._passphrase = path, data, passphrase
        self.encrypted = b"ENCRYPTED" in data
        self._signer: CryptoSigner | None = None
        self.public_key: SSlibKey
        if public is not None and self.encrypted:
            self.public_key = read_public(public, path)
        else:
            self.public_key = self._open().public_key

    @property
    def signer(self) -> Signer:
        """Ready to sign."""
        found = self._open()
        if found.public_key.keyid != self.public_key.keyid:
            raise InputError(f"cannot use key {self._path}: the public half beside it is of another key")
        return found

    def _open(self) -> CryptoSigner:
        if self._signer is None:
            secret = self._passphrase(self._path) if self.encrypted else None
            if self.encrypted and not secret:
                raise InputError(
                    f"cannot open key {self._path}: it has a passphrase (APPLIANCE_KEY_PASSPHRASE, --passphrase-file)",
                    where=self._path,
                )
            try:
                self._signer = CryptoSigner(load_pem_private_key(self._data, secret))
            except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
                said = "the passphrase is wrong, or it is damaged" if self.encrypted else str(exc)
                raise InputError(f"cannot read key {self._path}: {said}", where=self._path) from exc
        return self._signer


class _Outside(Signer):
    """A key whose private half is elsewhere."""

    def __init__(self, public_key: SSlibKey, name: str) -> None:
        self._public_key, self._name = public_key, name

    @property
    def public_key(self) -> SSlibKey:
        return self._public_key

    @property
    def signer(self) -> Signer:
        return self

    @classmethod
    def from_priv_key_uri(cls, *_: object, **__: object) -> Signer:
        raise AssertionError("not used: keys are listed in a directory")

    def sign(self, payload: bytes) -> Signature:
        for found in self._candidates(payload):
            signature = Signature(self._public_key.keyid, found.hex())
            try:
                self._public_key.verify_signature(signature, payload)
            except UnverifiedSignatureError:
                continue
            return signature
        raise UnavailableError(f"cannot sign by {self._name}: what it answers is no signature by that key")

    def _candidates(self, payload: bytes) -> list[bytes]:
        raise NotImplementedError


class CommandSigner(_Outside):
    """A command reads what is to be signed and prints the signature: raw, hex or base64 (PKCS#11, a cloud, a token)."""

    def __init__(self, public_key: SSlibKey, name: str, command: str) -> None:
        super().__init__(public_key, name)
        self._command = command

    def _candidates(self, payload: bytes) -> list[bytes]:
        said = sign_by_command(
            self._command, payload, {"APPLIANCE_KEY_NAME": self._name, "APPLIANCE_KEY_ID": self._public_key.keyid}
        )
        found = [said]
        text = b"".join(said.split())
        for read in (binascii.unhexlify, lambda value: base64.b64decode(value, validate=True)):
            with contextlib.suppress(ValueError):
                found.append(read(text))
        raw = found[-1]
        if self._public_key.keytype == "ecdsa" and len(raw) in (64, 96):  # r and s, as PKCS#11 has them
            half = len(raw) // 2
            found.append(encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")))
        return found


class AgentSigner(_Outside):
    """A key that the ssh-agent holds."""

    def __init__(self, public_key: SSlibKey, name: str, blob: bytes) -> None:
        super().__init__(public_key, name)
        self._blob = blob

    def _candidates(self, payload: bytes) -> list[bytes]:
        kind, rest = unpack_string(sign_by_agent(self._blob, payload))
        raw, _ = unpack_string(rest)
        if kind.startswith(b"ecdsa-"):
            r, rest = unpack_string(raw)
            s, _ = unpack_string(rest)
            return [encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))]
        return [raw]


def agent_blob(line: bytes, where: str) -> bytes:
    """The key as the agent names it, from the line that ssh-keygen wrote. Raises InputError for kinds not used here."""
    words = line.split()
    if len(words) < 2 or words[0] not in (b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384"):
        raise InputError(f"cannot use {where}: it must be the .pub file of an ed25519 or ecdsa SSH key", where=where)
    try:
        return base64.b64decode(words[1], validate=True)
    except binascii.Error as exc:
        raise InputError(f"cannot read {where}: {exc}", where=where) from exc
