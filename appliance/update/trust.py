"""What we believe of a repository: python-tuf's client workflow, with a durable cache and our fetchers.

The cache is written with fsync (python-tuf only renames). And the versions seen are kept in files of their own (seen),
so that a cache that was lost or torn is fetched again without forgetting what is too old.

Time: metadata expires, and no clock is believed blindly. It is never earlier than the making of this version, nor than
the last time at which everything that we used was valid, which is kept. So a host that starts in 1970 refuses what
expired before, and takes what is signed and new. A clock that is ahead makes everything look expired: that is said,
nothing is taken, and nothing is kept of that time. It can only be kept while metadata of that moment is still valid,
so a clock that is wrong by less than that harms nobody: what a publisher signs later is valid for longer.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from appliance.errors import ApplianceError, InputError, NotFoundError, UnavailableError, UntrustedError
from appliance.host import clock, files
from appliance.update.fetch import Fetcher, fetch_bytes, fetcher_for
from appliance.update.offer import Offer, offer_of_target
from appliance.update.policy import POLICY_FIELD, Policy, format_time, parse_policy
from appliance.update.product import OURS, Product
from appliance.update.seen import Seen
from appliance.update.transport import plain_transport
from appliance.version import built_seconds

# python-tuf's package imports its default fetcher and with it urllib3 (80 ms, 2 MB), which we never use.
_fetcher_module = ModuleType("tuf.ngclient.urllib3_fetcher")
_fetcher_module.Urllib3Fetcher = type("Urllib3Fetcher", (), {})  # type: ignore[attr-defined]
sys.modules.setdefault("tuf.ngclient.urllib3_fetcher", _fetcher_module)

from tuf.api import exceptions  # noqa: E402
from tuf.api._payload import Root, Targets  # noqa: E402
from tuf.api.serialization import DeserializationError  # noqa: E402
from tuf.ngclient.config import UpdaterConfig  # noqa: E402
from tuf.ngclient.fetcher import FetcherInterface  # noqa: E402
from tuf.ngclient.updater import Updater  # noqa: E402

from appliance.update import tuf_keys  # noqa: E402, F401  # it changes how python-tuf sees keys

_SHA256 = re.compile(r"[0-9a-f]{64}")
METADATA_LENGTH_MAX = 8 << 20  # of one role, whatever length those above it sign
_ROOTS_AT_ONCE = 256  # new ones; whoever is further behind goes on with the next check
_CLOCK_SPARE_SECONDS = 86400.0  # a clock that is so little behind the last time known is not worth a word


class _TufFetcher(FetcherInterface):
    """Ours in python-tuf's shape."""

    last = "the trust root of this host"  # what was read last

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            _, pieces = self._fetcher.open_at(url, 0)
            yield from pieces
        except NotFoundError as exc:
            raise exceptions.DownloadHTTPError(exc.message, 404) from exc
        except ApplianceError as exc:
            raise exceptions.DownloadError(exc.message) from exc

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Without the temporary file."""
        self.last = url
        try:
            return fetch_bytes(self._fetcher, url, size_max=min(max_length, METADATA_LENGTH_MAX))
        except NotFoundError as exc:
            raise exceptions.DownloadHTTPError(exc.message, 404) from exc
        except UntrustedError as exc:
            raise exceptions.DownloadLengthMismatchError(exc.message) from exc
        except ApplianceError as exc:
            raise exceptions.DownloadError(exc.message) from exc


class _Updater(Updater):
    """python-tuf's, with a cache that survives a power cut."""

    _unsynced: tuple[int, bytes] | None = None  # the newest root that was kept

    def _persist_file(self, filename: str, data: bytes) -> None:
        files.write_atomic(filename, data)

    def _persist_root(self, version: int, data: bytes) -> None:
        """Of a long chain only the end is worth waiting for the disk: a link that is torn is fetched again."""
        path = f"{self._dir}/root_history/{version}.root.json"
        with suppress(ApplianceError):
            if files.read_bytes(path, size_max=len(data)) == data:
                return
        files.write_atomic(path, data, durable=False)
        self._unsynced = version, data

    def _load_root(self) -> None:
        try:
            super()._load_root()
        finally:
            if self._unsynced is not None:
                version, data = self._unsynced
                files.write_atomic(f"{self._dir}/root_history/{version}.root.json", data)

    def _update_root_symlink(self) -> None:
        """We always start from the host's own trust root; the link would be for those who do not."""

    def move_clock(self, seconds: float) -> None:
        """Check expiry against this time."""
        self._trusted_set.reference_time = datetime.fromtimestamp(seconds, UTC)

    @property
    def root(self) -> Root:
        """The newest trusted."""
        return self._trusted_set.root

    def versions(self) -> dict[str, int]:
        """Of every role that the trusted snapshot names."""
        trusted = self._trusted_set
        return {
            "root": trusted.root.version,
            "timestamp": trusted.timestamp.version,
            "snapshot": trusted.snapshot.version,
            **{name.removesuffix(".json"): info.version for name, info in trusted.snapshot.meta.items()},
        }

    def expiries(self, reference: float) -> tuple[float, list[str]]:
        """When the first of all that is loaded expires, and what has: "the timestamp expired on ..."."""
        loaded = {name: role.expires.timestamp() for name, role in self._trusted_set._trusted_set.items()}
        gone = [f"{name} expired on {format_time(at)}" for name, at in sorted(loaded.items()) if at <= reference]
        return min(loaded.values()), gone

    def role(self, name: str) -> Targets:
        """All targets of a role that ``targets`` delegates to."""
        return self._load_targets(name, Targets.type)


