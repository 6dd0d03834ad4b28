"""What we believe of a repository: python-tuf's client workflow, with a durable cache and our fetchers.

Two things are added. The cache is written with fsync (python-tuf only renames). And the versions seen are kept in a
file of their own, so that a cache that was lost or torn is fetched again without forgetting what is too old;
so is the time of the last good refresh, for hosts whose clock starts in 1970 (it is only moved by metadata that had
not expired, so a clock that is wrong once cannot lock us out for longer than that metadata lives).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from appliance.errors import ApplianceError, CorruptError, InputError, NotFoundError, UnavailableError, UntrustedError
from appliance.host import clock, files
from appliance.update.fetch import Fetcher, fetch_bytes, fetcher_for
from appliance.update.offer import Offer, offer_of_target
from appliance.update.transport import plain_transport

# python-tuf's package imports its default fetcher and with it urllib3 (80 ms, 2 MB), which we never use.
_fetcher_module = ModuleType("tuf.ngclient.urllib3_fetcher")
_fetcher_module.Urllib3Fetcher = type("Urllib3Fetcher", (), {})  # type: ignore[attr-defined]
sys.modules.setdefault("tuf.ngclient.urllib3_fetcher", _fetcher_module)

from tuf.api import exceptions  # noqa: E402
from tuf.api._payload import Root, Targets  # noqa: E402
from tuf.ngclient.config import UpdaterConfig  # noqa: E402
from tuf.ngclient.fetcher import FetcherInterface  # noqa: E402
from tuf.ngclient.updater import Updater  # noqa: E402

_METADATA_LENGTH_MAX = 5_000_000


class _TufFetcher(FetcherInterface):
    """Ours in python-tuf's shape."""

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
        try:
            return fetch_bytes(self._fetcher, url, size_max=max_length)
        except NotFoundError as exc:
            raise exceptions.DownloadHTTPError(exc.message, 404) from exc
        except UntrustedError as exc:
            raise exceptions.DownloadLengthMismatchError(exc.message) from exc
        except ApplianceError as exc:
            raise exceptions.DownloadError(exc.message) from exc


class _Updater(Updater):
    """python-tuf's, with a cache that survives a power cut."""

    def _persist_file(self, filename: str, data: bytes) -> None:
        files.write_atomic(filename, data)

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
    ) -> None:
        self.fetcher, self._base = fetcher or fetcher_for(plain_transport(repository))
        self._name = repository
        self._directory = directory
        self._seen_file = directory + "/seen.json"
        self._seen = _read_seen(self._seen_file)
        files.make_directory(directory + "/root_history")
        with _translated(repository):
            self._updater = _Updater(
                metadata_dir=directory,
                metadata_base_url=self._base + "/metadata",
                target_base_url=self._base + "/targets",
                fetcher=_TufFetcher(self.fetcher),
                config=UpdaterConfig(targets_max_length=_METADATA_LENGTH_MAX),
                bootstrap=trust_root,
            )
        self._now = max(clock.wall_seconds() if now is None else now, float(self._seen.get("time", 0)))
        self._updater.move_clock(self._now)

    def close(self) -> None:
        """Give up connections."""
        self.fetcher.close()

    def refresh(self) -> None:
        """The client workflow of the TUF specification, section 5. Raises UntrustedError, UnavailableError."""
        with _translated(self._name):
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
        self._seen = {"keys": keys, "versions": versions, "time": self._now}
        files.write_atomic(self._seen_file, json.dumps(self._seen).encode())

    def offers(self, channel: str, architecture: str) -> list[Offer]:
        """Every release in the channel that is for this host."""
        with _translated(self._name):
            try:
                targets = self._updater.role(channel).targets
            except ValueError as exc:  # the role is delegated by nobody
                raise NotFoundError(f"cannot use channel {channel}: {self._name} has no such channel") from exc
        found = []
        for path, target in targets.items():
            if not path.startswith(channel + "/"):
                continue  # not the role's to say: the delegation covers CHANNEL/* only
            sha256 = target.hashes.get("sha256", "")
            offer = offer_of_target(
                path, length=target.length, sha256=sha256, custom=target.custom,
                channel=channel, architecture=architecture,
            )  # fmt: skip
            if offer is not None:
                found.append(offer)
        return found

    def locate(self, path: str) -> tuple[Any, str]:
        """The signed target of that path, and where its bytes lie. Raises NotFoundError."""
        with _translated(self._name):
            target = self._updater.get_targetinfo(path)
        if target is None:
            raise NotFoundError(f"cannot find {path}: {self._name} does not sign it", where=path)
        folder, _, name = path.rpartition("/")
        return target, f"{self._base}/targets/{folder}/{target.hashes['sha256']}.{name}"


@contextmanager
def _translated(repository: str) -> Iterator[None]:
    """python-tuf's errors into ours."""
    try:
        yield
    except exceptions.DownloadLengthMismatchError as exc:
        raise UntrustedError(f"cannot trust {repository}: {exc}", where=repository) from exc
    except exceptions.DownloadError as exc:
        raise UnavailableError(f"cannot refresh from {repository}: {exc}", where=repository) from exc
    except exceptions.BadVersionNumberError as exc:
        raise UntrustedError(f"cannot trust {repository}: {exc} (rollback or mixture)", where=repository) from exc
    except exceptions.ExpiredMetadataError as exc:
        now = clock.timestamp(clock.wall_seconds())
        raise UntrustedError(
            f"cannot trust {repository}: {exc}: it was not published anew in time, or the clock here ({now}) is wrong",
            where=repository,
        ) from exc
    except exceptions.RepositoryError as exc:
        said = str(exc) or type(exc).__name__
        raise UntrustedError(f"cannot trust {repository}: {said}", where=repository) from exc
    except OSError as exc:
        raise files.translate(exc, "keep the metadata of", repository) from exc


def _read_seen(path: str) -> dict[str, Any]:
    try:
        value = json.loads(files.read_bytes(path, size_max=1 << 20))
        if not isinstance(value, dict):
            raise ValueError("no object")
        return value
    except NotFoundError:
        return {}
    except (ValueError, InputError) as exc:
        raise CorruptError(f"cannot read {path}: {exc}; remove it to trust the repository anew", where=path) from exc
