"""Versions of our own OS as the tests boot them: built once for all test runs beside each other, and kept for the next.

They lie in .build/boot by what they are made of, and nobody changes them there.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import pickle
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parents[2]
BINARY, STAGED = HOUSE / "dist/appliance", HOUSE / ".build/staged"
PLACE = HOUSE / ".build/boot"
MARK = "usr/share/test/part-of-it"  # what a unit needs of the root: the unhealthy version lacks it
SOURCES = ("packaging/pack.py", "appliance/update/boot_entries.py", "appliance/host/gpt.py", "pyproject.toml")
FORGOTTEN_AFTER = 3600.0  # seconds: what another run might still use stays
sys.path[:0] = [str(HOUSE / "packaging"), str(HOUSE / "packaging/image")]


@dataclass(frozen=True)
class Image:
    """What was built: the disk, and the parts for a start without a loader."""

    disk: Path
    kernel: Path
    initrd: Path
    command_line: str
    parts: Any


def take_image(version: str = "1.0.0", *, marked: bool = True) -> Image:
    """A whole version, not as small as can be; its disk has it in the first slot, good. ``marked``: with MARK."""
    place = PLACE / _made_of()
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _forget_others(place)
        place.mkdir(exist_ok=True)
        place.touch()
        finished = place / f"{version}-{marked}.image"
        if not finished.exists():
            image = _build(place / f"{version}-{marked}", version, marked=marked)
            temp = finished.with_suffix(".tmp")
            temp.write_bytes(pickle.dumps(image))
            temp.rename(finished)
        image = pickle.loads(finished.read_bytes())
    return image


def _build(place: Path, version: str, *, marked: bool) -> Image:
    from image.build import build_parts  # type: ignore[import-not-found]
    from image.disk import build_disk  # type: ignore[import-not-found]

    shutil.rmtree(place, ignore_errors=True)
    extra = place / "extra"
    (extra / MARK).parent.mkdir(parents=True)
    if marked:
        (extra / MARK).write_text("here\n")
    parts = build_parts(place / "root", version=version, binary=BINARY, staged=STAGED, extra=extra, fast=True)
    (place / "initrd").write_bytes(parts.initrd)
    build_disk(place / "disk", root=parts.root.file, uki=parts.uki, entry=f"appliance_{version}.good+3.efi")
    return Image(place / "disk", parts.kernel, place / "initrd", parts.command_line, parts)


@functools.cache
def _made_of() -> str:
    from image.kernel import fetch_kernel  # type: ignore[import-not-found]

    whole = hashlib.sha256(fetch_kernel(HOUSE / ".build/kernel").release.encode())
    image = sorted((HOUSE / "packaging/image").rglob("*.[pch]*"))
    for path in (BINARY, *(HOUSE / name for name in SOURCES), *image, Path(__file__)):
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def _forget_others(ours: Path) -> None:
    for path in PLACE.iterdir():
        if path.is_dir() and path != ours and time.time() - path.stat().st_mtime > FORGOTTEN_AFTER:
            shutil.rmtree(path, ignore_errors=True)
