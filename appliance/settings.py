"""appliance.toml and its fragments -> Settings. Each room owns its section; a file with any error is not used at all.

Fragments (appliance.d/*.toml) merge in name order over the file: tables merge, everything else, lists too, is replaced.
A fragment that is a link to /dev/null counts as absent. A file named with --config is read alone, without fragments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from appliance.errors import ApplianceError, InputError
from appliance.host import files, node
from appliance.host.layout import Layout
from appliance.host.sockets import parse_address
from appliance.machine import MachineSettings, NetworkSettings
from appliance.schema import Document, Duration, Finding, Size, Source, read_merged, to_plain
from appliance.units import UnitsSettings
from appliance.update import UpdateSection

if TYPE_CHECKING:
    from appliance.etcdapi import Listen
    from appliance.external import ExternalStore
    from appliance.store import Retention

SIZE_MAX = 1 << 20  # of one file


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """``[node]``: who this is, among others."""

    name: str = field(
        default="",  # the hostname
        metadata={
            "pattern": r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
            "what": 'a name of letters, digits, ".", "_", "-", at most 63 long',
        },
    )
    labels: Mapping[str, str] = field(default_factory=dict, metadata={"example": '{disk = "ssd"}'})


def _listen_problem(value: str) -> str | None:
    if value == "off":
        return None
    try:
        parse_address(value)
    except InputError as error:
        return f'{error.message}, or "off"'
    return None


@dataclass(frozen=True, kw_only=True)
class StatusSettings:
    """``[status]``: the endpoint that people and monitoring read; it changes nothing."""

    listen: str = field(default="127.0.0.1:7780", metadata={"check": _listen_problem})
    token_file: str | None = field(default=None, metadata={"pattern": r"/.+", "what": "an absolute path"})
    hosts: tuple[str, ...] = field(
        default=(), metadata={"pattern": r"[A-Za-z0-9.-]+", "what": 'a host name such as "node1.example"'}
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """Nobody shows a node to a network without a key, unless on purpose."""
        if self.listen != "off" and self.token_file is None and not parse_address(self.listen).is_loopback:
            yield "listen", f'found "{self.listen}", which others can reach: set token_file, a file with a secret'


_A_FILE = {"pattern": r"/.+", "what": "an absolute path"}


@dataclass(frozen=True, kw_only=True)
class StoreListenSettings:
    """``[store.listen]``: etcd's API for other hosts, and how they prove who they are."""

    address: str = field(default="off", metadata={"check": _listen_problem})
    cert_file: str | None = field(default=None, metadata=_A_FILE)
    key_file: str | None = field(default=None, metadata=_A_FILE)
    client_ca_file: str | None = field(default=None, metadata=_A_FILE)
    insecure: bool = False

    def problems(self) -> Iterator[tuple[str, str]]:
        """Closed unless it is said how it is protected."""
        if (self.cert_file is None) != (self.key_file is None):
            missing = "key_file" if self.key_file is None else "cert_file"
            yield missing, "is missing: cert_file and key_file go together"
        if self.client_ca_file is not None and self.cert_file is None:
            yield "cert_file", "is missing: client_ca_file asks clients for certificates, which needs TLS"
        if self.address == "off" or _listen_problem(self.address):
            return
        if self.insecure and not parse_address(self.address).is_loopback:
            yield "insecure", f'found true with "{self.address}", which others can reach: only loopback may be insecure'
        elif not parse_address(self.address).is_loopback and self.cert_file is None:
            yield "cert_file", (
                f'is missing: others can reach "{self.address}"; set cert_file and key_file, and client_ca_file '
                "(without it every call is refused until authentication is enabled: etcdctl auth enable)"
            )

    def listeners(self) -> tuple[Listen, ...]:
        """For etcdapi."""
        from appliance.etcdapi import Listen
        from appliance.host.tls import TlsFiles

        if self.address == "off":
            return ()
        tls = TlsFiles(self.cert_file, self.key_file, self.client_ca_file) if self.cert_file and self.key_file else None
        return (Listen(parse_address(self.address), tls, trusting=self.insecure),)


