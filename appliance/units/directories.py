"""``runtime_directory`` and its kin: made before the start, named in the environment (systemd.exec(5))."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from appliance.host.owned import link_owned, make_owned, remove_owned, unlink_owned
from appliance.units.mount_plan import PRIVATE
from appliance.units.service_section import ServiceSection

Below = Callable[[str], str]  # a path of the host, below our root

_KINDS = (  # key in [service], the directory it is below, the variable
    ("runtime_directory", "/run", "RUNTIME_DIRECTORY"),
    ("state_directory", "/var/lib", "STATE_DIRECTORY"),
    ("cache_directory", "/var/cache", "CACHE_DIRECTORY"),
    ("logs_directory", "/var/log", "LOGS_DIRECTORY"),
    ("configuration_directory", "/etc", "CONFIGURATION_DIRECTORY"),
)
_COLON = re.compile(r"(?<!\\):")


def directory_names(entries: Iterable[str]) -> Sequence[tuple[str, tuple[str, ...]]]:
    r"""Each directory of ``NAME`` and ``NAME:LINK``, and the links that lead to it; ``\:`` is a colon of the name."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        name, *links = (part.replace("\\:", ":") for part in _COLON.split(entry, maxsplit=1))
        found.setdefault(name.rstrip("/"), []).extend(link for link in links if link)
    return tuple((name, tuple(links)) for name, links in found.items())


def directory_variables(service: ServiceSection, below: Below) -> Mapping[str, str]:
    """What the unit is told of its directories."""
    return {
        variable: ":".join(f"{below(above)}/{name}" for name, _ in directory_names(getattr(service, key)))
        for key, above, variable in _KINDS
        if getattr(service, key)
    }


def make_directories(service: ServiceSection, below: Below, *, uid: int | None, gid: int | None) -> None:
    """All of them. Configuration stays root's. Raises ApplianceError."""
    for key, above, _ in _KINDS:
        is_ours = key == "configuration_directory"
        for name, links in directory_names(getattr(service, key)):
            mode = int(getattr(service, f"{key}_mode"), 8)
            make_owned(below(above), name, mode=mode, uid=None if is_ours else uid, gid=None if is_ours else gid)
            for link in links:
                link_owned(below(above), link, name)


def remove_runtime_directories(service: ServiceSection, below: Below) -> None:
    """The unit is down. Raises ApplianceError."""
    remove_directories(service, below, ("runtime",))


def remove_directories(service: ServiceSection, below: Below, kinds: Sequence[str]) -> tuple[str, ...]:
    """Those of these kinds ("state", "cache", ...), with all that is in them. Their paths. Raises ApplianceError."""
    gone = []
    for key, above, _ in _KINDS:
        if key.removesuffix("_directory") in kinds:
            for name, links in directory_names(getattr(service, key)):
                for link in links:
                    unlink_owned(below(above), link)
                remove_owned(below(above), name)
                gone.append(f"{below(above)}/{name}")
    return tuple(gone)


def make_private(directory: str, *, keep: bool) -> None:
    """The temporary directories of ``private_tmp``, empty unless they are to be kept. Raises ApplianceError."""
    if not keep:
        remove_private(directory)
    for _, name in PRIVATE:
        make_owned(directory, name, mode=0o1777, uid=None, gid=None)


def remove_private(directory: str) -> None:
    """With all that is in them. Raises ApplianceError."""
    above, _, name = directory.rpartition("/")
    remove_owned(above, name)
