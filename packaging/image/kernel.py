"""Debian's cloud kernel: fetched as a package, not installed; its modules with what they need, in loading order."""

from __future__ import annotations

import fcntl
import lzma
import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

META_PACKAGE = "linux-image-6.12-cloud-amd64"  # the real package's name changes with every security upload


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    release: str
    image: Path
    modules: Path  # lib/modules/RELEASE

    def module_files(self) -> dict[str, Path]:
        """Every module's file, by its name (dashes as underscores)."""
        found = {}
        for path in sorted((self.modules / "kernel").rglob("*.ko*")):
            found[path.name.split(".")[0].replace("-", "_")] = path
        return found

    def built_in(self) -> frozenset[str]:
        """Names of those that are part of the kernel."""
        lines = (self.modules / "modules.builtin").read_text().split()
        return frozenset(Path(line).stem.replace("-", "_") for line in lines)


def fetch_kernel(place: Path) -> Kernel:
    """Unpack the newest one that apt knows below ``place``, unless it is there."""
    listed = subprocess.run(["apt-cache", "depends", META_PACKAGE], check=True, capture_output=True, text=True).stdout
    found = re.search(r"Depends: (linux-image-\S+)", listed)
    assert found, f"apt knows no kernel by the name of {META_PACKAGE}"
    package, release = found[1], found[1].removeprefix("linux-image-")
    tree = place / release
    if not tree.exists():
        place.mkdir(parents=True, exist_ok=True)
        with (place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _unpack(package, tree)
    modules = tree / "lib/modules" / release
    if not modules.exists():
        modules = tree / "usr/lib/modules" / release
    return Kernel(release, tree / f"boot/vmlinuz-{release}", modules)


def _unpack(package: str, tree: Path) -> None:
    """Unless somebody else did meanwhile."""
    if tree.exists():
        return
    temp = tree.with_name(f"{tree.name}.tmp.{os.getpid()}")
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir()
    subprocess.run(["apt-get", "download", "-q", package], check=True, cwd=temp, capture_output=True)
    (file,) = temp.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", file, temp / "tree"], check=True)
    (temp / "tree").rename(tree)
    shutil.rmtree(temp)


def module_bytes(path: Path) -> bytes:
    """Decompressed."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def module_facts(module: bytes) -> dict[str, list[str]]:
    """The ``.modinfo`` of a module (ELF64): depends, softdep, alias ..."""
    sections_at = struct.unpack_from("<Q", module, 0x28)[0]
    size, count, names_index = struct.unpack_from("<HHH", module, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", module, sections_at + index * size) for index in range(count)]
    names_at = sections[names_index][4]
    facts: dict[str, list[str]] = {}
    for name_at, _, _, _, at, length in sections:
        start = names_at + name_at
        if module[start : module.index(b"\0", start)] == b".modinfo":
            for fact in module[at : at + length].split(b"\0"):
                key, equals, value = fact.decode("utf-8", "replace").partition("=")
                if equals:
                    facts.setdefault(key, []).append(value)
    return facts


def load_order(kernel: Kernel, wanted: list[str]) -> list[tuple[str, bytes]]:
    """Those modules and all they need, each after what it needs: (name, decompressed)."""
    files, built_in = kernel.module_files(), kernel.built_in()
    ordered: dict[str, bytes] = {}
    on_the_way: set[str] = set()

    def add(name: str, *, must: bool) -> None:
        name = name.replace("-", "_")
        if name in ordered or name in built_in or name in on_the_way:
            return
        if name not in files:
            assert not must, f"the kernel has no module {name}"
            return
        on_the_way.add(name)
        module = module_bytes(files[name])
        facts = module_facts(module)
        for needed in ",".join(facts.get("depends", [])).split(","):
            if needed:
                add(needed, must=True)
        for soft in facts.get("softdep", []):
            for needed in re.sub(r"post:.*", "", soft).replace("pre:", "").split():
                add(needed, must=False)
        ordered[name] = module

    for name in wanted:
        add(name, must=True)
    return list(ordered.items())
