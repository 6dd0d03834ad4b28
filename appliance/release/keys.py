"""A directory of private keys: PEM files named for what they sign, readable by their owner alone.

Which key signs what is said by the metadata, by key id; a file's name is only for people. So root keys may lie on
different sticks, and a directory may hold any of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey

from appliance.errors import ConflictError, InputError
from appliance.host import files


class KeyRing:
    """The keys below one directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._signers: dict[str, CryptoSigner] = {}
        self.names: dict[str, str] = {}  # key id -> file name
        for name in files.list_directory(directory):
            if name.endswith(".pem"):
                self._load(name)

    def _load(self, name: str) -> None:
        path = f"{self.directory}/{name}"
        if files.file_stat(path).mode & 0o077:
            raise InputError(f"cannot use key {path}: others may read it (chmod 600 {path})", where=path)
        try:
            signer = CryptoSigner(load_pem_private_key(files.read_bytes(path, size_max=1 << 16), None))
        except (ValueError, TypeError) as exc:
            raise InputError(f"cannot read key {path}: {exc}", where=path) from exc
        keyid = signer.public_key.keyid
        self._signers[keyid] = signer
        self.names[keyid] = name.removesuffix(".pem")

    def named(self, name: str) -> SSlibKey | None:
        """The public half of the key in ``NAME.pem``."""
        for keyid, found in self.names.items():
            if found == name:
                return self._signers[keyid].public_key
        return None

    def make(self, name: str) -> SSlibKey:
        """A new ed25519 key. Raises ConflictError: keys are never written over."""
        path = f"{self.directory}/{name}.pem"
        if files.exists(path):
            raise ConflictError(f"cannot make key {path}: it exists", where=path)
        files.make_directory(self.directory, mode=0o700)
        files.write_atomic(path, CryptoSigner.generate_ed25519().private_bytes, mode=0o600)
        self._load(f"{name}.pem")
        key = self.named(name)
        assert key is not None
        return key

    def signers(self, role: str, keyids: Iterable[str], threshold: int) -> list[CryptoSigner]:
        """Every signer of the role that is here. Raises InputError when they are fewer than the threshold."""
        wanted = list(keyids)
        found = [self._signers[keyid] for keyid in wanted if keyid in self._signers]
        if len(found) < threshold:
            missing = ", ".join(keyid[:12] for keyid in wanted if keyid not in self._signers)
            raise InputError(
                f"cannot sign {role}: {threshold} of its {len(wanted)} keys are needed, {self.directory} holds "
                f"{len(found)} (missing: {missing})",
                where=self.directory,
            )
        return found

    def may_sign(self, keyids: Iterable[str], threshold: int) -> bool:
        """Whether enough of those keys are here."""
        return sum(keyid in self._signers for keyid in keyids) >= threshold
