"""A directory of keys, named for what they sign. Private ones are readable by their owner alone.

``NAME.pem`` is a private key, with a passphrase if it was made so (``NAME.pub`` beside it then says who it is without
asking for that). ``NAME.signer`` names a key that is elsewhere: a command that signs, or a key of the ssh-agent.
Which key signs what is said by the metadata, by key id; a file's name is only for people. So root keys may lie on
different sticks, and a directory may hold any of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from securesystemslib.signer._key import SSlibKey
from securesystemslib.signer._signer import Signer

from appliance.errors import ConflictError, InputError
from appliance.host import files
from appliance.release.signers import (
    AgentSigner,
    CommandSigner,
    FileSigner,
    KeySigner,
    Passphrase,
    agent_blob,
    read_public,
)

_SIZE_MAX = 1 << 16


class KeyRing:
    """The keys below one directory."""

    def __init__(self, directory: str, *, passphrase: Passphrase = lambda _: None, new_passphrase: bytes = b"") -> None:
        self.directory = directory
        self._new_passphrase = new_passphrase  # of keys that are made
        self._passphrase = passphrase
        self._signers: dict[str, KeySigner] = {}
        self.names: dict[str, str] = {}  # key id -> file name
        self.kinds: dict[str, str] = {}  # key id -> file | file with passphrase | command | ssh-agent
        for name in files.list_directory(directory):
            if name.endswith((".pem", ".signer")):
                self._load(name)

    def _load(self, name: str) -> None:
        path = f"{self.directory}/{name}"
        data = files.read_bytes(path, size_max=_SIZE_MAX)
        signer: KeySigner
        if name.endswith(".signer"):
            signer, kind = self._outside(path, name, data)
        else:
            if files.file_stat(path).mode & 0o077:
                raise InputError(f"cannot use key {path}: others may read it (chmod 600 {path})", where=path)
            beside = path.removesuffix(".pem") + ".pub"
            public = files.read_bytes(beside, size_max=_SIZE_MAX) if files.exists(beside) else None
            signer = FileSigner(path, data, public, self._passphrase)
            kind = "file with passphrase" if signer.encrypted else "file"
        keyid = signer.public_key.keyid
        self._signers[keyid], self.kinds[keyid] = signer, kind
        self.names[keyid] = name.rpartition(".")[0]

    def _outside(self, path: str, name: str, data: bytes) -> tuple[KeySigner, str]:
        try:
            said = json.loads(data)
            line = str(said["public"]).encode()
            kind = "ssh-agent" if said.get("ssh_agent") else "command"
            command = str(said.get("command", ""))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise InputError(f"cannot read signer {path}: {exc!r}", where=path) from exc
        key, short = read_public(line, path), name.removesuffix(".signer")
        if kind == "ssh-agent":
            return AgentSigner(key, short, agent_blob(line, path)), kind
        if not command:
            raise InputError(f"cannot read signer {path}: it names no command", where=path)
        return CommandSigner(key, short, command), kind

    def at(self, directory: str) -> KeyRing:
        """The keys of another directory, opened with the same passphrases."""
        return KeyRing(directory, passphrase=self._passphrase, new_passphrase=self._new_passphrase)

    def named(self, name: str) -> SSlibKey | None:
        """The public half of the key of that name."""
        for keyid, found in self.names.items():
            if found == name:
                return self._signers[keyid].public_key
        return None

    def check_free(self, name: str) -> None:
        """Raises ConflictError: keys are never written over. InputError: no name for a file."""
        if not name or name.startswith(".") or "/" in name:
            raise InputError(f"cannot make key {name!r}: that is no name for a file")
        for ending in (".pem", ".pub", ".signer"):
            path = f"{self.directory}/{name}{ending}"
            if files.exists(path):
                raise ConflictError(f"cannot make key {path}: it exists", where=path)

    def make(self, name: str) -> SSlibKey:
        """A new ed25519 key. Raises ConflictError: keys are never written over."""
        self.check_free(name)
        passphrase = self._new_passphrase
        path = f"{self.directory}/{name}.pem"
        files.make_directory(self.directory, mode=0o700)
        private = Ed25519PrivateKey.generate()
        hidden = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)
        if passphrase:
            public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            files.write_atomic(f"{self.directory}/{name}.pub", public)
        files.write_atomic(path, data, mode=0o600)
        self._load(f"{name}.pem")
        key = self.named(name)
        assert key is not None
        return key

    def connect(self, name: str, public: bytes, *, command: str = "", agent: bool = False) -> SSlibKey:
        """Write down a key that is elsewhere. Raises ConflictError, InputError."""
        self.check_free(name)
        said: dict[str, Any] = {"public": public.decode(errors="replace").strip() + "\n"}
        said |= {"ssh_agent": True} if agent else {"command": command}
        data = (json.dumps(said, indent=1) + "\n").encode()
        self._outside(f"{self.directory}/{name}.signer", f"{name}.signer", data)
        files.make_directory(self.directory, mode=0o700)
        files.write_atomic(f"{self.directory}/{name}.signer", data)
        self._load(f"{name}.signer")
        key = self.named(name)
        assert key is not None
        return key

    def forget(self, name: str) -> None:
        """Remove the files of a key that was just made and is not used."""
        for ending in (".pem", ".pub", ".signer"):
            files.remove(f"{self.directory}/{name}{ending}")
        for keyid in [keyid for keyid, found in self.names.items() if found == name]:
            del self.names[keyid], self._signers[keyid], self.kinds[keyid]

    def signers(self, role: str, keyids: Iterable[str], threshold: int) -> list[Signer]:
        """Every signer of the role that is here. Raises InputError when they are fewer than the threshold."""
        wanted = list(keyids)
        found = [self._signers[keyid].signer for keyid in wanted if keyid in self._signers]
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
