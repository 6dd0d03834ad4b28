"""Everything that a worker must know to fetch: the repository, its mirrors, how each is reached, and the limits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from appliance.errors import InputError
from appliance.host.access import Access, Limits
from appliance.update.settings import ServerSettings, UpdateSettings

_ACCESS_NAMES = tuple(Access.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place where the repository lies."""

    url: str
    access: Access = field(default_factory=Access)


@dataclass(frozen=True, kw_only=True)
class Transport:
    """``places``: the repository first, then its mirrors."""

    places: tuple[Place, ...]
    rate_limit: int = 0
    limits: Limits = field(default_factory=Limits)

    @property
    def repository(self) -> str:
        """The first place; its name is shown."""
        return self.places[0].url


def transport_of(settings: UpdateSettings) -> Transport:
    """As the settings say."""
    limits = Limits(idle=settings.idle_timeout, rate_min=float(settings.minimum_rate))
    places = (
        Place(url=settings.repository, access=_access(settings)),
        *(Place(url=mirror.url, access=_access(mirror)) for mirror in settings.mirror),
    )
    if settings.rate_limit:
        limits = replace(limits, piece=max(4096, min(limits.piece, settings.rate_limit // 4)))
    return Transport(places=places, rate_limit=settings.rate_limit, limits=limits)


def taken_from(settings: UpdateSettings, source: str) -> UpdateSettings:
    """The settings with ``source``, a directory or a file, for the repository, and no mirrors."""
    return replace(settings, repository=source, mirror=()) if source else settings


def plain_transport(repository: str) -> Transport:
    """That repository, and no more said."""
    return Transport(places=(Place(url=repository),))


def format_transport(transport: Transport) -> str:
    """One line: the worker is told by standard input, for a URL may hold a password."""
    return json.dumps(asdict(transport))


def parse_transport(line: str) -> Transport:
    """The same again. Raises InputError."""
    if not line.startswith("{"):
        return plain_transport(line)
    try:
        value: dict[str, Any] = json.loads(line)
        places = tuple(Place(url=str(one["url"]), access=Access(**one["access"])) for one in value["places"])
        return Transport(places=places, rate_limit=int(value["rate_limit"]), limits=Limits(**value["limits"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise InputError(f"cannot read what to fetch: {exc!r}") from exc


def _access(settings: ServerSettings) -> Access:
    return Access(**{name: getattr(settings, name) for name in _ACCESS_NAMES})
