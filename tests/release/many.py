"""A repository of a thousand releases, signed in one go; the files of the releases themselves are not made."""

from __future__ import annotations

import hashlib

from tuf.api.metadata import TargetFile

from appliance.host import clock
from appliance.host.slots import architecture
from appliance.release import CHANNELS, Expiry, KeyRing, create
from appliance.release.committing import commit
from appliance.update import PRODUCT, target_path


def make_many(directory: str, keys: str, releases: int) -> None:
    """``1.0.0`` to ``1.N.0``, spread over the channels as real ones are: all in alpha, some in beta, few in stable."""
    ring = KeyRing(keys)
    contents = create(directory, ring, root_keys=3, threshold=2)
    for number in range(releases):
        version = f"1.{number}.0"
        sha256 = hashlib.sha256(version.encode()).hexdigest()
        for channel, every in (("alpha", 1), ("beta", 4), ("stable", 16)):
            if number % every == 0:
                path = target_path(channel, version, architecture())
                custom = {
                    "product": PRODUCT, "version": version, "architecture": architecture(), "kind": "binary",
                    "notes": f"what is new in {version}", "waves": [],
                }  # fmt: skip
                contents.channels[channel].targets[path] = TargetFile(9, {"sha256": sha256}, path, {"custom": custom})
    changed = {"root", "targets", *CHANNELS}
    commit(contents, ring, changed, expiry=Expiry(), now=clock.wall_seconds(), first=True)
