"""Secrets for a unit, as systemd hands them over (systemd.exec(5), "Credentials"): files that its user alone may read.

They lie in /run/credentials/NAME.service from the start of the unit to its end; CREDENTIALS_DIRECTORY says so.
"""

from __future__ import annotations

from appliance.errors import NotFoundError
from appliance.host import files
from appliance.host.owned import make_owned, remove_owned, write_owned
from appliance.units.directories import Below
from appliance.units.service_section import ServiceSection

_ABOVE = "/run/credentials"
_STORES = ("/etc/credstore", "/run/credstore", "/usr/local/lib/credstore", "/usr/lib/credstore")
_BYTES_MAX = 1 << 20


def credentials_directory(service: ServiceSection, name: str, below: Below) -> str:
    """Empty: it has none."""
    return f"{below(_ABOVE)}/{name}.service" if service.credentials or service.credential_texts else ""


def make_credentials(service: ServiceSection, name: str, below: Below, *, uid: int | None) -> None:
    """Read anew, in place of those of an earlier start. Raises ApplianceError."""
    directory = credentials_directory(service, name, below)
    if not directory:
        return
    found = {key: text.encode() for key, text in service.credential_texts.items()}
    for key, source in service.credentials.items():
        try:
            found[key] = _read(source, below)
        except NotFoundError as exc:
            if key not in found:
                raise NotFoundError(f"cannot load credential {key}: {exc.message}", where=exc.where) from exc
    remove_credentials(name, below)
    make_owned(below(_ABOVE), f"{name}.service", mode=0o700, uid=None, gid=None)
    for key, data in found.items():
        write_owned(directory, key, data, uid=uid)
    make_owned(below(_ABOVE), f"{name}.service", mode=0o500, uid=uid, gid=None)


def remove_credentials(name: str, below: Below) -> None:
    """The unit is down. Raises ApplianceError."""
    remove_owned(below(_ABOVE), f"{name}.service")


def _read(source: str, below: Below) -> bytes:
    if source.startswith("/"):
        return files.read_bytes(source, size_max=_BYTES_MAX)
    for store in _STORES:
        try:
            return files.read_bytes(f"{below(store)}/{source}", size_max=_BYTES_MAX)
        except NotFoundError:
            continue
    raise NotFoundError(f"cannot find {source} in {', '.join(_STORES)}", where=source)
