"""A TUF repository in memory that a test bends as it likes, its server, and our host's trust code as its client.

The protocol of the client is that of the TUF project's conformance suite (theupdateframework/tuf-conformance,
CLIENT-CLI.md): begin with a trusted root; refresh; download a path; what is trusted lies in a directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib import parse

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from appliance.errors import ApplianceError
from appliance.update import Offer, Repository
from appliance.update.worker import download
from tests.update.listening import listening

TOP = ("targets", "snapshot", "timestamp")
UP = ("snapshot", "timestamp")


class Simulator:
    """``mds`` is what the publisher has, ``signed`` what was published of each role: bytes by version."""

    def __init__(self) -> None:
        self.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
        self.mds: dict[str, Metadata[Any]] = {
            "root": Metadata(Root(expires=self.expires)), "targets": Metadata(Targets(expires=self.expires)),
            "snapshot": Metadata(Snapshot(expires=self.expires)),
            "timestamp": Metadata(Timestamp(expires=self.expires)),
        }  # fmt: skip
        self.signers: dict[str, dict[str, CryptoSigner]] = {}
        self.signed: dict[str, dict[int, bytes]] = {}
        self.artifacts: dict[str, bytes] = {}
        self.hashes: dict[str, set[str]] = {}
        self.with_hashes = False
        self.asked: list[tuple[str, int | None]] = []  # metadata
        self.fetched: list[str] = []  # targets
        for role in sorted(TOP_LEVEL_ROLE_NAMES):
            self.add_key(role)
        self.publish("root", *TOP)

    def of(self, role: str) -> Any:
        """Its content."""
        return self.mds[role].signed

    @property
    def root(self) -> Root:
        return self.of("root")  # type: ignore[no-any-return]

    def add_key(self, role: str, signer: CryptoSigner | None = None) -> CryptoSigner:
        """A key more that may sign it, and does."""
        signer = signer or CryptoSigner.generate_ed25519()
        self.root.add_key(signer.public_key, role)
        self.signers.setdefault(role, {})[signer.public_key.keyid] = signer
        return signer

    def new_keys(self, role: str) -> None:
        """All others than before."""
        self.root.roles[role].keyids.clear()
        self.signers[role].clear()
        for _ in range(self.root.roles[role].threshold):
            self.add_key(role)

    def publish(self, *roles: str, version: int = 0) -> None:
        """Each signed in its next version, or in that one; snapshot and timestamp learn what was published before."""
        for role in roles:
            md = self.mds[role]
            md.signed.version = version or (md.signed.version + 1 if role in self.signed else md.signed.version)
            md.signatures.clear()
            for signer in self.signers[role].values():
                md.sign(signer, append=True)
            data = md.to_bytes(JSONSerializer())
            self.signed.setdefault(role, {})[md.signed.version] = data
            known = MetaFile.from_data(md.signed.version, data, ["sha256"]) if self.with_hashes else None
            known = known or MetaFile(md.signed.version)
            if role == "snapshot":
                self.of("timestamp").snapshot_meta = known
            elif role not in ("root", "timestamp"):
                self.of("snapshot").meta[f"{role}.json"] = known

    def add_artifact(self, role: str, data: bytes, path: str) -> None:
        """In the role's metadata, and on the server."""
        target = TargetFile.from_data(path, data, ["sha256"])
        self.of(role).targets[path] = target
        self.artifacts[path] = data
        self.hashes.setdefault(path, set()).update(target.hashes.values())

    def delegate(
        self, above: str, name: str, *, paths: Iterable[str] = ("*",), terminating: bool = False,
        expires: datetime | None = None,
    ) -> None:  # fmt: skip
        """With a key of its own."""
        content = self.of(above)
        content.delegations = content.delegations or Delegations({}, {})
        content.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, list(paths))
        signer = CryptoSigner.generate_ed25519()
        content.add_key(signer.public_key, name)
        self.signers.setdefault(name, {})[signer.public_key.keyid] = signer
        self.mds.setdefault(name, Metadata(Targets(expires=expires or self.expires)))

    def answer(self, path: str) -> bytes | None:
        """What a static server would send; None: 404."""
        folder, _, rest = path.lstrip("/").partition("/")
        if folder == "metadata":
            name = rest.removesuffix(".json")
            if name == "timestamp":
                self.asked.append((name, None))
                return list(self.signed["timestamp"].values())[-1]
            number, _, quoted = name.partition(".")
            self.asked.append((quoted, int(number)))
            return self.signed.get(parse.unquote(quoted), {}).get(int(number))
        directory, slash, file = rest.rpartition("/")
        sha256, _, name = file.partition(".")
        found = f"{directory}{slash}{name}"
        self.fetched.append(found)
        return self.artifacts.get(found) if sha256 in self.hashes.get(found, ()) else None


@contextmanager
def served(simulator: Simulator) -> Iterator[str]:
    """By a real server; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data = simulator.answer(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        yield url


class Client:
    """Our host: each call is a new process as far as it can be told, for nothing is kept but the directory."""

    def __init__(self, place: Path, url: str, trusted_root: bytes) -> None:
        self.metadata, self.targets = place / "metadata", place / "targets"
        self.trusted_root = trusted_root
        self.url = url
        self.last_error = ""

    def refresh(self, *, days: float = 0.0) -> bool:
        """Whether all of it could be trusted; ``days``: by a clock that is so far ahead."""
        return self._do(days, "")

    def download(self, path: str, *, days: float = 0.0) -> bool:
        """Whether it is here now, verified."""
        return self._do(days, path)

    def open(self, *, days: float = 0.0) -> Repository:
        """As the worker does."""
        now = datetime.now(UTC).timestamp() + days * 86400
        return Repository(
            repository=self.url, trust_root=self.trusted_root, directory=str(self.metadata), now=now, floor=0.0
        )

    def _do(self, days: float, path: str) -> bool:
        try:
            repository = self.open(days=days)
            try:
                repository.refresh()
                if path:
                    target, _ = repository.locate(path)
                    offer = Offer(path, "1.0", target.hashes["sha256"], target.length)
                    download(repository, offer, str(self.targets))
            finally:
                repository.close()
        except ApplianceError as error:
            self.last_error = error.message
            return False
        return True

    def trusted(self) -> dict[str, int]:
        """The roles whose metadata is kept, and their versions."""
        found = {}
        for file in self.metadata.glob("*.json"):
            if not file.name.startswith("seen"):  # our own
                found[parse.unquote(file.stem)] = int(Metadata[Any].from_file(str(file)).signed.version)
        roots = [int(file.name.partition(".")[0]) for file in (self.metadata / "root_history").glob("*.root.json")]
        return {**found, "root": max(roots)} if roots else found

    def files(self) -> list[bytes]:
        """What was downloaded."""
        return [file.read_bytes() for file in self.targets.glob("*")] if self.targets.exists() else []
