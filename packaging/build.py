#!/usr/bin/env python3
"""Builds dist/appliance when its sources have changed: C, PyInstaller's onedir, the staged tree, one file.

Run by build.sh with the Python of .build/venv. Two builds of one commit give the same bytes, wherever the tree lies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from modules import write_modules
from pack import HOUSE, INTERPRETER, LIBRARIES, pack, source_version

BUILD = HOUSE / ".build"
STAGED = BUILD / "staged"
OUT = HOUSE / "dist/appliance"
TRIPLET = f"{platform.machine()}-linux-gnu"
HOST_LIBRARIES = Path("/lib", TRIPLET)
LOADER = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}[platform.machine()]
GLIBC = (
    "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2",
)  # fmt: skip
# What the host's dynamic loader would look at. Ours shall find nothing there: the host's libraries fit another glibc.
HOST_PATHS = (
    (b"/etc/ld.so.cache\0", b"/etc/ld.so.none0\0"),
    (b"/etc/ld.so.preload\0", b"/etc/ld.so.no-load\0"),
    (
        f"/lib/{TRIPLET}/\0/usr/lib/{TRIPLET}/\0/lib/\0/usr/lib/\0".encode(),
        f"/-no/{TRIPLET}/\0/-no/lib/{TRIPLET}/\0/-no/\0/-no/lib/\0".encode(),
    ),
)


def sources() -> list[Path]:
    """Everything that the built file depends on."""
    found = [HOUSE / "pyproject.toml", HOUSE / "packaging/requirements.lock", HOUSE / "packaging/appliance.spec"]
    found += [HOUSE / "packaging/pack.py", HOUSE / "packaging/build.py", HOUSE / "packaging/modules.py"]
    found += [HOUSE / "packaging/texts.py"]
    found += (HOUSE / "packaging/launcher").glob("*.[ch]")
    found += (HOUSE / "packaging/launcher").glob("*.sh")
    found += (path for path in (HOUSE / "appliance").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(found)


def fingerprint() -> str:
    """Changes when a source does."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sources():
        digest.update(f"{path.relative_to(HOUSE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def freeze(onedir: Path) -> None:
    """PyInstaller, kept from whatever differs between two runs."""
    work = BUILD / "pyinstaller"
    shutil.rmtree(work, ignore_errors=True)
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": "1700000000",
        "PYTHONHASHSEED": "0",
        "PYI_LOG_LEVEL": "ERROR",
        "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "0",  # zstd packs better what nobody has packed before
        "PYINSTALLER_CONFIG_DIR": str(BUILD / "pyinstaller-cache"),
    }
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR"]
    command += ["--distpath", str(onedir.parent), "--workpath", str(work), str(HOUSE / "packaging/appliance.spec")]
    subprocess.run(command, check=True, env=environment, cwd=HOUSE)


def patch_loader(path: Path) -> None:
    """The dynamic loader, without the host's places."""
    program = path.read_bytes()
    for old, new in HOST_PATHS:
        assert len(old) == len(new)
        assert old in program, f"{path}: {old!r} is not in it"
        program = program.replace(old, new)
    path.write_bytes(program)


def stage(onedir: Path) -> None:
    """The onedir, glibc, and the program that starts units: what gets packed."""
    temp = BUILD / "staged.tmp"
    shutil.rmtree(temp, ignore_errors=True)
    shutil.copytree(onedir, temp)
    (temp / "lib").mkdir()
    for name in GLIBC:
        shutil.copy(HOST_LIBRARIES / name, temp / "lib" / name)
    shutil.copy(HOST_LIBRARIES / LOADER, temp / "lib/ld.so")
    patch_loader(temp / "lib/ld.so")
    shutil.copy(BUILD / "launcher/spawn", temp / "spawn")
    work = BUILD / "pyinstaller/appliance"
    write_modules(temp / "_internal/modules", work / "PYZ-00.pyz", work / "base_library.zip")
    texts = [sys.executable, "-OO", str(HOUSE / "packaging/texts.py"), str(temp / "_internal/texts")]
    subprocess.run(texts, check=True, env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"})
    for library in sorted(temp.rglob("*.so*")):  # only the program's own path counts, handed down to all it loads
        if library.parent.name != "lib" and library.is_file():
            subprocess.run(["patchelf", "--remove-rpath", str(library)], check=True)
    program = str(temp / "appliance")
    subprocess.run(["patchelf", "--force-rpath", "--set-rpath", LIBRARIES, program], check=True)
    subprocess.run(["patchelf", "--set-interpreter", INTERPRETER, program], check=True)
    shutil.rmtree(STAGED, ignore_errors=True)
    temp.rename(STAGED)


def build() -> None:
    """Does what is missing, one at a time on this tree."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted, stamp = fingerprint(), BUILD / "built-from"
        if OUT.exists() and STAGED.exists() and stamp.exists() and stamp.read_text() == wanted:
            return
        stamp.unlink(missing_ok=True)
        print("building dist/appliance ...", file=sys.stderr, flush=True)
        subprocess.run([HOUSE / "packaging/launcher/build.sh"], check=True)
        onedir = BUILD / "onedir/appliance"
        freeze(onedir)
        stage(onedir)
        pack(STAGED, OUT, version=source_version())
        stamp.write_text(wanted)
        print(f"built dist/appliance, {OUT.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    build()
