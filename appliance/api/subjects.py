"""What the API speaks of, in words of the rooms that hold it. ``app.py`` builds one ``Subjects`` and hands it over.

Protocols, not classes: the API needs a few methods of each, and a room that could not be opened is simply ``None``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from appliance.errors import NotFoundError, UnavailableError
from appliance.store import Range


@dataclass(frozen=True, kw_only=True)
class NodePicture:
    """Who runs here, and since when."""

    name: str
    version: str
    pid: int
    slot: str
    trial: bool
    started: float  # seconds since 1970
    root: str
    uptime_seconds: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class SettingsPicture:
    """Which settings are in force, and what is wrong with the file as it stands."""

    file: str
    loaded: float  # seconds since 1970
    problem: str = ""


class StatusSettings(Protocol):
    """``[status]`` of the settings."""

    @property
    def listen(self) -> str:
        """An address as ``host.sockets.parse_address`` takes it, or "off"."""

    @property
    def token_file(self) -> str | None:
        """A file that holds the bearer token; needed beyond loopback."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names by which a browser may call this node, besides localhost and IP addresses."""


class SupervisorSubject(Protocol):
    """What is asked of ``supervisor.Supervisor``."""

    def pictures(self) -> Sequence[Any]:
        """One per service."""

    def essential_ready(self) -> tuple[bool, tuple[str, ...]]:
        """Ready, or the reasons why not."""


class BusSubject(Protocol):
    """What is asked of ``supervisor.EventBus``."""

    def subscribe(self, *, after: int | None = None, size_max: int = 256) -> Any:
        """A bounded subscription; ``after`` replays the history that is still kept."""


class UnitsSubject(Protocol):
    """What is asked of ``units.Units``."""

    def pictures(self) -> Sequence[Any]: ...  # noqa: D102
    def picture(self, name: str) -> Any: ...  # noqa: D102
    def file_text(self, name: str) -> str: ...  # noqa: D102
    def problems(self) -> Sequence[Any]: ...  # noqa: D102
    def usages(self, names: Iterable[str] | None = None) -> Mapping[str, Any]: ...  # noqa: D102
    def logs(self, name: str, *, lines: int | None, since: float | None, follow: bool) -> AsyncIterator[Any]: ...  # noqa: D102
    def search_logs(  # noqa: D102
        self, names: Sequence[str], query: Any, *, kernel: bool
    ) -> AsyncGenerator[list[Any], None]: ...
    async def start(self, name: str, *, wait: bool = True) -> Any: ...  # noqa: D102
    async def stop(self, name: str, *, wait: bool = True) -> Any: ...  # noqa: D102
    async def restart(self, name: str, *, wait: bool = True) -> Any: ...  # noqa: D102
    async def transact(self, verb: Any, names: Sequence[str], *, wait: bool, dry_run: bool) -> Any: ...  # noqa: D102
    async def enable(self, verb: str, names: Sequence[str], *, now: bool) -> Any: ...  # noqa: D102
    async def wait(self, name: str, goal: Any, *, timeout: float) -> Any: ...  # noqa: D102
    async def write_file(  # noqa: D102
        self, name: str, text: str, *, drop_in: bool, digest: str | None, dry_run: bool
    ) -> Sequence[Any]: ...
    async def run_transient(self, data: Mapping[str, Any], *, name: str) -> tuple[Any, Any, Callable[[], Any]]: ...  # noqa: D102
    def graph_text(self, names: Sequence[str], *, as_picture: bool) -> str: ...  # noqa: D102
    def processes(self, name: str) -> Sequence[Any]: ...  # noqa: D102
    async def reload_unit(self, name: str) -> object: ...  # noqa: D102
    async def kill(self, name: str, signal: str = "SIGTERM", *, whom: str = "all") -> object: ...  # noqa: D102
    async def clean(self, name: str, what: Sequence[str] = ()) -> Sequence[str]: ...  # noqa: D102
    async def reset_failed(self, name: str) -> object: ...  # noqa: D102
    async def reload(self, *, dry_run: bool) -> Any: ...  # noqa: D102