@dataclass(frozen=True, kw_only=True)
class StoreExternalSettings:
    """``[store.external]``: the etcd that keeps the appliance's own keys, and who we are to it."""

    endpoints: tuple[str, ...] = field(
        default=(),
        metadata={"pattern": r"https?://[^/@?#]+/?", "what": 'a URL such as "https://10.0.0.1:2379"'},
    )
    ca_file: str | None = field(default=None, metadata=_A_FILE)
    cert_file: str | None = field(default=None, metadata=_A_FILE)
    key_file: str | None = field(default=None, metadata=_A_FILE)
    user: str = ""
    password_file: str | None = field(default=None, metadata=_A_FILE)


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """``[store]``: where keys are kept."""

    mode: Literal["embedded", "external"] = "embedded"
    compaction: Literal["revisions", "periodic", "off"] = "revisions"
    keep_revisions: int = field(default=100_000, metadata={"min": 1})
    keep_time: Duration = field(default=3600.0, metadata={"min": 1.0})
    keep_size: Size = field(default=256 << 20, metadata={"min": 1 << 20})
    quota: Size = field(default=2 << 30, metadata={"min": 0})
    listen: StoreListenSettings = field(default_factory=StoreListenSettings)
    external: StoreExternalSettings = field(default_factory=StoreExternalSettings)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Elsewhere is where?"""
        if self.mode == "external" and not self.external.endpoints:
            yield "external.endpoints", 'is missing: mode = "external" needs the URLs of an etcd'

    def external_store(self) -> ExternalStore | None:
        """None: the store is embedded."""
        if self.mode == "embedded":
            return None
        from appliance.external import Credentials, ExternalStore

        it = self.external
        files_of_tls = (it.ca_file or "", it.cert_file or "", it.key_file or "")
        return ExternalStore(it.endpoints, Credentials(*files_of_tls, it.user, password_file=it.password_file or ""))

    def retention(self) -> Retention:
        """For the store."""
        from appliance.store import Retention  # brings trio, which reading settings must not

        match self.compaction:
            case "off":
                return Retention()
            case "periodic":
                return Retention(seconds=self.keep_time, size_bytes=self.keep_size)
            case _:
                return Retention(revisions=self.keep_revisions, size_bytes=self.keep_size)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of appliance.toml. Every part has a default: an empty file, or none, is a working node."""

    node: NodeSettings = field(default_factory=NodeSettings)
    status: StatusSettings = field(default_factory=StatusSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    update: UpdateSection = field(default_factory=UpdateSection)
    units: UnitsSettings = field(default_factory=UnitsSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)


@dataclass(frozen=True)
class LoadedSettings:
    """What was read: ``value`` is None when anything is an error, and then nothing of it may be used."""

    value: Settings | None
    findings: tuple[Finding, ...]
    files: tuple[str, ...]  # in the order in which they were merged
    document: Document[Settings] = field(repr=False)
    texts: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # each file and what it held

    @property
    def problem(self) -> str:
        """One line for ``status``; empty when all is well."""
        errors = [one for one in self.findings if one.severity == "error"]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return f"{errors[0]}{more}" if errors else ""

    def require(self) -> Settings:
        """The settings. Raises InputError with every finding on its own line."""
        if self.value is None:
            errors = [one for one in self.findings if one.severity == "error"]
            raise InputError("cannot use the settings:\n" + "\n".join(map(str, errors)), where=errors[0].where)
        return self.value


def load(layout: Layout, config_file: str | None = None) -> LoadedSettings:
    """Read all files that there are. Never raises: a file that cannot be read is a finding."""
    return _load(*_read_files(layout, config_file))


def load_texts(texts: Iterable[tuple[str, str]]) -> LoadedSettings:
    """The same, of files that are kept elsewhere; of none at all: the defaults."""
    return _load([Source(file, text) for file, text in texts], [])


def _load(sources: list[Source], unreadable: list[Finding]) -> LoadedSettings:
    document = read_merged(sources, Settings)
    findings = (*unreadable, *document.findings)
    value = None if unreadable else document.value
    if value is not None:
        value = _completed(value, document)
    texts = tuple((one.file, one.text) for one in sources)
    return LoadedSettings(value, findings, tuple(one.file for one in sources), document, texts)


def _completed(value: Settings, document: Document[Settings]) -> Settings:
    """With what the texts alone cannot know: the hostname, and where a relative path counts from."""
    if not value.node.name:
        value = replace(value, node=replace(value.node, name=node.hostname()))
    if value.units.directory is not None:
        file, _, _ = document.place("units.directory")
        place = files.absolute(files.join(file.rpartition("/")[0] or ".", value.units.directory))
        value = replace(value, units=replace(value.units, directory=place))
    return value


def check(text: str, file: str) -> tuple[Finding, ...]:
    """What is wrong with one text by itself."""
    return read_merged([Source(file, text)], Settings).findings


def as_document(settings: Settings) -> dict[str, Any]:
    """Plain data as the file would hold it; passwords inside of addresses are cut out."""
    document = to_plain(settings)
    for table in (document["update"], *document["update"].get("bundle", ())):
        scheme, found, rest = table.get("repository", "").partition("://")
        host, slash, path = rest.partition("/")
        if found and "@" in host:
            table["repository"] = f"{scheme}://***@{host.rpartition('@')[2]}{slash}{path}"
    return document


def _read_files(layout: Layout, config_file: str | None) -> tuple[list[Source], list[Finding]]:
    paths = [config_file] if config_file else []
    findings: list[Finding] = []
    if not config_file:
        if files.exists(layout.settings_file):
            paths.append(layout.settings_file)
        try:
            names = files.list_directory(layout.settings_fragments)
        except ApplianceError as error:
            names = []
            findings.append(Finding(layout.settings_fragments, 1, 1, "", error.message))
        paths += [
            files.join(layout.settings_fragments, name)
            for name in names
            if name.endswith(".toml") and not name.startswith(".")
        ]
    sources = []
    for path in paths:
        if files.points_to_dev_null(path):
            continue
        try:
            sources.append(Source(path, files.read_text(path, size_max=SIZE_MAX)))
        except ApplianceError as error:
            findings.append(Finding(path, 1, 1, "", error.message))
    return sources, findings
