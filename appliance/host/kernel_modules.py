"""Loads kernel modules for the hardware that is there, by the index that packaging/image/root.py makes."""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_WILDCARD = re.compile(r"[*?\[]")
_COMPRESSED = 4  # MODULE_INIT_COMPRESSED_FILE
_SYS_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}


@dataclass(frozen=True)
class ModuleIndex:
    """Names to (file, needs); patterns of hardware to names."""

    modules: Mapping[str, tuple[str, tuple[str, ...]]]
    aliases: tuple[tuple[str, str], ...]

    def order(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Those and all they need, each after what it needs."""
        ordered: dict[str, None] = {}

        def add(name: str, above: tuple[str, ...]) -> None:
            if name in ordered or name in above or name not in self.modules:
                return
            for need in self.modules[name][1]:
                add(need, (*above, name))
            ordered[name] = None

        for name in wanted:
            add(name.replace("-", "_"), ())
        return tuple(ordered)

    def for_hardware(self, modaliases: Iterable[str]) -> tuple[str, ...]:
        """Names of the modules that claim one of these devices. By what stands before a pattern's first wildcard."""
        starts: dict[str, list[tuple[str, str]]] = {}
        for pattern, name in self.aliases:
            starts.setdefault(_WILDCARD.split(pattern, maxsplit=1)[0], []).append((pattern, name))
        lengths = sorted({len(start) for start in starts})
        found: dict[str, None] = {}
        for modalias in modaliases:
            for length in lengths:
                for pattern, name in starts.get(modalias[:length], ()) if length <= len(modalias) else ():
                    if fnmatch.fnmatchcase(modalias, pattern):
                        found[name] = None
        return tuple(found)


def parse_index(text: str) -> ModuleIndex:
    """Pure."""
    modules, aliases = {}, []
    for line in text.splitlines():
        match line.split(" "):
            case ["module", name, file, *needs]:
                modules[name] = (file, tuple(needs[0].split(",")) if needs and needs[0] else ())
            case ["alias", pattern, name]:
                aliases.append((pattern, name))
    return ModuleIndex(modules, tuple(aliases))


def directory() -> str:
    """Of the running kernel's modules."""
    return f"/usr/lib/modules/{platform.release()}"


def read_index() -> ModuleIndex:
    """An empty one where there is none."""
    try:
        with open(f"{directory()}/index", encoding="utf-8") as file:
            return parse_index(file.read())
    except OSError:
        return ModuleIndex({}, ())


def modaliases() -> tuple[str, ...]:
    """Of all devices that the kernel knows."""
    found: dict[str, None] = {}
    for place, directories, files in os.walk("/sys/devices"):
        directories[:] = [one for one in directories if not os.path.islink(f"{place}/{one}")]
        if "modalias" in files:
            try:
                with open(f"{place}/modalias", encoding="ascii", errors="replace") as file:
                    found[file.read().strip()] = None
            except OSError:
                continue
    return tuple(found)


def load(index: ModuleIndex, wanted: Iterable[str]) -> tuple[str, ...]:
    """What could not be loaded, and why. What is loaded already, or has no hardware here, is no trouble."""
    libc, troubles = ctypes.CDLL(None, use_errno=True), []
    for name in index.order(wanted):
        path = f"{directory()}/{index.modules[name][0]}"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            troubles.append(f"cannot read module {name}: {exc.strerror}")
            continue
        try:
            flags = 0 if path.endswith(".ko") else _COMPRESSED
            if libc.syscall(_SYS_FINIT_MODULE[platform.machine()], descriptor, b"", flags):
                code = ctypes.get_errno()
                if code not in (errno.EEXIST, errno.ENODEV):
                    troubles.append(f"cannot load module {name}: {os.strerror(code)}")
        finally:
            os.close(descriptor)
    return tuple(troubles)