class Repository:
    """One repository as this host sees it. ``refresh`` first; after that everything it says is signed and current."""

    def __init__(
        self,
        *,
        repository: str,
        trust_root: bytes,
        directory: str,
        now: float | None = None,
        fetcher: tuple[Fetcher, str] | None = None,
        floor: float | None = None,
    ) -> None:
        self.fetcher, self._base = fetcher or fetcher_for(plain_transport(repository))
        self._name = repository
        self._directory = directory
        self._memory = Seen(directory)
        self._seen = self._memory.value
        files.make_directory(directory + "/root_history")
        known = max(0, len(files.list_directory(directory + "/root_history")) - 1)  # without the trusted one
        self._wall = clock.wall_seconds() if now is None else now
        self._known = max(float(self._seen.get("time", 0)), built_seconds() if floor is None else floor)
        self.now = max(self._wall, self._known)
        self._reading = _TufFetcher(self.fetcher)
        with self._translated():
            self._updater = _Updater(
                metadata_dir=directory,
                metadata_base_url=self._base + "/metadata",
                target_base_url=self._base + "/targets",
                fetcher=self._reading,
                config=UpdaterConfig(
                    targets_max_length=METADATA_LENGTH_MAX, max_root_rotations=known + _ROOTS_AT_ONCE
                ),
                bootstrap=trust_root,
            )
        self._updater.move_clock(self.now)

    def close(self) -> None:
        """Give up connections."""
        self.fetcher.close()

    def refresh(self) -> None:
        """The client workflow of the TUF specification, section 5. Raises UntrustedError, UnavailableError."""
        with self._trusting():
            self._updater.refresh()
        versions = self._updater.versions()
        keys = sorted(
            {*self._updater.root.get_delegated_role("timestamp").keyids,
             *self._updater.root.get_delegated_role("snapshot").keyids}
        )  # fmt: skip
        if keys == self._seen.get("keys"):  # else the keys were changed, which is how a publisher recovers (5.3.11)
            for name, seen in dict(self._seen.get("versions", {})).items():
                if versions.get(name, 0) < seen:
                    raise UntrustedError(
                        f"cannot trust {self._name}: it offers {name} version {versions.get(name, 0)}, "
                        f"version {seen} was seen before (rollback)",
                        where=self._name,
                    )
        elif versions["root"] < dict(self._seen.get("versions", {})).get("root", 0):
            raise UntrustedError(f"cannot trust {self._name}: its root is older than the one seen before (rollback)")
        self._keep({"keys": keys, "versions": versions, "time": self._seen.get("time", 0)})

    def offers(self, channel: str, architecture: str, product: Product = OURS) -> list[Offer]:
        """Every release of the product in the channel that is for this host."""
        found = []
        for path, target in self._role(channel).targets.items():
            if not path.startswith(channel + "/"):
                continue  # not the role's to say: the delegation covers CHANNEL/* only
            sha256 = str(target.hashes.get("sha256", ""))
            offer = offer_of_target(
                path, length=target.length, sha256=sha256, custom=target.custom,
                channel=channel, architecture=architecture, product=product,
            )  # fmt: skip
            if offer is not None:
                found.append(offer)
        self._keep({**self._seen, "time": max(self.now, float(self._seen.get("time", 0)))})  # all of it is valid now
        return found

    def policy(self, channel: str, product: Product = OURS) -> Policy:
        """The channel's rules for the product. Raises UntrustedError: they contradict themselves."""
        try:
            return parse_policy(self._role(channel).unrecognized_fields.get(POLICY_FIELD), product.name)
        except InputError as exc:
            raise UntrustedError(f"cannot use channel {channel}: {exc.message}", where=self._name) from exc

    @property
    def valid_until(self) -> float:
        """When the first of the metadata that was used expires."""
        return self._updater.expiries(self.now)[0]

    @property
    def repaired(self) -> str:
        """What was found damaged in our own memory, and is mended."""
        return self._memory.damage

    @property
    def timestamp_file(self) -> str:
        """The trusted timestamp as it was fetched: while the repository serves the same bytes, nothing is new."""
        return self._directory + "/timestamp.json"

    @property
    def clock_problem(self) -> str:
        """Why this host's clock is not believed; empty when it is."""
        if self._wall >= self._known - _CLOCK_SPARE_SECONDS:
            return ""
        return (
            f"the clock here says {format_time(self._wall)}, but it is at least {format_time(self._known)}; "
            "what expired before that is refused (set the clock)"
        )

    def _role(self, channel: str) -> Targets:
        with self._trusting():
            try:
                return self._updater.role(channel)
            except ValueError as exc:  # the role is delegated by nobody
                raise NotFoundError(f"cannot use channel {channel}: {self._name} has no such channel") from exc

    def _keep(self, seen: dict[str, Any]) -> None:
        self._memory.keep(seen)
        self._seen = seen

    @contextmanager
    def _trusting(self) -> Iterator[None]:
        """As ``_translated``; what expired is said with its date, and what to do."""
        with self._translated():
            try:
                yield
            except exceptions.ExpiredMetadataError as exc:
                gone = ", ".join(self._updater.expiries(self.now)[1])
                raise UntrustedError(
                    f"cannot trust {self._name}: {exc}{f' ({gone})' if gone else ''}, and the clock here says "
                    f"{format_time(self._wall)}" + self._which_is_wrong(), where=self._name,
                ) from exc  # fmt: skip

    def _which_is_wrong(self) -> str:
        taken = f", taken as {format_time(self.now)}, the last time known" if self.now > self._wall else ""
        return (
            f"{taken}. Either it was not published anew in time (release refresh), or this clock is wrong (timedatectl "
            "set-ntp true, or date -s). The running version goes on; nothing is taken until then"
        )

    def locate(self, path: str) -> tuple[Any, str]:
        """The signed target of that path, and where its bytes lie. Raises NotFoundError."""
        with self._trusting():
            target = self._updater.get_targetinfo(path)
        if target is None:
            raise NotFoundError(f"cannot find {path}: {self._name} does not sign it", where=path)
        sha256 = str(target.hashes.get("sha256", ""))
        if not _SHA256.fullmatch(sha256):
            raise UntrustedError(f"cannot take {path}: {self._name} signs no sha256 of it", where=path)
        folder, slash, name = path.rpartition("/")
        return target, f"{self._base}/targets/{folder}{slash}{sha256}.{name}"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """python-tuf's errors into ours."""
        name = self._name
        try:
            yield
        except exceptions.DownloadLengthMismatchError as exc:
            raise UntrustedError(f"cannot trust {name}: {exc}", where=name) from exc
        except exceptions.DownloadError as exc:
            raise UnavailableError(f"cannot refresh from {name}: {exc}", where=name) from exc
        except exceptions.BadVersionNumberError as exc:
            raise UntrustedError(f"cannot trust {name}: {exc} (rollback or mixture)", where=name) from exc
        except DeserializationError as exc:
            why = str(exc.__cause__ or exc) or type(exc.__cause__).__name__
            raise UntrustedError(
                f"cannot trust {name}: {self._reading.last} is damaged or no metadata: {why[:200]}", where=name
            ) from exc
        except exceptions.RepositoryError as exc:
            said = str(exc) or type(exc).__name__
            raise UntrustedError(f"cannot trust {name}: {said}", where=name) from exc
        except OSError as exc:
            raise files.translate(exc, "keep the metadata of", name) from exc
