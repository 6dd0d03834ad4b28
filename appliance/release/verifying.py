"""A whole repository as a host would see it: with nothing but a trust root, every target's bytes included."""

from __future__ import annotations

from typing import Any

from appliance.errors import UntrustedError
from appliance.host import files
from appliance.release.repository import load, target_file
from appliance.update import Repository


def verify(directory: str, *, trust_root: str, scratch: str) -> list[dict[str, Any]]:
    """Every release, verified; ``scratch`` is an empty directory. Raises UntrustedError at the first that is not."""
    data = files.read_bytes(trust_root, size_max=1 << 20)
    repository = Repository(repository=files.absolute(directory), trust_root=data, directory=scratch)
    repository.refresh()
    contents = load(directory)
    verified = []
    for channel in contents.channels:
        mine = [found for found in contents.releases() if found["channel"] == channel]
        for architecture in sorted({found["architecture"] for found in mine}):
            for offer in repository.offers(channel, architecture):
                repository.locate(offer.path)
                path = target_file(directory, offer.path, offer.sha256)
                if files.file_stat(path).size != offer.length or files.sha256_file(path) != offer.sha256:
                    raise UntrustedError(f"cannot verify {path}: its bytes are not those that were signed", where=path)
                verified.append(
                    {"channel": channel, "version": offer.version, "architecture": architecture, "length": offer.length}
                )
    return verified