class StoreSubject(Protocol):
    """What is asked of ``store.Store``; an external one's ``read`` is awaited."""

    def status(self) -> Any: ...  # noqa: D102
    def read(self, request: Range) -> Any: ...  # noqa: D102
    async def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> Any: ...  # noqa: D102
    async def delete(self, key: bytes, range_end: bytes | None = None, *, prev_kv: bool = False) -> Any: ...  # noqa: D102
    async def txn(self, compares: Any, success: Any, failure: Any) -> Any: ...  # noqa: D102
    async def compact(self, revision: int) -> object: ...  # noqa: D102
    def watch(  # noqa: D102
        self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0, prev_kv: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[Any]]: ...
    def backup(self) -> AsyncIterator[bytes]: ...  # noqa: D102


class UpdateSubject(Protocol):
    """What is asked of ``update.Update``."""

    def picture(self) -> Any: ...  # noqa: D102
    def explain(self) -> Any: ...  # noqa: D102
    def history(self) -> Any: ...  # noqa: D102
    async def check(self) -> Any: ...  # noqa: D102
    async def download(self, version: str = "") -> Any: ...  # noqa: D102
    async def apply(  # noqa: D102
        self, version: str = "", *, force: bool = False, source: str = "", now: bool = False
    ) -> Any: ...
    async def channel(self, channel: str = "", *, allow_downgrade: bool = False) -> Any: ...  # noqa: D102
    async def rollback(self) -> Any: ...  # noqa: D102
    async def hold(self, duration: str = "", why: str = "", name: str = "") -> Any: ...  # noqa: D102
    async def unhold(self, name: str = "") -> Any: ...  # noqa: D102


class BundlesSubject(Protocol):
    """What is asked of ``update.Bundles``."""

    def of(self, name: str) -> UpdateSubject: ...  # noqa: D102
    def all(self) -> Sequence[UpdateSubject]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """Everything the API can show or change. A room that is not there is None, and ``absent`` says why, by its name."""

    control_socket: str
    node: Callable[[], NodePicture]
    status_settings: Callable[[], StatusSettings]
    settings: Callable[[], SettingsPicture]
    settings_document: Callable[[], Any]  # the settings in force; secrets are redacted here, before they leave
    supervisor: SupervisorSubject
    bus: BusSubject
    units: UnitsSubject | None = None
    store: StoreSubject | None = None
    update: UpdateSubject | None = None
    bundles: BundlesSubject | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    attach: Callable[[Sequence[Any]], None] = lambda operations: None  # puts may name leases. Raises NotFoundError
    look_at_store: Callable[[], Awaitable[Any]] | None = None  # its status, when it takes a while to tell
    findings: Callable[[], Sequence[Any]] = tuple  # of the settings; those of unit files are asked of units
    reload: Callable[[], Awaitable[Any]] | None = None  # the settings, as SIGHUP does
    shutdown: Callable[[], None] | None = None  # returns at once; the stop follows
    end_machine: Callable[[str], None] | None = None  # "reboot" or "poweroff", as shutdown

    def need_units(self) -> UnitsSubject:
        """The units, or UnavailableError with the reason."""
        if self.units is None:
            raise self._missing("units")
        return self.units

    def need_store(self) -> StoreSubject:
        """The store, or UnavailableError with the reason."""
        if self.store is None:
            raise self._missing("store")
        return self.store

    def need_update(self, product: str = "") -> UpdateSubject:
        """The updater, ours or a bundle's. Raises UnavailableError with the reason, NotFoundError: no such bundle."""
        if product not in ("", "appliance"):
            if self.bundles is None:
                raise NotFoundError(f"cannot find bundle {product}: there are none")
            return self.bundles.of(product)
        if self.update is None:
            raise self._missing("update")
        return self.update

    def _missing(self, name: str) -> UnavailableError:
        return UnavailableError(f"cannot ask {name}: {self.absent.get(name, 'it is not running')}", where=name)
